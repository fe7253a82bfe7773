"""Recordings as CSV: one reading per mapped column and row, exactly as the text says.

A value is ``float(text)`` and nothing else is done to it. A cell that is empty or not a finite
number gives a MISSING reading; a row whose time cannot be told, or that has not as many cells as
the heading, is refused whole. Both are reported with file, row and text, and harm no neighbour.
A row is a line: a quoted cell may hold the delimiter but no line break. Where files have no
heading, columns are called by their number, from 1. Files may be packed (``.gz``, and ``.zip``
that holds one file).
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TextIO
from zoneinfo import ZoneInfo

import numpy as np

from domain.errors import HeddleError, InvalidInput
from domain.frames import FloatArray
from domain.units import unit
from edge_agent.history.table import RowClock, read_clock
from edge_agent.readings import Block, Position, RowFault, Rows, parts_in_turn
from edge_agent.sources import SourceContext
from edge_agent.time_declaration import note_zone_missing, read_time_format
from edge_agent.timestamps import ISO8601, TimeReader
from edge_agent.yaml_section import Section

KIND: Final = "csv"

LINES_PER_BLOCK: Final = 1_000
LINE_LENGTH_MAX: Final = 65_536
FILES_MAX: Final = 10_000
_QUOTE: Final = '"'
BLANKS: Final = "blanks"
"""In place of a delimiter: any number of spaces and tabs between cells."""


@dataclass(frozen=True, slots=True)
class ChannelColumn:
    """The column that holds a channel, and the unit its values are delivered in."""

    channel: str
    unit: str
    column: str


# --- configuration ------------------------------------------------------------------------


def configure(section: Section, context: SourceContext) -> CsvRecording | None:
    """Return the recording that `section` declares, or None after noting what is wrong."""
    files = _files(section, context.data_dir)
    delimiter = _delimiter(section)
    has_heading = _has_heading(section)
    time = section.section("time")
    periodic = time is not None and time.has("start")
    # Files are counted on from one start, as if they were one.
    clock = read_clock(section, 1) if periodic else None
    time_column, time_format, zone = (None, None, None) if time is None or periodic else _time(time)
    columns = _columns(section, context)
    if not files or not delimiter or not time:
        return None
    if clock is None and (not time_column or not time_format):
        return None
    recording = CsvRecording(
        data_dir=context.data_dir,
        files=tuple(files),
        delimiter=delimiter,
        has_heading=has_heading,
        time_column=time_column or "",
        time_format=time_format or ISO8601,
        zone=zone,
        columns=tuple(columns),
        clock=clock,
    )
    for file in files:
        _check_file(recording, file, section, time)
    return recording if columns else None


def _files(section: Section, data_dir: Path) -> list[str]:
    """Return the files of ``path`` in the order of reading; patterns are in natural order."""
    found: list[str] = []
    for path in section.texts("path") or ():
        if any(character in path for character in "*?["):
            matches = sorted(_relative_matches(data_dir, path), key=_natural_order)
        else:
            matches = [path] if (data_dir / path).is_file() else []
        if not matches:
            told = f"there is no file {str(data_dir / path)!r}"
            section.fault("path", "source.file_missing", told, "paths are relative to HEDDLE_DATA")
        found += matches
    if len(found) > FILES_MAX:
        section.fault("path", "source.too_many_files", f"more than {FILES_MAX} files")
    if len(set(found)) != len(found):
        section.fault("path", "source.file_repeated", "the same file would be read twice")
    return found[:FILES_MAX]


def _relative_matches(data_dir: Path, pattern: str) -> list[str]:
    try:
        matches = [match for match in data_dir.glob(pattern) if match.is_file()]
    except (NotImplementedError, ValueError):  # an absolute or an ill-formed pattern
        return []
    return [match.relative_to(data_dir).as_posix() for match in matches]


def _natural_order(path: str) -> list[tuple[int, str]]:
    """Return a key that puts ``2.csv`` before ``10.csv``."""
    pieces = re.split(r"(\d+)", path)
    return [(int(p), "") if p.isdecimal() else (0, p) for p in pieces]


def _has_heading(section: Section) -> bool:
    if not section.has("heading"):
        return True
    told = section.plain("heading")
    if type(told) is not bool:
        section.fault("heading", "configuration.wrong_type", f"{told!r:.80} is not true or false")
    return told is not False


def _delimiter(section: Section) -> str | None:
    if not section.has("delimiter"):
        return ","
    delimiter = section.text("delimiter")
    if delimiter == BLANKS:
        return delimiter
    if delimiter and (len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"\r\n.+-_'):
        told = f"{delimiter!r} cannot delimit cells"
        hint = f"one character such as ';' or ',', or {BLANKS}"
        section.fault("delimiter", "mapping.delimiter", told, hint)
        return None
    return delimiter


def _time(time: Section) -> tuple[str | None, str | None, ZoneInfo | None]:
    column = _column(time)
    time_format, zone = read_time_format(time)
    time.finish()
    return column, time_format, zone


def _column(section: Section) -> str | None:
    """Return the column that is named, or numbered where files have no heading."""
    if section.has("column") and type(number := section.plain("column")) is int:
        return str(number)
    return section.text("column")


def _columns(section: Section, context: SourceContext) -> list[ChannelColumn]:
    channels = section.section("channels")
    if channels is None:
        return []
    found: list[ChannelColumn] = []
    if not channels.present():
        section.fault("channels", "configuration.empty", "'channels' maps nothing")
    for name in channels.present():
        mapping = channels.section(name)
        known = channels.attempt(name, partial(context.asset_type.channel, name))
        if mapping is None:
            continue
        column, symbol = _column(mapping), mapping.text("unit")
        mapping.finish()
        if symbol is None or column is None:
            continue
        quantity = known.quantity if known else None
        if mapping.attempt("unit", partial(unit, symbol, quantity=quantity)) and known:
            found.append(ChannelColumn(name, symbol, column))
    return found


def _check_file(recording: CsvRecording, file: str, section: Section, time: Section) -> None:
    """Note every column that `file` lacks, and a first time that names no instant."""
    try:
        heading = recording.heading(file)
        with recording.open(file) as lines:
            for _ in range(recording.heading_lines):
                _line(lines)
            first = recording.cells(_line(lines))
    except (OSError, EOFError, InvalidInput) as error:
        section.fault("path", "source.unreadable", f"{file}: {error}")
        return
    wanted = [] if recording.clock else [(time, "column", recording.time_column)]
    channels = section.section("channels")
    for mapped in recording.columns:
        mapping = channels and channels.section(mapped.channel)
        if mapping:
            wanted.append((mapping, "column", mapped.column))
    for place, key, column in wanted:
        if heading.count(column) == 0:
            told = f"{file} has no column {column!r}"
            hint = f"its columns: {', '.join(heading)}"[:500]
            place.fault(key, "mapping.unknown_column", told, hint)
        elif heading.count(column) > 1:
            told = f"{file} has {heading.count(column)} columns {column!r}"
            place.fault(key, "mapping.column_repeated", told)
    _check_first_time(recording, file, heading, first, time)


def _check_first_time(
    recording: CsvRecording, file: str, heading: list[str], first: list[str], time: Section
) -> None:
    if recording.time_format != ISO8601 or len(first) != len(heading):
        return
    if recording.clock or recording.time_column not in heading or time.has("zone"):
        return
    try:
        recording.time_reader().read(first[heading.index(recording.time_column)], None)
    except HeddleError as error:
        if error.code == "row.zone_missing":
            note_zone_missing(time, f"the first time in {file} carries no zone")


# --- reading ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CsvRecording:
    """Files read one after the other; a position is (file, line, time of that line).

    Parameters
    ----------
    has_heading : whether the first line of each file names its columns
    clock : of a recording whose rows tell no time; it counts on through all files
    """

    data_dir: Path
    files: tuple[str, ...]
    delimiter: str
    time_column: str
    time_format: str
    zone: ZoneInfo | None
    columns: tuple[ChannelColumn, ...]
    clock: RowClock | None = None
    has_heading: bool = True

    @property
    def heading_lines(self) -> int:
        """Lines of a file before its first row."""
        return 1 if self.has_heading else 0

    @property
    def channels(self) -> tuple[tuple[str, str], ...]:
        """The mapped channels, each as (channel name, unit symbol)."""
        return tuple((mapped.channel, mapped.unit) for mapped in self.columns)

    @property
    def parts(self) -> tuple[str, ...]:
        """The files, relative to the folder of recordings."""
        return self.files

    @property
    def endless(self) -> bool:
        """Never: a recording ends with its last file."""
        return False

    def read(self, after: Position | None) -> Iterator[Block]:
        """Yield the rows that follow `after`, in blocks of `LINES_PER_BLOCK` lines.

        Raises
        ------
        InvalidInput
            ``source.file_shorter`` when a file ends before the row reading has come to,
            ``mapping.unknown_column`` when a file has lost a column since the start.
        """
        clock = self.clock
        if clock is not None and after is not None:
            # What a row's time says of its file's first holds whatever was refused before it.
            row = after.row - self.heading_lines
            clock = replace(clock, start_ns=after.time_ns - (row - 1) * clock.period_ns)

        def read_file(part: int, done: int, previous_ns: int | None) -> Iterator[Block]:
            nonlocal clock
            line_done = done or self.heading_lines
            for block in self._read_file(part, line_done, previous_ns, clock):
                yield block
                line_done = block.row
            if clock is not None:
                rows = line_done - self.heading_lines
                clock = replace(clock, start_ns=clock.start_ns + rows * clock.period_ns)

        return parts_in_turn(len(self.files), after, read_file)

    def heading(self, file: str) -> list[str]:
        """Return the names of the columns of `file`; their numbers where it has no heading."""
        with self.open(file) as lines:
            cells = self.cells(_line(lines))
        return cells if self.has_heading else [str(n) for n in range(1, len(cells) + 1)]

    @contextmanager
    def open(self, file: str) -> Iterator[TextIO]:
        """Open `file` as text; bytes that are not UTF-8 are read as U+FFFD.

        Raises
        ------
        InvalidInput
            ``source.unreadable`` when a packed file is none
        """
        path = self.data_dir / file
        try:
            if path.suffix == ".gz":
                with gzip.open(path, "rt", encoding="utf-8-sig", errors="replace") as text:
                    yield text
            elif path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive, archive.open(_only(archive)) as raw:
                    yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace")
            else:
                with path.open(encoding="utf-8-sig", errors="replace") as plain:
                    yield plain
        except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InvalidInput("source.unreadable", f"{file}: {error}"[:300]) from error

    def time_reader(self) -> TimeReader:
        """Return a reader of the recording's times."""
        return TimeReader(self.time_format, self.zone)

    def cells(self, line: str) -> list[str]:
        """Return the cells of `line`.

        Raises
        ------
        InvalidInput
            ``row.unreadable`` when a quote is not closed.
        """
        if self.delimiter == BLANKS:
            return line.split()
        text = line.rstrip("\n")
        if _QUOTE not in text:
            return text.split(self.delimiter)
        try:
            return next(csv.reader([text], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            raise InvalidInput("row.unreadable", f"the row is not CSV: {error}") from error

    def _read_file(
        self, part: int, line_done: int, previous_ns: int | None, clock: RowClock | None
    ) -> Iterator[Block]:
        file = self.files[part]
        heading = self.heading(file)
        with self.open(file) as lines:
            for _ in range(line_done):
                if not _line(lines):
                    told = f"{file} ends before line {line_done}, up to which it has been read"
                    raise InvalidInput("source.file_shorter", told, value=file, limit=line_done)
            block_reader = _BlockReader(self, part, heading, clock)
            while block := list(islice(iter(lambda: _line(lines), ""), LINES_PER_BLOCK)):
                read = block_reader.read(block, line_done, previous_ns)
                line_done += len(block)
                if len(read.rows):
                    previous_ns = int(read.rows.times_ns[-1])
                yield read


class _BlockReader:
    """Turns lines of one file into columns."""

    def __init__(
        self, recording: CsvRecording, part: int, heading: Sequence[str], clock: RowClock | None
    ) -> None:
        self._recording = recording
        self._part = part
        self._width = len(heading)
        self._times = recording.time_reader()
        self._clock = clock
        self._time_at = -1
        if self._clock is None:
            self._time_at = _index(recording.files[part], heading, recording.time_column)
        self._value_at = [
            _index(recording.files[part], heading, mapped.column) for mapped in recording.columns
        ]
        self._faults: list[RowFault] = []

    def read(self, lines: Sequence[str], line_done: int, previous_ns: int | None) -> Block:
        """Return the block of `lines`, the first of which is line ``line_done + 1``."""
        self._faults = []
        numbers: list[int] = []
        times_ns: list[int] = []
        rows: list[list[str]] = []
        for number, line in enumerate(lines, line_done + 1):
            try:
                cells = self._row(line)
                if cells is None:
                    continue
                if self._clock is not None:
                    row = number - self._recording.heading_lines
                    time_ns = self._clock.time_ns(row, None, previous_ns)
                else:
                    time_ns = self._times.read(cells[self._time_at], previous_ns)
            except InvalidInput as error:
                self._note(number, error.code, error.message, line.rstrip("\n"))
                continue
            previous_ns = time_ns
            numbers.append(number)
            times_ns.append(time_ns)
            rows.append(cells)
        values = np.empty((len(self._value_at), len(rows)))
        for index, at in enumerate(self._value_at):
            values[index] = self._column(index, [row[at] for row in rows], numbers)
        read = Rows(
            np.full(len(rows), self._part, np.int64),
            np.array(numbers, np.int64),
            np.array(times_ns, np.int64),
            values,
        )
        return Block(read, self._part, line_done + len(lines), tuple(self._faults))

    def _row(self, line: str) -> list[str] | None:
        """Return the cells of `line`, None for an empty one."""
        if not line.strip():
            return None
        if len(line) >= LINE_LENGTH_MAX:
            told = f"the row has {LINE_LENGTH_MAX} characters or more"
            raise InvalidInput("row.too_long", told, limit=LINE_LENGTH_MAX)
        cells = self._recording.cells(line)
        if len(cells) != self._width:
            told = f"the row has {len(cells)} cells, its heading {self._width}"
            raise InvalidInput("row.cell_count", told, value=len(cells), limit=self._width)
        return cells

    def _column(self, index: int, texts: list[str], numbers: list[int]) -> FloatArray:
        """Return the values of a column, NaN where a cell is not a finite number."""
        try:
            column = np.array(list(map(float, texts)))
        except ValueError:
            return self._column_by_cell(index, texts, numbers)
        # Python reads "1_000" as a number; whoever wrote the file did not mean one.
        if np.isfinite(column).all() and "_" not in "".join(texts):
            return column
        return self._column_by_cell(index, texts, numbers)

    def _column_by_cell(self, index: int, texts: list[str], numbers: list[int]) -> FloatArray:
        channel = self._recording.columns[index].channel
        column = np.empty(len(texts))
        for at, (text, number) in enumerate(zip(texts, numbers, strict=True)):
            column[at], code = _value(text)
            if code:
                self._note(number, code, f"{text!r:.80} gives no reading", text, channel)
        return column

    def _note(self, number: int, code: str, message: str, text: str, channel: str = "") -> None:
        self._faults.append(RowFault(self._part, number, code, message, text, channel))


def _only(archive: zipfile.ZipFile) -> str:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if len(names) != 1:
        told = f"{archive.filename} holds {len(names)} files, not one"
        raise InvalidInput("source.unreadable", told, value=len(names), limit=1)
    return names[0]


def _value(text: str) -> tuple[float, str]:
    """Return the number in `text`, or NaN and the reason why there is none."""
    if not text.strip():
        return math.nan, "cell.empty"
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan, "cell.not_numeric"
    if math.isfinite(value):
        return value, ""
    return math.nan, "cell.not_numeric" if "_" in text else "cell.not_finite"


def _index(file: str, heading: Sequence[str], column: str) -> int:
    if heading.count(column) != 1:
        raise InvalidInput(
            "mapping.unknown_column",
            f"{file} has {heading.count(column) or 'no'} columns {column!r}",
            hint=f"its columns: {', '.join(heading)}"[:500],
            value=column,
        )
    return heading.index(column)


def _line(lines: TextIO) -> str:
    """Return the next line, cut where it is longer than `LINE_LENGTH_MAX`; "" at the end."""
    return lines.readline(LINE_LENGTH_MAX)
