"""Rows of a table as a finite source: times and numbers taken from named columns.

What a row gets wrong is told with its number, as of a CSV recording (`edge_agent.sources`), and
harms no neighbour. Rows are numbered from 1 in the order in which their part delivers them, which
has to be the same every time: a restarted agent skips those it has read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from domain.errors import HeddleError, InvalidInput
from domain.units import unit
from edge_agent.delivered_numbers import number_of
from edge_agent.readings import Block, Position, RowFault, Rows, parts_in_turn
from edge_agent.sources import SourceContext
from edge_agent.time_declaration import declared_times
from edge_agent.timestamps import ISO8601, TIME_NS_MAX, TIME_NS_MIN, TimeReader
from edge_agent.yaml_section import Section

ROWS_PER_BLOCK: Final = 1_000
PERIOD_S_MAX: Final = 1e7
TEXT_SHOWN_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class RowClock:
    """Which time a row has: that of a column, or one that follows from its number.

    Parameters
    ----------
    column : None where rows follow each other by `period_ns` from `start_ns` on
    """

    column: str | None
    times: TimeReader | None = None
    start_ns: int = 0
    period_ns: int = 0

    def time_ns(self, row: int, told: Any, previous_ns: int | None) -> int:
        """Return the time of row number `row`, counted from 1.

        Raises
        ------
        InvalidInput
            ``row.time_*``, ``row.zone_missing``
        """
        if self.column is None or self.times is None:
            return self.start_ns + (row - 1) * self.period_ns
        if isinstance(told, datetime):
            told = told.isoformat(" ")
        if isinstance(told, np.datetime64):
            told = str(told)
        if isinstance(told, bool) or not isinstance(told, (str, int, float)):
            raise InvalidInput("row.time_unreadable", f"{told!r:.80} is no time")
        text = told if isinstance(told, str) else repr(told)
        found = self.times.read(text, previous_ns)
        if not TIME_NS_MIN <= found <= TIME_NS_MAX:
            raise InvalidInput("row.time_out_of_range", f"{text!r:.80} is out of range")
        return found


class TablePart(Protocol):
    """A file, or the answer to a query."""

    @property
    def name(self) -> str:
        """What it is called; a position is kept under it."""

    def column_names(self) -> Sequence[str]:
        """Return its columns, or raise OSError or `InvalidInput`."""

    def chunks(self, columns: Sequence[str]) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield its rows, some at a time, each chunk as one sequence of values per column."""


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """Parts read one after the other.

    Parameters
    ----------
    mapped : (channel, unit, column)
    """

    table_parts: tuple[TablePart, ...]
    clock: RowClock
    mapped: tuple[tuple[str, str, str], ...]

    @property
    def channels(self) -> tuple[tuple[str, str], ...]:
        """The mapped channels, each as (channel name, unit symbol)."""
        return tuple((channel, symbol) for channel, symbol, _ in self.mapped)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(part.name for part in self.table_parts)

    @property
    def endless(self) -> bool:
        """Never: history ends."""
        return False

    def read(self, after: Position | None) -> Iterator[Block]:
        """Yield the rows that follow `after`.

        Raises
        ------
        InvalidInput
            ``source.file_shorter`` when a part ends before the row that reading has come to
        """
        return parts_in_turn(len(self.table_parts), after, self._read_part)

    def _read_part(self, number: int, done: int, previous_ns: int | None) -> Iterator[Block]:
        part = self.table_parts[number]
        columns = [column for _, _, column in self.mapped]
        if self.clock.column is not None:
            columns.append(self.clock.column)
        row = 0
        for chunk in part.chunks(list(dict.fromkeys(columns))):
            count = len(chunk[0])
            skipped = min(count, max(0, done - row))
            for start in range(skipped, count, ROWS_PER_BLOCK):
                some = [column[start : start + ROWS_PER_BLOCK] for column in chunk]
                named = dict(zip(dict.fromkeys(columns), some, strict=True))
                block = self._block(number, row + start, named, previous_ns)
                if len(block.rows):
                    previous_ns = int(block.rows.times_ns[-1])
                yield block
            row += count
        if row < done:
            told = f"{part.name} ends before row {done}, up to which it has been read"
            raise InvalidInput("source.file_shorter", told, value=part.name, limit=done)

    def _block(
        self, part: int, done: int, chunk: dict[str, Sequence[Any]], previous_ns: int | None
    ) -> Block:
        """Return the block of rows of which the first is number ``done + 1``."""
        faults: list[RowFault] = []
        count = len(next(iter(chunk.values())))
        told_times = chunk[self.clock.column] if self.clock.column else [None] * count
        kept: list[int] = []
        times_ns: list[int] = []
        for index, told in enumerate(told_times):
            number = done + index + 1
            try:
                previous_ns = self.clock.time_ns(number, told, previous_ns)
            except HeddleError as error:
                faults.append(RowFault(part, number, error.code, error.message, _shown(told)))
                continue
            kept.append(index)
            times_ns.append(previous_ns)
        values = np.empty((len(self.mapped), len(kept)))
        for at, (channel, _, column) in enumerate(self.mapped):
            cells = chunk[column]
            for place, index in enumerate(kept):
                cell = cells[index]
                value, _, code = number_of(cell, of_unity=True)
                values[at, place] = value
                if code or cell is None:
                    found = code.replace("value.", "cell.") or "cell.empty"
                    told_cell = f"{cell!r:.80} gives no reading"
                    number = done + index + 1
                    faults.append(RowFault(part, number, found, told_cell, _shown(cell), channel))
        rows = Rows(
            np.full(len(kept), part, np.int64),
            np.array([done + index + 1 for index in kept], np.int64),
            np.array(times_ns, np.int64),
            values,
        )
        return Block(rows, part, done + count, tuple(faults))


def _shown(value: Any) -> str:
    return str(value)[:TEXT_SHOWN_MAX]


# --- declarations -------------------------------------------------------------------------


def read_clock(section: Section, part_count: int) -> RowClock | None:
    """Return the clock that ``time`` declares, or None after noting what is wrong."""
    time = section.section("time")
    if time is None:
        return None
    if time.has("column"):
        column, times = time.text("column"), declared_times(time)
        time.finish()
        return None if column is None or times is None else RowClock(column, times)
    start, period_s = time.text("start"), time.number("period_s", 1e-6, PERIOD_S_MAX)
    reader = TimeReader(ISO8601, None)
    start_ns = None if start is None else time.attempt("start", lambda: reader.read(start, None))
    if part_count > 1:
        told = "the rows of several files cannot be counted from one start"
        time.fault("start", "mapping.several_files", told, "give each file a source of its own")
    time.finish()
    if start_ns is None or period_s is None:
        return None
    return RowClock(None, None, start_ns, round(period_s * 1e9))


def read_columns(section: Section, context: SourceContext) -> list[tuple[str, str, str]]:
    """Return ``channels`` as (channel, unit, column), after noting what is wrong with them."""
    channels = section.section("channels")
    if channels is None:
        return []
    if not channels.present():
        section.fault("channels", "configuration.empty", "'channels' maps nothing")
    found: list[tuple[str, str, str]] = []
    for name in channels.present():
        mapping = channels.section(name)
        known = channels.attempt(name, partial(context.asset_type.channel, name))
        if mapping is None:
            continue
        column, symbol = mapping.text("column"), mapping.text("unit")
        mapping.finish()
        if column is None or symbol is None or known is None:
            continue
        if mapping.attempt("unit", partial(unit, symbol, quantity=known.quantity)):
            found.append((name, symbol, column))
    return found


def checked(source: TableSource, section: Section, key: str) -> TableSource | None:
    """Return `source` once every part has every column, or None after noting which has not."""
    wanted = {column for _, _, column in source.mapped}
    if source.clock.column is not None:
        wanted.add(source.clock.column)
    sound = True
    for part in source.table_parts:
        try:
            names = part.column_names()
        except (OSError, HeddleError) as error:
            section.fault(key, "source.unreadable", f"{part.name}: {error}"[:500])
            sound = False
            continue
        for missing in sorted(wanted - set(names)):
            told = f"{part.name} has no column {missing!r}"
            section.fault(
                key, "mapping.unknown_column", told, f"its columns: {', '.join(names)}"[:500]
            )
            sound = False
    return source if sound else None


def files_at(section: Section, context: SourceContext) -> list[Path]:
    """Return the files of ``path``, relative to the folder of recordings."""
    found: list[Path] = []
    for text in section.texts("path") or ():
        path = context.data_dir / text
        if path.is_file():
            found.append(path)
        else:
            told = f"there is no file {str(path)!r}"
            section.fault("path", "source.file_missing", told, "paths are relative to HEDDLE_DATA")
    return found
