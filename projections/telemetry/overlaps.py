"""Where frames of an asset overlap in time, told by their windows alone.

Nearly every frame starts after all that came before it on its channels. That is seen from one
number a series; only where it is not so is the log asked which windows meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from domain.asset import telemetry_stream
from domain.frame_statistics import unpack_statistics_many
from eventlog.database import Connection
from projections.telemetry.frame_readings import SeriesKey

NEVER_NS: Final = -(2**63)
TIME_MAX_NS: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Window:
    """The time a frame covers, both ends included, and the series it belongs to."""

    key: SeriesKey
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Span:
    """What is known of all frames of a series: from when to when, and the longest of them."""

    start_ns: int = TIME_MAX_NS
    end_ns: int = NEVER_NS
    longest_ns: int = 0

    def extend(self, window: Window) -> None:
        """Take in one more frame."""
        self.start_ns = min(self.start_ns, window.start_ns)
        self.end_ns = max(self.end_ns, window.end_ns)
        self.longest_ns = max(self.longest_ns, min(window.end_ns - window.start_ns, TIME_MAX_NS))


Range = tuple[int, int]
"""From and to, both included, ns since 1970 UTC."""


async def find_overlaps(
    connection: Connection,
    ledger_id: int,
    spans: Mapping[SeriesKey, Span],
    windows: Sequence[Window],
    first_position: int,
) -> dict[str, list[Range]]:
    """Return, by asset, the ranges in which a frame of `windows` overlaps an earlier one.

    Two frames overlap where their windows meet and they have a channel in common.

    Parameters
    ----------
    spans : of every series of these assets, as they were before `windows`
    windows : of the frames from `first_position` on, in the order of the log
    """
    neighbours = _neighbours(spans)
    now = {key: span.end_ns for key, span in spans.items()}
    suspects: list[int] = []
    for number, window in enumerate(windows):
        for key in neighbours[window.key]:
            if now[key] >= window.start_ns:
                suspects.append(number)
                break
        now[window.key] = max(now[window.key], window.end_ns)
    if not suspects:
        return {}
    found: dict[str, list[Range]] = {}
    await _find_stored(connection, ledger_id, spans, windows, suspects, first_position, found)
    _find_among(windows, suspects, found)
    return {asset_id: joined_ranges(ranges) for asset_id, ranges in found.items()}


def _neighbours(spans: Mapping[SeriesKey, Span]) -> dict[SeriesKey, list[SeriesKey]]:
    """Return, for each series, those of its asset that have a channel in common with it."""
    bearers: dict[tuple[str, str], list[SeriesKey]] = {}
    for key in spans:
        for channel in key.channels:
            bearers.setdefault((key.asset_id, channel), []).append(key)
    return {
        key: list(
            dict.fromkeys(
                other for channel in key.channels for other in bearers[key.asset_id, channel]
            )
        )
        for key in spans
    }


async def _find_stored(
    connection: Connection,
    ledger_id: int,
    spans: Mapping[SeriesKey, Span],
    windows: Sequence[Window],
    suspects: Sequence[int],
    first_position: int,
    found: dict[str, list[Range]],
) -> None:
    longest: dict[str, int] = {}
    for key, span in spans.items():
        longest[key.asset_id] = max(longest.get(key.asset_id, 0), span.longest_ns)
    asked = [windows[n] for n in suspects]
    # No frame is longer than the longest, so the index on window ends is read in one place only.
    rows = await connection.fetch(
        """
        select w.n, e.window_start_ns, e.window_end_ns, e.statistics
        from unnest($2::integer[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
            as w(n, stream, start_ns, end_ns, last_end_ns)
        join lateral (
            select window_start_ns, window_end_ns, statistics from event
            where ledger_id = $1 and stream = w.stream and window_end_ns is not null
                and window_end_ns between w.start_ns and w.last_end_ns
                and window_start_ns <= w.end_ns and position < $7
        ) e on true
        """,
        ledger_id,
        suspects,
        [telemetry_stream(window.key.asset_id) for window in asked],
        [window.start_ns for window in asked],
        [window.end_ns for window in asked],
        [min(window.end_ns + longest[window.key.asset_id], TIME_MAX_NS) for window in asked],
        first_position,
    )
    names: dict[int, tuple[str, ...]] = {}
    told = [n for n, row in enumerate(rows) if row["statistics"] is not None]
    for stack in unpack_statistics_many([rows[n]["statistics"] for n in told]):
        names |= {told[place]: stack.names for place in stack.places}
    for n, row in enumerate(rows):
        window = windows[row["n"]]
        # Of a frame that was erased nothing else is known: it may have had the same channels.
        key = SeriesKey(window.key.asset_id, names.get(n, window.key.channels))
        _note(window, Window(key, row["window_start_ns"], row["window_end_ns"]), found)


def _find_among(
    windows: Sequence[Window], suspects: Sequence[int], found: dict[str, list[Range]]
) -> None:
    by_asset: dict[str, list[int]] = {}
    for number, window in enumerate(windows):
        by_asset.setdefault(window.key.asset_id, []).append(number)
    for asset_id in {windows[number].key.asset_id for number in suspects}:
        numbers = by_asset[asset_id]
        starts = np.array([windows[n].start_ns for n in numbers], np.int64)
        ends = np.array([windows[n].end_ns for n in numbers], np.int64)
        place = {number: at for at, number in enumerate(numbers)}
        for number in (n for n in suspects if n in place):
            at = place[number]
            meeting = (starts[:at] <= windows[number].end_ns) & (
                ends[:at] >= windows[number].start_ns
            )
            for other in np.flatnonzero(meeting).tolist():
                _note(windows[number], windows[numbers[other]], found)


def _note(window: Window, earlier: Window, found: dict[str, list[Range]]) -> None:
    """Keep where two windows that meet do so, if they have a channel in common."""
    if not set(window.key.channels).isdisjoint(earlier.key.channels):
        found.setdefault(window.key.asset_id, []).append(
            (max(window.start_ns, earlier.start_ns), min(window.end_ns, earlier.end_ns))
        )


def joined_ranges(ranges: Sequence[Range]) -> list[Range]:
    """Return `ranges` ascending, those that touch joined into one."""
    result: list[Range] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
