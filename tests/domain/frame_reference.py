"""A second reader of encoding 2, written from docs/frame-format.md alone: slow, and plain Python.

It shares nothing with the software but the header's dictionaries, so that what both read alike is
what the page says.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import zstandard

from domain.frame_dictionary import HEADER_DICTIONARY, TIMED_HEADER_DICTIONARY

TYPES = {
    "f8": "d", "f4": "f", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B",
}  # fmt: skip


@dataclass
class ReadFrame:
    """What the reference reader found; None stands for a MISSING value."""

    header: dict[str, Any]
    sequence: int
    clocks: list[list[int]]
    values: list[list[Any]]
    qualities: list[list[int]]


class _Bits:
    def __init__(self, raw: bytes) -> None:
        self._number, self.at = int.from_bytes(raw, "little"), 0

    def take(self, width: int) -> int:
        taken = self._number >> self.at & (1 << width) - 1
        self.at += width
        return taken

    def zeros(self) -> int:
        count = 0
        while not self.take(1):
            count += 1
        return count


def read_frame(encoded: bytes) -> ReadFrame:
    """Return what `encoded`, a sound frame of encoding 2, holds."""
    magic, version, sequence, readings, packed_length, header_length, clock_count = (
        struct.unpack_from("<3sBQIIHH", encoded)
    )
    assert (magic, version) == (b"HDF", 2)
    lengths = struct.unpack_from(f"<{clock_count}I", encoded, 24)
    at = 24 + 4 * clock_count
    header = json.loads(_header(encoded[at : at + header_length]))
    at += header_length
    packed = b""
    if packed_length:
        (size,) = struct.unpack_from("<I", encoded, at)
        packed = zstandard.ZstdDecompressor().decompress(
            encoded[at + 4 : at + 4 + size], max_output_size=packed_length
        )
        at += 4 + size
    channels = header["channels"]
    counts = [*lengths, *(lengths[channel["clock"]] for channel in channels)]
    assert sum(counts[clock_count:]) == readings
    integers, kinds, exponents, widths = _columns(encoded, at, counts, clock_count)
    cursor = _Cursor(packed)
    clocks = [
        _clock(
            integers[n], kinds[n], exponents[n], widths[n], lengths[n], _rate(channels, n), cursor
        )
        for n in range(clock_count)
    ]
    masked = [n for n in range(len(channels)) if kinds[clock_count + n] & 32]
    qualities = [[0] * lengths[channel["clock"]] for channel in channels]
    for place, n in enumerate(masked):
        qualities[n] = integers[clock_count + len(channels) + place] or []
    values = []
    for n, channel in enumerate(channels):
        column = clock_count + n
        found = _values(
            channel, integers[column], exponents[column], widths[column], counts[column], cursor
        )
        values.append([None if q == 3 else v for v, q in zip(found, qualities[n], strict=True)])
    assert cursor.at == len(packed)
    return ReadFrame(header, sequence, clocks, values, qualities)


def _header(packed: bytes) -> bytes:
    if packed[0] == 0:
        return packed[1:]
    dictionary = {1: HEADER_DICTIONARY, 2: TIMED_HEADER_DICTIONARY}[packed[0]]
    return zlib.decompressobj(-15, zdict=dictionary).decompress(packed[1:])


def _columns(
    encoded: bytes, at: int, counts: list[int], clock_count: int
) -> tuple[list[list[int] | None], list[int], list[int], list[int]]:
    kinds = [encoded[at + 3 * n] for n in range(len(counts))]
    counts = counts + [counts[n] for n in range(clock_count, len(counts)) if kinds[n] & 32]
    described = [encoded[at + 3 * n : at + 3 * n + 3] for n in range(len(counts))]
    at += 3 * len(counts)
    parameters = []
    for kind, _, sizes in described:
        size = sizes & 15
        base = int.from_bytes(encoded[at : at + size], "little", signed=True)
        at += size
        drift, table = 0, None
        if kind & 16:
            drift = int.from_bytes(encoded[at : at + size], "little", signed=True)
            at += size
        if kind & 8:
            table = base, encoded[at], encoded[at + 1]
            base = encoded[at + 2]
            at += 3
        parameters.append((base, drift, table))
    low = _Bits(encoded[at:])
    tables, lows = [], []
    for (kind, width, _), count, (_, _, table) in zip(described, counts, parameters, strict=True):
        entries = []
        if table is not None:
            entries = [table[0]]
            for _ in range(table[1]):
                entries.append(entries[-1] + 1 + low.take(table[2]))
        tables.append(entries)
        lows.append([] if kind & 64 else [low.take(width) for _ in range(count)])
    above = _Bits(encoded[at + (low.at + 7) // 8 :])
    columns: list[list[int] | None] = []
    for (kind, width, _), (base, drift, _), entries, column in zip(
        described, parameters, tables, lows, strict=True
    ):
        if kind & 64:
            columns.append(None)
            continue
        if kind & 4:
            column = [number + (above.zeros() << width) for number in column]
        if kind & 3:
            column = [-(r + 1) // 2 if r & 1 else r // 2 for r in column]
        if kind & 3 == 2:
            total = 0
            for n, residual in enumerate(column):
                total += residual
                column[n] = total + n * drift
        column = [base + number for number in column]
        columns.append([entries[place] for place in column] if kind & 8 else column)
    return (
        columns,
        [kind for kind, _, _ in described],
        [sizes >> 4 for _, _, sizes in described],
        [width for _, width, _ in described],
    )


class _Cursor:
    def __init__(self, raw: bytes) -> None:
        self._raw, self.at = raw, 0

    def take(self, length: int) -> bytes:
        self.at += length
        return self._raw[self.at - length : self.at]


def _rate(channels: list[dict[str, Any]], clock: int) -> float | None:
    return next(c.get("rate_hz") for c in channels if c["clock"] == clock)


def _clock(
    ticks: list[int] | None,
    kind: int,
    exponent: int,
    packing: int,
    count: int,
    rate_hz: float | None,
    cursor: _Cursor,
) -> list[int]:
    if ticks is None:
        return _unshuffled(cursor, "q", count, packing)
    times = [tick * 10**exponent for tick in ticks]
    if rate_hz is not None:
        assert kind == 0
        times = [times[0] + round(n * 1e9 / rate_hz) for n in range(count)]
    return times


def _values(
    channel: dict[str, Any],
    integers: list[int] | None,
    decimals: int,
    packing: int,
    count: int,
    cursor: _Cursor,
) -> list[Any]:
    kind = channel["type"]
    if integers is None:
        return _unshuffled(cursor, TYPES[kind], count, packing)
    if kind == "str":
        (texts,) = struct.unpack("<I", cursor.take(4))
        lengths = struct.unpack(f"<{texts}H", cursor.take(2 * texts))
        table = [cursor.take(length).decode() for length in lengths]
        return [table[place] for place in integers]
    if kind == "b1":
        return [bool(number) for number in integers]
    if kind == "f8":
        return [float(number) / 10.0**decimals for number in integers]
    if kind == "f4":
        return [
            struct.unpack("<f", struct.pack("<f", float(number) / 10.0**decimals))[0]
            for number in integers
        ]
    return integers


def _unshuffled(cursor: _Cursor, code: str, count: int, packing: int) -> list[Any]:
    size = struct.calcsize(code)
    planes = [cursor.take(count) for _ in range(size)]
    bits = [int.from_bytes(bytes(p[n] for p in planes), "little") for n in range(count)]
    if packing == 1:
        for n in range(1, count):
            bits[n] ^= bits[n - 1]
    return [struct.unpack(f"<{code}", number.to_bytes(size, "little"))[0] for number in bits]
