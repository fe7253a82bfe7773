"""The archive's Parquet layout: windows of one header as long columns, and back bit for bit.

A file holds windows of one stream that share a frame header, a row each. A channel is a column
of lists, so that in the file its readings follow one another over all windows of a row group, a
*block*: that is what makes a cold reading small. Nothing here knows databases or file systems;
docs/archive.md specifies the layout.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import HeddleError, Unavailable
from domain.frames import (
    VALUE_TYPES,
    ByteArray,
    Column,
    Frame,
    FrameHeader,
    IntArray,
    Quality,
    header_bytes,
    parse_header,
)

LAYOUT_VERSION: Final = 1
BLOCK_WINDOWS_MAX: Final = 100
BLOCK_READINGS_MAX: Final = 500_000
"""A block has at least one window, however long that is."""
BLOCK_TEXT_BYTES_MAX: Final = 8 * 1024 * 1024
BLOCK_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of a block in memory; a file that asks for more is refused before it is read."""
SEGMENT_BLOCKS_MAX: Final = 10_000
WINDOW_MEMORY_BYTES: Final = 4_096
"""What a window's objects take beside its readings."""
TRIAL_READINGS: Final = 50_000
"""Of a channel, coded in every way to choose the best."""

DECIMALS_MAX: Final = 9
EXACT_INTEGER_MAX: Final = float(2**53)
ZSTD_LEVEL: Final = 9

_POSITION, _SEQUENCE = "_position", "_sequence"
_START, _END = "_window_start", "_window_end"
_PER_WINDOW: Final = (_POSITION, _SEQUENCE, _START, _END)
_TIME, _QUALITY = "_time", "_quality_"
_TICKS_NS: Final = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_META: Final = "heddle."
_MISSING: Final = {"f": np.nan, "i": 0, "u": 0, "b": False, "O": ""}
"""What stands where a reading is MISSING, by the kind of its type."""

T = TypeVar("T")


class ArchiveDamaged(Unavailable):
    """A file of the archive does not hold what it should (``archive.damaged``)."""


def damaged(path: str, reason: object) -> ArchiveDamaged:
    """Return the error that the file `path` is not as it was written."""
    return ArchiveDamaged(
        "archive.damaged",
        f"archive file {path} is not as it was written: {reason}",
        hint="restore the file from a backup of the archive",
        value=path,
    )


@dataclass(frozen=True, slots=True)
class Window:
    """A frame and where its event stands in the log."""

    position: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class Segment:
    """A file's content, and the positions that each of its blocks holds."""

    content: bytes
    blocks: tuple[tuple[int, ...], ...]


# --- writing ------------------------------------------------------------------------------


def write_segment(ledger: str, stream: str, windows: Sequence[Window]) -> Segment:
    """Return the file that holds `windows`, which share one header, in the order given."""
    header = windows[0].frame.header
    columns = _columns(header, windows)
    schema = pa.schema(
        [column.field for column in columns],
        metadata={
            f"{_META}archive_version": str(LAYOUT_VERSION),
            f"{_META}ledger": ledger,
            f"{_META}stream": stream,
            f"{_META}frame_header": header_bytes(header),
        },
    )
    table = pa.Table.from_arrays([column.array for column in columns], schema=schema)
    written = io.BytesIO()
    with pq.ParquetWriter(
        written,
        schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=[column.path for column in columns if column.encoding is None],
        column_encoding={c.path: c.encoding for c in columns if c.encoding is not None},
        write_statistics=list(_PER_WINDOW),
        store_decimal_as_integer=True,
        data_page_version="2.0",
    ) as writer:
        blocks = []
        for start, end in _block_bounds(windows):
            writer.write_table(table.slice(start, end - start), row_group_size=BLOCK_WINDOWS_MAX)
            blocks.append(tuple(window.position for window in windows[start:end]))
    return Segment(written.getvalue(), tuple(blocks))


def text_bytes(frame: Frame) -> int:
    """Return what the texts of `frame` take, each as often as it was read, UTF-8."""
    return sum(len(text.encode()) for index in frame.text_channels for text in frame.values[index])


def _block_bounds(windows: Sequence[Window]) -> Iterator[tuple[int, int]]:
    start = readings = texts = 0
    for end, window in enumerate(windows):
        of_this = window.frame.reading_count, text_bytes(window.frame)
        readings, texts = readings + of_this[0], texts + of_this[1]
        full = readings > BLOCK_READINGS_MAX or texts > BLOCK_TEXT_BYTES_MAX
        if end - start == BLOCK_WINDOWS_MAX or (end > start and full):
            yield start, end
            start, (readings, texts) = end, of_this
    yield start, len(windows)


@dataclass(frozen=True, slots=True)
class _Column:
    """An Arrow column and how Parquet is to code it; `encoding` None is a dictionary."""

    field: pa.Field
    array: pa.Array
    encoding: str | None = None

    @property
    def path(self) -> str:
        nested = pa.types.is_list(self.field.type)
        return f"{self.field.name}.list.element" if nested else str(self.field.name)


def _columns(header: FrameHeader, windows: Sequence[Window]) -> list[_Column]:
    frames = [window.frame for window in windows]
    columns = [
        _per_window(_POSITION, [window.position for window in windows]),
        _per_window(_SEQUENCE, [frame.sequence for frame in frames]),
        _per_window(_START, [frame.window_start_ns for frame in frames], times=True),
        _per_window(_END, [frame.window_end_ns for frame in frames], times=True),
    ]
    offsets = []
    for clock in range(header.clock_count):
        times = [frame.clocks[clock] for frame in frames]
        offsets.append(_offsets([len(t) for t in times]))
        array = _timestamps(np.concatenate(times))
        columns.append(_listed(_time_name(clock), offsets[-1], array, "DELTA_BINARY_PACKED"))
    for index, channel in enumerate(header.channels):
        values = np.concatenate([frame.values[index] for frame in frames])
        quality = np.concatenate([frame.qualities[index] for frame in frames])
        array = _values(values, quality)
        column = _listed(channel.name, offsets[channel.clock], array, _best_encoding(array))
        unit = {
            "unit": channel.unit,
            "factor": repr(channel.factor),
            "offset": repr(channel.offset),
        }
        columns.append(_Column(column.field.with_metadata(unit), column.array, column.encoding))
        if quality.any():
            name = f"{_QUALITY}{channel.name}"
            columns.append(_listed(name, offsets[channel.clock], pa.array(quality), None))
    return columns


def _per_window(name: str, numbers: list[int], *, times: bool = False) -> _Column:
    column = np.array(numbers, np.int64)
    array = _timestamps(column) if times else pa.array(column)
    return _Column(pa.field(name, array.type, nullable=False), array, "DELTA_BINARY_PACKED")


def _time_name(clock: int) -> str:
    return _TIME if clock == 0 else f"{_TIME}_{clock}"


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))


def _timestamps(times_ns: IntArray) -> pa.Array:
    """Return `times_ns` in the coarsest unit that holds each exactly."""
    unit, tick = next((u, t) for u, t in _TICKS_NS.items() if not (times_ns % t).any())
    return pa.array(times_ns // tick, pa.timestamp(unit, "UTC"))


def _listed(name: str, offsets: pa.Array, array: pa.Array, encoding: str | None) -> _Column:
    nullable = bool(array.null_count)
    lists = pa.list_(pa.field("element", array.type, nullable=nullable))
    return _Column(
        pa.field(name, lists, nullable=False),
        pa.ListArray.from_arrays(offsets, array, type=lists),
        encoding,
    )


def _values(column: Column, quality: ByteArray) -> pa.Array:
    """Return `column` with nulls where a reading is MISSING; decimal where that is exact."""
    missing = quality == Quality.MISSING
    mask = missing if missing.any() else None
    if column.dtype.kind == "O":
        return pa.array(column, pa.string(), mask=mask)
    if column.dtype.kind != "f":
        return pa.array(column, mask=mask)
    present = column if mask is None else np.where(missing, column.dtype.type(0), column)
    scaled = _exact_decimals(present)
    if scaled is None:
        return pa.array(present, mask=mask)
    decimals, integers = scaled
    decimal: pa.DataType = pa.decimal64(16, decimals)
    stored: Column = integers
    if np.abs(integers).max() < 10**9:
        decimal, stored = pa.decimal32(9, decimals), integers.astype(np.int32)
    validity = None
    if mask is not None:
        validity = pa.py_buffer(np.packbits(~missing, bitorder="little").tobytes())
    return pa.Array.from_buffers(decimal, len(stored), [validity, pa.py_buffer(stored)])


def _exact_decimals(column: Column) -> tuple[int, IntArray] | None:
    """Return (decimals, integers) with ``integers / 10**decimals`` equal to `column` bit by bit.

    A quotient of an integer below 2**53 and such a power is the float nearest to the decimal:
    what any reader of the decimal gets.
    """
    sample = column[:: max(1, len(column) // 64)]
    for decimals in range(DECIMALS_MAX + 1):
        if _scaled(sample, decimals) is not None:
            integers = _scaled(column, decimals)
            if integers is not None:
                return decimals, integers
    return None


def _scaled(column: Column, decimals: int) -> IntArray | None:
    power = 10.0**decimals
    with np.errstate(over="ignore"):
        rounded = np.rint(column.astype(np.float64, copy=False) * power)
    if not np.abs(rounded).max() < EXACT_INTEGER_MAX:
        return None
    integers = rounded.astype(np.int64)
    restored = (integers / power).astype(column.dtype, copy=False)
    bits = f"<i{column.dtype.itemsize}"
    return integers if np.array_equal(restored.view(bits), column.view(bits)) else None


def _best_encoding(array: pa.Array) -> str | None:
    """Return the encoding, None for a dictionary, under which `array` begins smallest."""
    choices = [None, "PLAIN", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"]
    if pa.types.is_boolean(array.type):
        return "PLAIN"
    if pa.types.is_string(array.type):
        return None
    if pa.types.is_floating(array.type):
        choices.remove("DELTA_BINARY_PACKED")
    trial = pa.table({"trial": array[:TRIAL_READINGS]})
    return min(choices, key=lambda encoding: _coded_size(trial, encoding))


def _coded_size(trial: pa.Table, encoding: str | None) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(
        trial,
        sink,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=encoding is None,
        column_encoding=None if encoding is None else {"trial": encoding},
        store_decimal_as_integer=True,
    )
    return int(sink.tell())


# --- reading ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """The windows of one row group.

    Parameters
    ----------
    memory_bytes : what holding it takes, roughly, encoded payloads included
    encoded : by position, the payloads that somebody has asked for
    """

    windows: tuple[Window, ...]
    memory_bytes: int
    encoded: dict[int, bytes] = field(default_factory=dict)

    def frame(self, position: int) -> Frame | None:
        """Return the frame of the event at `position`, None when the block has none."""
        return next((w.frame for w in self.windows if w.position == position), None)


class SegmentFile:
    """An opened file of the archive.

    Raises
    ------
    ArchiveDamaged
        ``archive.damaged``, here and in `block`: no file of this layout, or larger than it may be
    """

    def __init__(self, source: Any, path: str) -> None:
        self._path = path
        self._file = self._parsed(lambda: pq.ParquetFile(source, page_checksum_verification=False))
        metadata = self._file.schema_arrow.metadata or {}
        version = metadata.get(f"{_META}archive_version".encode(), b"").decode(errors="replace")
        if version != str(LAYOUT_VERSION):
            raise damaged(path, f"layout version {version!r:.20} is not {LAYOUT_VERSION}")
        raw_header = metadata.get(f"{_META}frame_header".encode(), b"")
        self._header = self._parsed(lambda: parse_header(raw_header))
        if self.block_count > SEGMENT_BLOCKS_MAX:
            raise damaged(path, f"{self.block_count} row groups are too many")

    @property
    def block_count(self) -> int:
        """Row groups in the file."""
        return int(self._file.num_row_groups)

    def block(self, number: int) -> Block:
        """Return the windows of row group `number`; whoever asks compares their hashes."""
        if not 0 <= number < self.block_count:
            raise damaged(self._path, f"it has no row group {number}")
        return self._parsed(lambda: self._read(number))

    def blocks(self) -> Iterator[Block]:
        """Yield every block."""
        for number in range(self.block_count):
            yield self.block(number)

    def _parsed(self, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except ArchiveDamaged:
            raise
        except (pa.ArrowException, HeddleError, ValueError, KeyError, TypeError, IndexError) as e:
            raise damaged(self._path, f"{type(e).__name__}: {e}") from e
        except OSError as error:
            # Arrow's own complaint of what it read has no number; a file system's has.
            if type(error) is OSError and error.errno is None:
                raise damaged(self._path, error) from error
            raise

    def _read(self, number: int) -> Block:
        about = self._file.metadata.row_group(number)
        if about.total_byte_size > BLOCK_BYTES_MAX or about.num_rows > BLOCK_WINDOWS_MAX:
            raise damaged(
                self._path, f"row group {number}: {about.num_rows} rows, {about.total_byte_size} B"
            )
        table = self._file.read_row_group(number, use_threads=False)
        if table.nbytes > BLOCK_BYTES_MAX:
            raise damaged(self._path, f"row group {number} takes {table.nbytes} B")
        header = self._header
        clocks = [_read_lists(table, _time_name(clock)) for clock in range(header.clock_count)]
        clocks_ns = [(bounds, _times_ns(times)) for bounds, times in clocks]
        columns = []
        for channel in header.channels:
            bounds, array = _read_lists(table, channel.name)
            quality = _read_quality(table, channel.name, bounds)
            values = _read_values(array, VALUE_TYPES[channel.value_type], quality)
            columns.append((bounds, values, quality))
        positions = table[_POSITION].to_pylist()
        windows = []
        for row, sequence in enumerate(table[_SEQUENCE].to_pylist()):
            frame = Frame(
                header,
                sequence,
                tuple(times[bounds[row] : bounds[row + 1]] for bounds, times in clocks_ns),
                tuple(values[b[row] : b[row + 1]] for b, values, _ in columns),
                tuple(quality[b[row] : b[row + 1]] for b, _, quality in columns),
            )
            windows.append(Window(positions[row], frame))
        held = sum(times.nbytes for _, times in clocks_ns)
        held += sum(values.nbytes + quality.nbytes for _, values, quality in columns)
        return Block(tuple(windows), held + held // 4 + WINDOW_MEMORY_BYTES * len(windows))


def _read_lists(table: pa.Table, name: str) -> tuple[list[int], pa.Array]:
    """Return (bounds of the rows, the values of all rows) of the column of lists `name`."""
    lists = table[name].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0)
    bounds = lists.offsets.to_pylist()
    if len(bounds) != table.num_rows + 1 or bounds[0] != 0 or sorted(bounds) != bounds:
        raise ValueError(f"the lists of {name!r:.80} do not follow one another")
    return bounds, lists.values


def _times_ns(array: pa.Array) -> IntArray:
    if not pa.types.is_timestamp(array.type) or array.null_count:
        raise ValueError(f"times are {array.type}")
    return _buffer(array, np.dtype("<i8")) * _TICKS_NS[array.type.unit]


def _read_quality(table: pa.Table, name: str, bounds: list[int]) -> ByteArray:
    if f"{_QUALITY}{name}" not in table.column_names:
        return np.zeros(bounds[-1], np.uint8)
    own_bounds, array = _read_lists(table, f"{_QUALITY}{name}")
    if own_bounds != bounds or array.type != pa.uint8():
        raise ValueError(f"the qualities of {name!r:.80} do not match its values")
    return _buffer(array, np.dtype(np.uint8))


def _read_values(array: pa.Array, dtype: np.dtype[Any], quality: ByteArray) -> Column:
    kind = array.type
    column: Column
    if pa.types.is_decimal(kind):
        width = np.dtype(f"<i{kind.bit_width // 8}")
        column = (_buffer(array, width) / 10.0**kind.scale).astype(dtype, copy=False)
    elif pa.types.is_boolean(kind) or pa.types.is_string(kind):
        column = array.fill_null(_MISSING[dtype.kind]).to_numpy(zero_copy_only=False)
    else:
        column = _buffer(array, np.dtype(kind.to_pandas_dtype()))
    if column.dtype != dtype:
        raise ValueError(f"a channel of {dtype} is stored as {kind}")
    missing = quality == Quality.MISSING
    if missing.any():
        column = column.copy()
        column[missing] = _MISSING[dtype.kind]
    return column


def _buffer(array: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the values of `array` as they lie in memory, whatever stands where one is null."""
    buffer = array.buffers()[1]
    if buffer is None:
        return np.empty(0, dtype)
    column: Column = np.frombuffer(buffer, dtype, len(array), array.offset * dtype.itemsize)
    return column
