"""Parquet files as parts of a table, read a row group's pieces at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from domain.errors import InvalidInput, Unavailable

ROWS_AT_ONCE: Final = 10_000


@dataclass(frozen=True)
class ParquetPart:
    """A Parquet file, or those of its rows in which columns have declared values.

    Parameters
    ----------
    where : the text of each column's value
    """

    path: Path
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name, with what was chosen of it."""
        chosen = ", ".join(f"{column}={value}" for column, value in sorted(self.where.items()))
        return f"{self.path.name} ({chosen})" if chosen else self.path.name

    def column_names(self) -> Sequence[str]:
        """Return its columns.

        Raises
        ------
        InvalidInput
            ``source.unreadable``, ``mapping.unknown_column``
        Unavailable
            ``source.no_library``
        """
        parquet = _library()
        try:
            with parquet.ParquetFile(self.path) as opened:
                names: list[str] = list(opened.schema_arrow.names)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise InvalidInput("source.unreadable", f"{self.path.name}: {error}"[:300]) from error
        missing = sorted(self.where.keys() - set(names))
        if missing:
            told = f"{self.path.name} has no column {missing[0]!r}"
            raise InvalidInput("mapping.unknown_column", told)
        return names

    def chunks(self, columns: Sequence[str]) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield its rows."""
        wanted = list(dict.fromkeys([*columns, *self.where]))
        try:
            with _library().ParquetFile(self.path) as opened:
                for batch in opened.iter_batches(ROWS_AT_ONCE, columns=wanted):
                    found = {name: _values(batch.column(name)) for name in wanted}
                    yield self._chosen(found, columns, batch.num_rows)
        except ValueError as error:  # pyarrow's own errors
            raise InvalidInput("source.unreadable", f"{self.path.name}: {error}"[:300]) from error

    def _chosen(
        self, found: dict[str, Sequence[Any]], columns: Sequence[str], count: int
    ) -> Sequence[Sequence[Any]]:
        if not self.where:
            return [found[name] for name in columns]
        chosen = [
            index
            for index in range(count)
            if all(str(found[name][index]) == value for name, value in self.where.items())
        ]
        return [[found[name][index] for index in chosen] for name in columns]


def _values(column: Any) -> Sequence[Any]:
    """Return a column's values; a timestamp of nanoseconds as NumPy's, which lose none."""
    import pyarrow

    if not pyarrow.types.is_timestamp(column.type):
        found: list[Any] = column.to_pylist()
        return found
    zone = column.type.tz
    whole = column.cast(pyarrow.timestamp("ns", zone)).cast(pyarrow.int64()).to_pylist()
    # What carries a zone is UTC underneath.
    suffix = "Z" if zone else ""
    return [None if one is None else f"{_datetime64(one)}{suffix}" for one in whole]


def _datetime64(time_ns: int) -> str:
    import numpy as np

    return str(np.datetime64(time_ns, "ns"))


def _library() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise Unavailable(
            "source.no_library",
            "Parquet files are read by pyarrow, which is not installed",
            hint="pip install 'heddle[history]'",
        ) from error
    return parquet
