"""Recordings as bare arrays of numbers; see `edge_agent.history.arrays`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from domain.errors import HeddleError
from domain.frame_header import RATE_HZ_MAX, RATE_HZ_MIN
from domain.units import unit
from edge_agent.history.arrays import NPZ, ArrayChannel, ArrayClock, ArrayFile, ArraySource
from edge_agent.history.table import PERIOD_S_MAX, files_at
from edge_agent.scaling import read_scaling
from edge_agent.sources import SourceContext
from edge_agent.timestamps import ISO8601, TimeReader
from edge_agent.yaml_section import Section

KIND: Final = "arrays"

PARTS_MAX: Final = 1_000
COLUMNS_MAX: Final = 100_000


def configure(section: Section, context: SourceContext) -> ArraySource | None:
    """Return the recording that `section` declares, or None after noting what is wrong."""
    shared = _files(section, context) if section.has("path") else ()
    clock = _clock(section, shared)
    channels = _channels(section, context, shared)
    if clock is None or not channels:
        return None
    if len({len(channel.files) for channel in channels}) > 1:
        told = "the channels have not the same number of files"
        section.fault("channels", "mapping.several_files", told)
        return None
    source = ArraySource(array_channels=tuple(channels), clock=clock)
    try:
        # All that a part gets wrong shows at its first numbers.
        next(iter(source.read(None)), None)
    except (OSError, HeddleError) as error:
        code = error.code if isinstance(error, HeddleError) else "source.unreadable"
        told = error.message if isinstance(error, HeddleError) else str(error)
        hint = error.hint if isinstance(error, HeddleError) else ""
        section.fault("channels", code, told, hint)
        return None
    return source


def _files(section: Section, context: SourceContext) -> tuple[ArrayFile, ...]:
    """Return the arrays of ``path``, those of each file in the order of ``arrays``."""
    paths = files_at(section, context)
    names = (section.texts("arrays") or []) if section.has("arrays") else []
    if any(path.suffix == NPZ for path in paths) and not names:
        section.fault("arrays", "configuration.key_missing", "the arrays of an .npz have names")
        return ()
    found = tuple(file for path in paths for file in _of_path(path, names))
    if len(found) > PARTS_MAX:
        section.fault("path", "source.too_many_files", f"more than {PARTS_MAX} arrays")
        return ()
    return found


def _of_path(path: Path, names: list[str]) -> list[ArrayFile]:
    return [ArrayFile(path, name) for name in names] if path.suffix == NPZ else [ArrayFile(path)]


def _channels(
    section: Section, context: SourceContext, shared: tuple[ArrayFile, ...]
) -> list[ArrayChannel]:
    channels = section.section("channels")
    if channels is None:
        return []
    if not channels.present():
        section.fault("channels", "configuration.empty", "'channels' maps nothing")
    found: list[ArrayChannel] = []
    for name in channels.present():
        mapping = channels.section(name)
        known = channels.attempt(name, partial(context.asset_type.channel, name))
        if mapping is None:
            continue
        files = _files(mapping, context) if mapping.has("path") or not shared else shared
        column = None
        if mapping.has("column"):
            column = mapping.whole_number("column", 0, COLUMNS_MAX)
        symbol, scaling = mapping.text("unit"), read_scaling(mapping)
        mapping.finish()
        if symbol is None or known is None or scaling is None or not files:
            continue
        if mapping.attempt("unit", partial(unit, symbol, quantity=known.quantity)):
            found.append(ArrayChannel(name, symbol, files, column, scaling))
    return found


def _clock(section: Section, shared: tuple[ArrayFile, ...]) -> ArrayClock | None:
    time = section.section("time")
    if time is None:
        return None
    start, reader = time.text("start"), TimeReader(ISO8601, None)
    start_ns = None if start is None else time.attempt("start", lambda: reader.read(start, None))
    is_waveform = time.has("rate_hz")
    if is_waveform:
        rate_hz = time.number("rate_hz", RATE_HZ_MIN, RATE_HZ_MAX)
    else:
        period_s = time.number("period_s", 1e-6, PERIOD_S_MAX)
        rate_hz = None if period_s is None else 1 / period_s
    look_period_s = _optional(time, "look_period_s")
    gap_s = _optional(time, "gap_s")
    numbers: tuple[ArrayFile, ...] = ()
    if time.has("look_numbers"):
        name = time.text("look_numbers")
        numbers = tuple(ArrayFile(file.path, name or "") for file in shared)
        if any(file.path.suffix != NPZ for file in shared) or not shared:
            told = "looks are numbered by an array that lies beside them in an .npz"
            time.fault("look_numbers", "mapping.look_numbers", told)
        if look_period_s is None:
            told = "numbered looks need the time from one number to the next"
            time.fault("look_numbers", "configuration.key_missing", told, "add look_period_s")
    time.finish()
    if start_ns is None or rate_hz is None:
        return None
    return ArrayClock(
        start_ns=start_ns,
        rate_hz=rate_hz,
        is_waveform=is_waveform,
        look_period_ns=None if look_period_s is None else round(look_period_s * 1e9),
        numbers=numbers,
        gap_ns=0 if gap_s is None else round(gap_s * 1e9),
    )


def _optional(section: Section, key: str) -> float | None:
    return section.number(key, 0, PERIOD_S_MAX) if section.has(key) else None
