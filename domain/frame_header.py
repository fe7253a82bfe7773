"""The header of a frame: what does not change from one window of a source to the next.

A header is canonical JSON, so that the same header is the same bytes and hashes alike. Within an
encoded frame it is packed by DEFLATE against a fixed dictionary of usual words and units.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_dictionary import HEADER_DICTIONARY, TIMED_HEADER_DICTIONARY
from domain.identifiers import check_identifier
from domain.time_quality import TimeQuality, check_time_quality, time_quality_of

CHANNELS_MAX: Final = 256
HEADER_BYTES_MAX: Final = 65_535
UNIT_LENGTH_MAX: Final = 64
HEADERS_REMEMBERED_MAX: Final = 512
RATE_HZ_MIN: Final = 1e-3
RATE_HZ_MAX: Final = 1e9

VALUE_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "f8": np.dtype("<f8"),
    "f4": np.dtype("<f4"),
    "i8": np.dtype("<i8"),
    "i4": np.dtype("<i4"),
    "i2": np.dtype("<i2"),
    "i1": np.dtype("i1"),
    "u8": np.dtype("<u8"),
    "u4": np.dtype("<u4"),
    "u2": np.dtype("<u2"),
    "u1": np.dtype("u1"),
    "b1": np.dtype("?"),
    "str": np.dtype(object),
}
"""The types of a channel's values, as NumPy keeps them; ``str`` are Python strings."""

FIRST_VALUE_TYPES: Final = frozenset({"f8", "f4", "i8", "b1"})
"""What canonical form 1 and encoding 1 know."""


@dataclass(frozen=True, slots=True)
class ChannelHeader:
    """What a frame says of one channel: ``si = value * factor + offset``.

    Parameters
    ----------
    clock : index of the clock that times its values
    rate_hz : for a waveform, its samples a second; its clock then follows from a start
    """

    name: str
    unit: str
    factor: float
    offset: float
    value_type: str = "f8"
    clock: int = 0
    rate_hz: float | None = None

    @property
    def is_text(self) -> bool:
        """Whether the values are strings, which have no SI."""
        return self.value_type == "str"


@dataclass(frozen=True)
class FrameHeader:
    """What does not change from one frame of a source to the next.

    Parameters
    ----------
    time : how far the times can be trusted; None where the frame does not tell
    """

    asset: str
    agent: str
    channels: tuple[ChannelHeader, ...]
    clock_count: int = 1
    time: TimeQuality | None = None

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.asset, self.agent, self.channels, self.clock_count, self.time))

    @cached_property
    def canonical(self) -> bytes:
        """The canonical JSON: sorted keys, no spaces, ASCII keys."""
        return _canonical_json(self)

    @cached_property
    def packed(self) -> bytes:
        """The header as an encoded frame carries it."""
        return _packed(self.canonical, is_timed=self.time is not None)

    @cached_property
    def alike(self) -> tuple[tuple[ChannelHeader, ...], int]:
        """Channels and clocks as one object, the same for all headers that differ in asset and
        agent alone.
        """
        return _alike(self.channels, self.clock_count)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The channels' names."""
        return tuple(channel.name for channel in self.channels)

    @cached_property
    def clock_channels(self) -> tuple[tuple[int, ...], ...]:
        """For each clock, the indexes of its channels."""
        return tuple(
            tuple(n for n, channel in enumerate(self.channels) if channel.clock == clock)
            for clock in range(self.clock_count)
        )

    @cached_property
    def rates_hz(self) -> tuple[float | None, ...]:
        """For each clock, the rate of the waveforms it times, None where it times none."""
        return tuple(self.channels[indexes[0]].rate_hz for indexes in self.clock_channels)

    @cached_property
    def factors(self) -> npt.NDArray[np.float64]:
        """For each channel the factor of its map to SI: float64, shape (n_channels,)."""
        return np.array([channel.factor for channel in self.channels])

    @cached_property
    def offsets(self) -> npt.NDArray[np.float64]:
        """For each channel the offset of its map to SI: float64, shape (n_channels,)."""
        return np.array([channel.offset for channel in self.channels])

    @cached_property
    def single(self) -> npt.NDArray[np.bool_]:
        """For each channel whether its values are float32: shape (n_channels,)."""
        return np.array([channel.value_type == "f4" for channel in self.channels])

    @cached_property
    def uniform_type(self) -> str | None:
        """The numeric type of all values where they share a type and one clock, else None."""
        types = {channel.value_type for channel in self.channels}
        return types.pop() if self.clock_count == len(types) == 1 and "str" not in types else None

    @cached_property
    def numeric_channels(self) -> tuple[int, ...]:
        """The indexes of the channels that have an SI: all but those that hold text."""
        return tuple(n for n, channel in enumerate(self.channels) if not channel.is_text)

    @cached_property
    def text_channels(self) -> tuple[int, ...]:
        """The indexes of the channels that hold text."""
        return tuple(n for n, channel in enumerate(self.channels) if channel.is_text)

    @cached_property
    def is_first_version(self) -> bool:
        """Whether it says nothing that canonical form 1 cannot say."""
        return self.time is None and all(
            channel.value_type in FIRST_VALUE_TYPES and channel.rate_hz is None
            for channel in self.channels
        )

    def checked(self) -> FrameHeader:
        """Return this header, or raise as `check_header`; looked at once."""
        return self._checked

    @cached_property
    def _checked(self) -> FrameHeader:
        check_header(self)
        return self


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _alike(
    channels: tuple[ChannelHeader, ...], clock_count: int
) -> tuple[tuple[ChannelHeader, ...], int]:
    return channels, clock_count


def header_bytes(header: FrameHeader) -> bytes:
    """Return the canonical JSON of `header`."""
    return header.canonical


def _canonical_json(header: FrameHeader) -> bytes:
    document: dict[str, Any] = {
        "agent": header.agent,
        "asset": header.asset,
        "channels": [
            {
                "clock": channel.clock,
                "factor": channel.factor,
                "name": channel.name,
                "offset": channel.offset,
                "type": channel.value_type,
                "unit": channel.unit,
                **({} if channel.rate_hz is None else {"rate_hz": channel.rate_hz}),
            }
            for channel in header.channels
        ],
        "clocks": header.clock_count,
    }
    if header.time is not None:
        document["time"] = header.time.members()
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def parse_header(raw: bytes) -> FrameHeader:
    """Return the header that `raw` is the canonical JSON of.

    Raises
    ------
    MalformedFrame
        ``frame.header`` when it is not JSON, has other members, or is not canonical.
    """
    try:
        document = json.loads(raw)
        header = FrameHeader(
            asset=document["asset"],
            agent=document["agent"],
            channels=tuple(_parsed_channel(entry) for entry in document["channels"]),
            clock_count=document["clocks"],
            # Null is not left out here either.
            time=time_quality_of(document["time"]) if "time" in document else None,
        )
        canonical = header.checked().canonical
    except (MalformedFrame, InvalidInput):
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedFrame("frame.header", f"the frame's header is malformed: {error}") from error
    if canonical != raw:
        raise MalformedFrame(
            "frame.header",
            "the frame's header is not canonical JSON",
            hint="sorted keys, no spaces, shortest numbers, no other members",
        )
    return header


def _parsed_channel(entry: Any) -> ChannelHeader:
    return ChannelHeader(
        name=entry["name"],
        unit=entry["unit"],
        factor=entry["factor"],
        offset=entry["offset"],
        value_type=entry["type"],
        clock=entry["clock"],
        # Null where a number belongs is not left out: such a header is not canonical.
        rate_hz=entry.get("rate_hz"),
    )


# --- checks -------------------------------------------------------------------------------


def check_header(header: FrameHeader) -> None:
    """Raise unless names, counts, types, maps to SI, clocks and rates of `header` are sound.

    Raises
    ------
    InvalidInput
        ``asset.malformed_name``, ``agent.malformed_name``, ``channel.malformed_name``
    MalformedFrame
        ``frame.header``, ``frame.channel_count``, ``frame.channel_repeated``,
        ``frame.value_type``, ``frame.clock``, ``frame.rate``, ``frame.time_quality``
    """
    check_identifier("asset", header.asset)
    check_identifier("agent", header.agent)
    if not 1 <= len(header.channels) <= CHANNELS_MAX:
        raise MalformedFrame(
            "frame.channel_count",
            f"a frame has 1 to {CHANNELS_MAX} channels, not {len(header.channels)}",
            value=len(header.channels),
            limit=CHANNELS_MAX,
        )
    names = [check_identifier("channel", channel.name) for channel in header.channels]
    if len(set(names)) != len(names):
        raise MalformedFrame("frame.channel_repeated", "a channel appears twice in the frame")
    rates: dict[int, float | None] = {}
    for channel in header.channels:
        _check_value_type(channel)
        _check_unit(channel)
        _check_rate(channel)
        if type(channel.clock) is not int or not 0 <= channel.clock < CHANNELS_MAX:
            raise MalformedFrame("frame.clock", f"channel {channel.name!r} names no clock")
        if rates.setdefault(channel.clock, channel.rate_hz) != channel.rate_hz:
            raise MalformedFrame(
                "frame.rate",
                f"channel {channel.name!r} shares clock {channel.clock} with one of another rate",
                hint="channels of a clock have the same rate_hz, or none has any",
                value=channel.rate_hz,
                limit=rates[channel.clock],
            )
    if type(header.clock_count) is not int or not 1 <= header.clock_count <= CHANNELS_MAX:
        raise MalformedFrame("frame.clock", f"a frame has 1 to {CHANNELS_MAX} clocks")
    if rates.keys() != set(range(header.clock_count)):
        raise MalformedFrame("frame.clock", "each clock must be used by a channel and exist")
    if header.time is not None:
        check_time_quality(header.time)


def _check_value_type(channel: ChannelHeader) -> None:
    if channel.value_type not in VALUE_TYPES:
        raise MalformedFrame(
            "frame.value_type",
            f"channel {channel.name!r} has the unknown type {channel.value_type!r}",
            hint=f"known types: {', '.join(VALUE_TYPES)}",
            value=channel.value_type,
        )


def _check_unit(channel: ChannelHeader) -> None:
    if not isinstance(channel.unit, str) or not 1 <= len(channel.unit) <= UNIT_LENGTH_MAX:
        raise MalformedFrame(
            "frame.header",
            f"unit {channel.unit!r:.80} is not a text of 1 to {UNIT_LENGTH_MAX} characters",
            limit=UNIT_LENGTH_MAX,
        )
    for number in (channel.factor, channel.offset):
        if type(number) is not float or not math.isfinite(number):
            raise MalformedFrame("frame.header", f"{number!r:.80} is not a finite number")
        # It equals 0.0 and is written otherwise, so two canonical headers would be one.
        if number == 0.0 and math.copysign(1.0, number) < 0:
            raise MalformedFrame("frame.header", "a factor or an offset is a negative zero")
    if channel.is_text and (channel.factor, channel.offset) != (1.0, 0.0):
        raise MalformedFrame(
            "frame.header",
            f"channel {channel.name!r} holds text and maps it to SI",
            hint="text has factor 1.0 and offset 0.0",
        )


def _check_rate(channel: ChannelHeader) -> None:
    rate_hz = channel.rate_hz
    if rate_hz is None:
        return
    if type(rate_hz) is not float or not RATE_HZ_MIN <= rate_hz <= RATE_HZ_MAX:
        raise MalformedFrame(
            "frame.rate",
            f"channel {channel.name!r} has the rate {rate_hz!r:.80}, not a number from "
            f"{RATE_HZ_MIN} to {RATE_HZ_MAX} Hz",
            limit=RATE_HZ_MAX,
        )


# --- packed -------------------------------------------------------------------------------

_PLAIN: Final = 0
_DEFLATED: Final = 1
_DEFLATED_TIMED: Final = 2
_DICTIONARIES: Final = {_DEFLATED: HEADER_DICTIONARY, _DEFLATED_TIMED: TIMED_HEADER_DICTIONARY}


def _packed(canonical: bytes, *, is_timed: bool) -> bytes:
    if len(canonical) > HEADER_BYTES_MAX:
        raise InvalidInput(
            "frame.header",
            f"the frame's header takes {len(canonical)} bytes, more than {HEADER_BYTES_MAX}",
            hint="send fewer channels a frame",
            value=len(canonical),
            limit=HEADER_BYTES_MAX,
        )
    # What is without a quality of its times stays readable for those who know none.
    packing = _DEFLATED_TIMED if is_timed else _DEFLATED
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_DICTIONARIES[packing])
    deflated = deflate.compress(canonical) + deflate.flush()
    return bytes([packing]) + deflated


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def unpack_header(packed: bytes) -> FrameHeader:
    """Return the header that an encoded frame carries as `packed`.

    Raises
    ------
    MalformedFrame
        ``frame.header`` or what is wrong with the header, as `parse_header`
    """
    if not packed or packed[0] not in (_PLAIN, *_DICTIONARIES):
        raise MalformedFrame("frame.header", "the frame's header is packed in an unknown way")
    if packed[0] == _PLAIN:
        return parse_header(packed[1:])
    inflate = zlib.decompressobj(-15, zdict=_DICTIONARIES[packed[0]])
    try:
        raw = inflate.decompress(packed[1:], HEADER_BYTES_MAX)
    except zlib.error as error:
        raise MalformedFrame("frame.header", f"the header does not inflate: {error}") from error
    if not inflate.eof or inflate.unused_data or inflate.unconsumed_tail:
        raise MalformedFrame(
            "frame.header",
            f"the header does not inflate to at most {HEADER_BYTES_MAX} bytes and end there",
            limit=HEADER_BYTES_MAX,
        )
    return parse_header(raw)
