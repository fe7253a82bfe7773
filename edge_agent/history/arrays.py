"""Arrays of numbers as a finite source: NumPy's files, and text without a heading.

A recording of a test rig is often nothing but numbers: when the first was taken, at which rate
they follow, and which column is which sensor has to be declared. Its *parts* are read one after
the other; a part is a series, or *looks* of equal length with a time between their beginnings.
"""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from domain.errors import InvalidInput
from domain.frames import FloatArray, IntArray
from edge_agent.readings import Block, Position, RowFault, Rows
from edge_agent.scaling import Scaling
from edge_agent.timestamps import TIME_NS_MAX, TIME_NS_MIN

ROWS_PER_BLOCK: Final = 10_000
BYTES_MAX: Final = 512 * 1024 * 1024
"""Of one array or text, unpacked: it is held while it is read."""
CELL_SHOWN_MAX: Final = 80
_UNREADABLE: Final = (
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
)
"""What a file that is none of its kind, packed otherwise, encrypted or torn makes readers raise."""
NPZ: Final = ".npz"
NPY: Final = ".npy"


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """Where an array is.

    Parameters
    ----------
    path : ``.npz``, ``.npy``, or text, which may end in ``.gz``
    array : its name in an ``.npz``, else empty
    """

    path: Path
    array: str = ""

    @property
    def name(self) -> str:
        """What it is called; a position is kept under it."""
        return f"{self.path.name}#{self.array}" if self.array else self.path.name

    def read(self) -> np.ndarray[Any, Any]:
        """Return its numbers as they are stored; of a text float64, NaN where no number stands.

        Raises
        ------
        InvalidInput
            ``source.unreadable``, ``source.too_large``, ``mapping.unknown_array``,
            ``mapping.array_type``
        OSError
            the file cannot be opened
        """
        try:
            found = self._found()
        except _UNREADABLE as error:
            raise InvalidInput("source.unreadable", f"{self.name}: {error}"[:300]) from error
        if found.dtype.kind not in "biuf":
            told = f"{self.name} holds {found.dtype}, no numbers"
            raise InvalidInput("mapping.array_type", told, value=str(found.dtype))
        return found

    def _found(self) -> np.ndarray[Any, Any]:
        if self.path.suffix == NPZ:
            return self._of_archive()
        if self.path.suffix == NPY:
            with self.path.open("rb") as file:
                return _read_npy(self.name, file)
        return self._of_text()

    def _of_archive(self) -> np.ndarray[Any, Any]:
        with zipfile.ZipFile(self.path) as archive:
            names = {info.filename.removesuffix(NPY): info for info in archive.infolist()}
            if self.array not in names:
                raise InvalidInput(
                    "mapping.unknown_array",
                    f"{self.path.name} has no array {self.array!r}",
                    hint=f"its arrays: {', '.join(names)}"[:500],
                    value=self.array,
                )
            with archive.open(names[self.array]) as file:
                return _read_npy(self.name, file)

    def _of_text(self) -> np.ndarray[Any, Any]:
        opened = gzip.open if self.path.suffix == ".gz" else open
        with opened(self.path, "rb") as file:
            raw = file.read(BYTES_MAX // 8 + 1)
        _check_size(self.name, 8 * len(raw))
        text = raw.decode("utf-8-sig", errors="replace").replace(",", " ").replace(";", " ")
        rows = [row for line in text.splitlines() if (row := line.split())]
        widths = {len(row) for row in rows}
        if len(widths) != 1:
            told = "is empty"
            if widths:
                told = f"has rows of {min(widths)} and of {max(widths)} numbers"
            raise InvalidInput("source.unreadable", f"{self.name} {told}")
        return _numbers(rows, text)


def _read_npy(name: str, file: IO[bytes]) -> np.ndarray[Any, Any]:
    raw = file.read(BYTES_MAX + 1)
    _check_size(name, len(raw))
    held = io.BytesIO(raw)
    version = np.lib.format.read_magic(held)
    reader = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = reader(held)
    # What is declared is allocated, so it is held against what there is.
    if math.prod(shape) * dtype.itemsize > len(raw):
        raise ValueError(f"it declares the shape {shape} and ends before")
    held.seek(0)
    found: np.ndarray[Any, Any] = np.lib.format.read_array(held, allow_pickle=False)
    return found


def _check_size(name: str, size: int) -> None:
    if size > BYTES_MAX:
        told = f"{name} unpacks to more than {BYTES_MAX} bytes"
        raise InvalidInput("source.too_large", told, value=size, limit=BYTES_MAX)


def _numbers(rows: Sequence[Sequence[str]], text: str) -> FloatArray:
    # Python reads "1_000" as a number; whoever wrote the file did not mean one.
    if "_" not in text:
        try:
            return np.array(rows, np.float64)
        except ValueError:
            pass
    return np.array([[_number(cell) for cell in row] for row in rows], np.float64)


def _number(cell: str) -> float:
    try:
        return float("nan") if "_" in cell else float(cell)
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class ArrayChannel:
    """A channel and where its numbers are.

    Parameters
    ----------
    files : one for each part
    column : index along the last axis; None where the numbers of all axes are one series, row
        after row
    """

    name: str
    unit: str
    files: tuple[ArrayFile, ...]
    column: int | None = None
    scaling: Scaling = field(default_factory=Scaling)

    def looks(self, part: int) -> FloatArray:
        """Return the numbers of a part as float64, shape (n_looks, n).

        Raises
        ------
        InvalidInput
            as `ArrayFile.read`, or ``mapping.array_shape``
        """
        found = self.files[part].read()
        if self.column is not None:
            if not 2 <= found.ndim <= 3 or not 0 <= self.column < found.shape[-1]:
                raise self._misshapen(part, found)
            found = found[..., self.column]
        if not 1 <= found.ndim <= 2 or not found.size:
            raise self._misshapen(part, found)
        return self.scaling.apply(np.atleast_2d(found).astype(np.float64))

    def _misshapen(self, part: int, found: np.ndarray[Any, Any]) -> InvalidInput:
        wanted = "" if self.column is None else f" with a column {self.column}"
        told = f"{self.files[part].name} has the shape {found.shape}, no looks or series{wanted}"
        return InvalidInput("mapping.array_shape", told, value=list(found.shape))


@dataclass(frozen=True, slots=True)
class ArrayClock:
    """When the numbers were taken.

    Parameters
    ----------
    start_ns : of the first number; with `numbers`, of look number 0
    rate_hz : at which numbers follow each other within a look
    is_waveform : whether the channels are waveforms of that rate
    look_period_ns : from the beginning of a look to that of the next; None where looks follow
        each other without a gap
    numbers : for each part the array that numbers its looks; empty where they are counted from 0
    gap_ns : from the last number of a part to the first of the next, beside one period
    """

    start_ns: int
    rate_hz: float
    is_waveform: bool
    look_period_ns: int | None = None
    numbers: tuple[ArrayFile, ...] = ()
    gap_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """Parts read one after the other; a position is (part, count of numbers, time)."""

    array_channels: tuple[ArrayChannel, ...]
    clock: ArrayClock

    @property
    def channels(self) -> tuple[tuple[str, str], ...]:
        """The mapped channels, each as (channel name, unit symbol)."""
        return tuple((channel.name, channel.unit) for channel in self.array_channels)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts: the files of the first channel."""
        return tuple(file.name for file in self.array_channels[0].files)

    @property
    def endless(self) -> bool:
        """Never: a recording ends."""
        return False

    @property
    def rate_hz(self) -> float | None:
        """The rate of its channels where they are waveforms."""
        return self.clock.rate_hz if self.clock.is_waveform else None

    def read(self, after: Position | None) -> Iterator[Block]:
        """Yield the rows that follow `after`.

        Raises
        ------
        InvalidInput
            as `ArrayChannel.looks`, ``source.file_shorter``, ``row.time_out_of_range``
        """
        start_ns = self.clock.start_ns
        for part in range(len(self.parts)):
            columns, times_ns = self._part(part, start_ns)
            start_ns = int(times_ns[-1]) + round(1e9 / self.clock.rate_hz) + self.clock.gap_ns
            done = 0
            if after is not None and part <= after.part:
                done = after.row if part == after.part else len(times_ns)
            if done > len(times_ns):
                told = f"{self.parts[part]} ends before number {done}, to which it has been read"
                raise InvalidInput("source.file_shorter", told, value=done, limit=len(times_ns))
            for at in range(done, len(times_ns), ROWS_PER_BLOCK):
                upto = at + ROWS_PER_BLOCK
                yield self._block(part, at, times_ns[at:upto], columns[:, at:upto])

    def _part(self, part: int, start_ns: int) -> tuple[FloatArray, IntArray]:
        """Return the numbers of a part, shape (n_channels, n), and their times, shape (n,)."""
        looks = [channel.looks(part) for channel in self.array_channels]
        shapes = {one.shape for one in looks}
        if len(shapes) > 1:
            told = f"the channels of {self.parts[part]} have the shapes {sorted(shapes)}"
            raise InvalidInput("mapping.array_shape", told)
        count, length = shapes.pop()
        within_ns = np.rint(np.arange(length) * 1e9 / self.clock.rate_hz)
        if self.clock.look_period_ns is None:
            whole = np.rint(np.arange(count * length) * 1e9 / self.clock.rate_hz)
            since = whole.reshape(count, length)
        else:
            begins = self._numbers(part, count) * float(self.clock.look_period_ns)
            since = begins[:, None] + within_ns
        if not TIME_NS_MIN <= start_ns + since.min() <= start_ns + since.max() < TIME_NS_MAX:
            told = f"the times of {self.parts[part]} lie outside the years 1678 to 2262"
            raise InvalidInput("row.time_out_of_range", told)
        times_ns = since.astype(np.int64).ravel() + start_ns
        return np.stack([one.ravel() for one in looks]), times_ns

    def _numbers(self, part: int, count: int) -> FloatArray:
        if not self.clock.numbers:
            return np.arange(count, dtype=np.float64)
        found = self.clock.numbers[part].read()
        if found.shape != (count,) or not np.isfinite(found).all():
            told = f"{self.clock.numbers[part].name} does not number {count} looks"
            raise InvalidInput("mapping.array_shape", told, value=list(found.shape))
        return found.astype(np.float64)

    def _block(self, part: int, done: int, times_ns: IntArray, columns: FloatArray) -> Block:
        count = len(times_ns)
        values = columns
        faults: Sequence[RowFault] = ()
        finite = np.isfinite(columns)
        if not finite.all():
            values = np.where(finite, columns, np.nan)
            faults = [
                RowFault(
                    part,
                    done + int(at) + 1,
                    "cell.not_finite",
                    "no finite number stands there",
                    repr(float(columns[channel, at]))[:CELL_SHOWN_MAX],
                    self.array_channels[int(channel)].name,
                )
                for channel, at in np.argwhere(~finite)
            ]
        numbers = np.arange(done + 1, done + count + 1, dtype=np.int64)
        rows = Rows(np.full(count, part, np.int64), numbers, times_ns, values)
        return Block(rows, part, done + count, tuple(faults))
