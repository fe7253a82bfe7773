"""The outline of an encoded frame: where each of its columns lies, and how it is coded.

Everything that a frame says of itself is held against the bounds here, before its columns are
decoded together with those of others (`domain.frame_decoding`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from domain.errors import MalformedFrame
from domain.frame_header import FrameHeader, unpack_header
from domain.frame_layout import MASKED, PACKED, XOR_SHUFFLED, Prelude, decompressed
from domain.frames import check_reading_count, check_sequence
from domain.integer_columns import DELTA, DRIFT, TABLE, UNARY, WIDTH_MAX

_KINDS: Final = frozenset(
    {
        predictor | unary | table | drift | masked
        for predictor in range(DELTA + 1)
        for unary in (0, UNARY)
        for table in (0, TABLE)
        for drift in ((0, DRIFT) if predictor == DELTA and not table else (0,))
        for masked in (0, MASKED)
    }
    | {PACKED, PACKED | MASKED}
)
_UNMASKED: Final = frozenset(kind for kind in range(256) if not kind & MASKED)
PLAIN_KINDS: Final = frozenset(kind for kind in _KINDS if not kind & (MASKED | PACKED))
"""Of columns of integers without a mask."""
BASE_BYTES_MAX: Final = 8
_DESCRIPTOR: Final = struct.Struct("3B")


@dataclass(slots=True)
class Outline:
    """Where everything of a frame lies.

    Parameters
    ----------
    columns : of clocks, channels and masks, in this order, the fields of a `Column` one after
        the other; their bits counted from `first_bit`
    kinds : of the columns
    exponents : for each column the power of ten of its ticks or decimals
    masked : the channels that have a mask
    packings : for each column that lies in the packed section, how
    packed : the packed section, unpacked
    at : byte at which the columns begin
    unary_count : how many integers the unary columns have together
    """

    encoded: bytes
    sequence: int
    header: FrameHeader
    lengths: tuple[int, ...]
    packed: bytes
    at: int
    columns: list[int] = field(default_factory=list)
    kinds: bytes = b""
    exponents: list[int] = field(default_factory=list)
    masked: list[int] = field(default_factory=list)
    packings: dict[int, int] = field(default_factory=dict)
    first_bit: int = 0
    unary: bytes = b""
    unary_count: int = 0

    def begun(self) -> Outline:
        """Return it without columns."""
        return Outline(self.encoded, self.sequence, self.header, self.lengths, self.packed, self.at)


def outlined(encoded: bytes, prelude: Prelude) -> Outline:
    """Return the outline of `encoded` without its columns."""
    check_sequence(prelude.sequence)
    lengths = prelude.clock_lengths
    header_end = prelude.body_offset + prelude.header_length
    if header_end > len(encoded):
        raise MalformedFrame("frame.truncated", "the frame ends within its header")
    header = unpack_header(encoded[prelude.body_offset : header_end])
    if header.clock_count != len(lengths):
        raise MalformedFrame("frame.clock", "header and prelude disagree on the clocks")
    count = sum(
        length * len(channels)
        for length, channels in zip(lengths, header.clock_channels, strict=True)
    )
    check_reading_count(count)
    if count != prelude.readings:
        raise MalformedFrame(
            "frame.too_many_readings",
            f"the frame declares {prelude.readings} readings and has {count}",
            value=prelude.readings,
            limit=count,
        )
    at, packed = _packed_section(encoded, header_end, prelude.packed_length)
    return Outline(encoded, prelude.sequence, header, lengths, packed, at)


def with_columns(outline: Outline) -> Outline:
    """Return `outline` after filling in its columns."""
    counts = [outline.lengths[channel.clock] for channel in outline.header.channels]
    _read_columns(outline, outline.at, [*outline.lengths, *counts])
    return outline


def _packed_section(encoded: bytes, at: int, unpacked_length: int) -> tuple[int, bytes]:
    """Return where the columns begin, and the packed section, unpacked."""
    if unpacked_length == 0:
        return at, b""
    end = at + 4 + int.from_bytes(encoded[at : at + 4], "little")
    if end > len(encoded):
        raise MalformedFrame("frame.truncated", "the frame ends within its packed section")
    return end, decompressed(encoded[at + 4 : end], unpacked_length)


def _read_columns(outline: Outline, at: int, counts: list[int]) -> None:
    """Fill in the columns of `outline`, which begin at byte `at`: their kinds, then their bases.

    Parameters
    ----------
    counts : how many values the clocks and the channels have; the masks' are added
    """
    encoded, clock_count, unmasked_count = outline.encoded, len(outline.lengths), len(counts)
    kinds = encoded[at : at + 3 * unmasked_count : 3]
    if not _UNMASKED.issuperset(kinds):
        outline.masked = [n for n, kind in enumerate(kinds[clock_count:]) if kind & MASKED]
        counts += [counts[clock_count + n] for n in outline.masked]
    parameter = at + 3 * len(counts)
    if parameter > len(encoded):
        raise MalformedFrame("frame.truncated", "the frame ends within its list of columns")
    descriptors = encoded[at:parameter]
    outline.kinds = descriptors[::3]
    columns, exponents = outline.columns, outline.exponents
    bit = unary_count = 0
    for n, (count, (kind, width, sizes)) in enumerate(
        zip(counts, _DESCRIPTOR.iter_unpack(descriptors), strict=True)
    ):
        size = sizes & 15
        if kind not in _KINDS or width > WIDTH_MAX or size > BASE_BYTES_MAX:
            raise _unknown_scheme(n, kind, width, sizes)
        exponents.append(sizes >> 4)
        end = parameter + size
        base = int.from_bytes(encoded[parameter:end], "little", signed=True)
        parameter = end
        if not kind & (DRIFT | TABLE | PACKED | MASKED):
            columns += (count, kind, width, base, 0, bit, 0, 0, 0, 0)
            bit += count * width
            if kind & UNARY:
                unary_count += count
            continue
        if kind & MASKED and not clock_count <= n < unmasked_count:
            raise _unknown_scheme(n, kind, width, sizes)
        drift = table_count = table_width = table_base = table_bit = 0
        if kind & DRIFT:
            end = parameter + size
            drift = int.from_bytes(encoded[parameter:end], "little", signed=True)
            parameter = end
        elif kind & TABLE:
            if parameter + 3 > len(encoded):
                raise MalformedFrame("frame.truncated", "the frame ends within a column's base")
            table_base, table_bit = base, bit
            table_count, table_width, base = encoded[parameter : parameter + 3]
            parameter += 3
            if table_width > WIDTH_MAX:
                raise _unknown_scheme(n, kind, table_width, sizes)
            bit += table_count * table_width
            table_count += 1
        elif kind & PACKED:
            if sizes or width > XOR_SHUFFLED or n >= unmasked_count:
                raise _unknown_scheme(n, kind, width, sizes)
            outline.packings[n], width = width, 0
        columns += (count, kind, width, base, drift, bit)
        columns += (table_count, table_width, table_base, table_bit)
        bit += count * width
        if kind & UNARY:
            unary_count += count
    unary_at = parameter + (bit + 7) // 8
    if unary_at > len(encoded):
        raise MalformedFrame("frame.truncated", "the frame ends within the bits of its columns")
    outline.first_bit, outline.unary_count = 8 * parameter, unary_count
    outline.unary = encoded[unary_at:]
    if outline.unary and not unary_count:
        raise MalformedFrame(
            "frame.trailing_bytes", f"{len(outline.unary)} bytes follow the last column"
        )


def _unknown_scheme(column: int, kind: int, width: int, sizes: int) -> MalformedFrame:
    return MalformedFrame(
        "frame.scheme",
        f"column {column} is coded in an unknown way: kind {kind}, width {width}, sizes {sizes}",
        value=[kind, width, sizes],
    )
