"""The answer to a query as a part of a table: SQLite, or any database with a DB-API driver."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from domain.errors import InvalidInput, Unavailable

ROWS_AT_ONCE: Final = 10_000
SQLITE: Final = "sqlite3"


@dataclass(frozen=True)
class QueryPart:
    """A query and where it is asked.

    Parameters
    ----------
    driver : module of a DB-API 2.0 driver
    address : what its ``connect`` takes; for SQLite the path of a file
    """

    driver: str
    address: str = field(repr=False)
    query: str

    @property
    def name(self) -> str:
        """The query itself, under which a position is kept."""
        return " ".join(self.query.split())[:500]

    def column_names(self) -> Sequence[str]:
        """Return the columns of the answer.

        Raises
        ------
        InvalidInput
            ``source.unreadable``
        Unavailable
            ``source.no_library``
        """
        with closing(self._connected()) as connection, closing(connection.cursor()) as cursor:
            self._ask(cursor)
            return [str(column[0]) for column in cursor.description]

    def chunks(self, columns: Sequence[str]) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the rows of the answer."""
        with closing(self._connected()) as connection, closing(connection.cursor()) as cursor:
            self._ask(cursor)
            names = [str(column[0]) for column in cursor.description]
            places = [names.index(column) for column in columns]
            while rows := self._next(cursor):
                yield [[_plain(row[place]) for row in rows] for place in places]

    def _connected(self) -> Any:
        if self.driver == SQLITE:
            try:
                uri = f"{Path(self.address).resolve().as_uri()}?mode=ro"
                return sqlite3.connect(uri, uri=True)
            except sqlite3.Error as error:
                raise InvalidInput("source.unreadable", f"the database: {error}") from error
        try:
            module = importlib.import_module(self.driver)
        except ImportError as error:
            told = f"there is no driver {self.driver!r}"
            raise Unavailable("source.no_library", told, hint="pip install it") from error
        try:
            return module.connect(self.address)
        except Exception as error:  # every driver has errors of its own
            # Its text may repeat the address, and with it a password.
            told = f"{self.driver} cannot connect: {type(error).__name__}"
            raise InvalidInput("source.unreadable", told) from error

    def _next(self, cursor: Any) -> Sequence[Sequence[Any]]:
        try:
            found: Sequence[Sequence[Any]] = cursor.fetchmany(ROWS_AT_ONCE)
        except Exception as error:  # every driver has errors of its own
            raise InvalidInput("source.unreadable", f"the answer: {error}"[:300]) from error
        return found

    def _ask(self, cursor: Any) -> None:
        try:
            cursor.execute(self.query)
        except Exception as error:  # every driver has errors of its own
            raise InvalidInput("source.unreadable", f"the query: {error}"[:300]) from error
        if cursor.description is None:
            raise InvalidInput("source.unreadable", "the query answers with no rows")


def _plain(value: Any) -> Any:
    """Return `value` as a number where the driver has a class of its own for exact ones."""
    from decimal import Decimal

    return float(value) if isinstance(value, Decimal) else value
