"""What the maintenance system knows, in SQLite: work orders, messages it has had, and its outbox.

A message and what it says are written together, so a message that comes again changes nothing. What
a planner or technician does is written to the outbox first and sent from there, under a key that
stays the same, so it reaches Heddle once, whatever breaks off in between.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BUSY_S: Final = 10.0

_SCHEMA: Final = """
    create table if not exists setting (name text primary key, value text not null);
    create table if not exists message (message_id text primary key);
    create table if not exists work_order (
        work_order_id text primary key,
        version integer not null,
        asset_id text not null,
        title text not null,
        priority text not null,
        state text not null,
        planned_start text,
        planned_end text,
        assignee text
    );
    create table if not exists outbox (
        entry_id integer primary key,
        idempotency_key text not null unique,
        work_order_id text not null,
        mutation text not null,
        input text not null,
        state text not null default 'WAITING',
        answer text
    );
    create index if not exists outbox_waiting on outbox (entry_id) where state = 'WAITING';
"""
_FIELDS: Final = (
    "work_order_id",
    "version",
    "asset_id",
    "title",
    "priority",
    "state",
    "planned_start",
    "planned_end",
    "assignee",
)
_NAMES: Final = {
    "work_order_id": "workOrderId",
    "asset_id": "assetId",
    "planned_start": "plannedStart",
    "planned_end": "plannedEnd",
}


@dataclass(frozen=True)
class Entry:
    """Something that somebody did here and Heddle is to be told: a mutation and its input."""

    entry_id: int
    idempotency_key: str
    work_order_id: str
    mutation: str
    input: dict[str, Any]


class Store:
    """The database in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as connection:
            connection.executescript(_SCHEMA)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute("begin immediate")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:
                    connection.rollback()
                raise
            if connection.in_transaction:
                connection.commit()
        finally:
            connection.close()

    # --- settings -------------------------------------------------------------------------

    def setting(self, name: str) -> str | None:
        """Return a setting; None where it was never made."""
        with self._transaction() as connection:
            row = connection.execute("select value from setting where name = ?", (name,)).fetchone()
        return None if row is None else str(row["value"])

    def keep_setting(self, name: str, value: str) -> None:
        """Make a setting."""
        with self._transaction() as connection:
            connection.execute(
                "insert into setting values (?, ?) on conflict (name) do update set value = ?",
                (name, value, value),
            )

    def installation(self) -> str:
        """Return the name of this installation, chosen when it is first asked for."""
        name = self.setting("installation")
        if name is None:
            name = uuid.uuid4().hex
            self.keep_setting("installation", name)
        return name

    # --- what Heddle says -----------------------------------------------------------------

    def take(self, message_id: str, orders: Sequence[Mapping[str, Any]]) -> bool:
        """Take in what a message says of work orders; False where it was taken before."""
        with self._transaction() as connection:
            known = connection.execute(
                "insert into message values (?) on conflict do nothing", (message_id,)
            )
            if known.rowcount == 0:
                return False
            for order in orders:
                values = [order[_NAMES.get(name, name)] for name in _FIELDS]
                connection.execute(
                    f"""
                    insert into work_order ({", ".join(_FIELDS)})
                    values ({", ".join("?" * len(_FIELDS))})
                    on conflict (work_order_id) do update set
                        {", ".join(f"{name} = excluded.{name}" for name in _FIELDS)}
                    where excluded.version >= work_order.version
                    """,
                    values,
                )
        return True

    def work_orders(self) -> list[dict[str, Any]]:
        """Return every work order, with what Heddle has not been told of it yet."""
        with self._transaction() as connection:
            rows = connection.execute("select * from work_order order by work_order_id").fetchall()
            waiting = connection.execute(
                "select work_order_id, mutation, state, answer from outbox "
                "where state <> 'DONE' order by entry_id"
            ).fetchall()
        orders = [dict(row) | {"outbox": []} for row in rows]
        by_id = {order["work_order_id"]: order for order in orders}
        for entry in waiting:
            if entry["work_order_id"] in by_id:
                by_id[entry["work_order_id"]]["outbox"].append(
                    {name: entry[name] for name in ("mutation", "state", "answer")}
                )
        return orders

    def messages(self) -> int:
        """Return how many messages were taken."""
        with self._transaction() as connection:
            (count,) = connection.execute("select count(*) from message").fetchone()
        return int(count)

    # --- what is done here ----------------------------------------------------------------

    def note(self, work_order_id: str, mutation: str, input: Mapping[str, Any]) -> None:
        """Write down something that was done here, for Heddle to be told."""
        with self._transaction() as connection:
            connection.execute(
                "insert into outbox (idempotency_key, work_order_id, mutation, input) "
                "values (?, ?, ?, ?)",
                (f"cmms-{uuid.uuid4()}", work_order_id, mutation, json.dumps(input)),
            )

    def next_entry(self) -> Entry | None:
        """Return what was done first of what Heddle has not been told; None: nothing."""
        with self._transaction() as connection:
            row = connection.execute(
                "select * from outbox where state = 'WAITING' order by entry_id limit 1"
            ).fetchone()
        if row is None:
            return None
        return Entry(
            row["entry_id"],
            row["idempotency_key"],
            row["work_order_id"],
            row["mutation"],
            json.loads(row["input"]),
        )

    def settle(self, entry: Entry, state: str, answer: str) -> None:
        """Write down what Heddle answered: ``DONE``, or ``REFUSED`` for a person to look at."""
        with self._transaction() as connection:
            connection.execute(
                "update outbox set state = ?, answer = ? where entry_id = ?",
                (state, answer, entry.entry_id),
            )
