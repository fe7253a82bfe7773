"""The SQLite file below the outbox: transactions that nest, and faults told in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from domain.errors import InvalidInput, Unavailable

_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Store:
    """One connection to the outbox's file.

    Parameters
    ----------
    damaged : called once the file turns out to be damaged, before that is told
    """

    def __init__(
        self, connection: sqlite3.Connection, damaged: Callable[[], None] = lambda: None
    ) -> None:
        self.connection = connection
        self._damaged = damaged

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside together; inside another one it is part of that.

        Raises
        ------
        Unavailable
            ``outbox.disk_full``; nothing has changed then
        InvalidInput
            ``outbox.damaged``
        """
        if self.connection.in_transaction:
            yield
            return
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if _is(error, (sqlite3.SQLITE_FULL,)) or _cannot_grow(error):
                self._reuse_journal()
                raise Unavailable(
                    "outbox.disk_full", "the disk of the state folder is full"
                ) from error
            raise

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _reuse_journal(self) -> None:
        """Move the journal's pages into the file, so that the next commit writes over them.

        SQLite does so once the journal has a thousand pages; on a small disk it fills it before,
        and no commit would ever come that makes room.
        """
        with suppress(sqlite3.Error):
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def execute(self, statement: str, *arguments: object) -> int:
        """Run `statement` and return how many rows it changed."""
        with self._damage_told():
            return self.connection.execute(statement, arguments).rowcount

    def execute_many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Run `statement` for each of `rows`."""
        with self._damage_told():
            self.connection.executemany(statement, rows)

    def rows(self, statement: str, *arguments: object) -> list[Any]:
        """Return all rows of `statement`."""
        with self._damage_told():
            return self.connection.execute(statement, arguments).fetchall()

    def each(self, statement: str, *arguments: object) -> Iterator[Any]:
        """Yield the rows of `statement` as they are found; close it before changing anything."""
        with self._damage_told():
            cursor = self.connection.execute(statement, arguments)
            try:
                yield from cursor
            finally:
                cursor.close()

    def value(self, statement: str, *arguments: object) -> Any:
        """Return the first column of the first row, None without one."""
        found = self.rows(statement, *arguments)
        return found[0][0] if found else None

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is(error, _DAMAGE):
                raise
            self._damaged()
            raise InvalidInput(
                "outbox.damaged",
                f"the outbox cannot be read any more: {error}",
                hint="start the agent again: it puts the file aside and saves what it can",
            ) from error


def _is(error: BaseException, codes: tuple[int, ...]) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF in codes


def _cannot_grow(error: BaseException) -> bool:
    """Whether the disk refused to take more: SQLite tells a full WAL's file as that too."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
