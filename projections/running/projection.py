"""What a projection is: its name, its tables, and how a batch of events changes their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf


class Projection(Protocol):
    """A read model: how a batch of events changes its rows.

    What it remembers between folds lives in its instance alone, made without arguments: after a
    fold that failed, and after its tables were exchanged for rebuilt ones, a new one goes on.

    Attributes
    ----------
    name, version : identify the rows; a fold that would give other rows needs a new version
    types : stored types it folds; None for all
    payloads : of which events it needs the payload
    tables : every table its fold writes; each has a column ``ledger_id``, or is in `contents`
    """

    name: ClassVar[str]
    version: ClassVar[int]
    types: ClassVar[tuple[str, ...] | None]
    payloads: ClassVar[PayloadOf]
    tables: ClassVar[tuple[str, ...]]

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`, in order, inside the caller's transaction.

        Reads and writes `tables` by their bare names, and nothing else but the log.
        """


@runtime_checkable
class Policy(Protocol):
    """A projection that answers events with commands, given in the name of `commands_as`.

    Its tables are its memory. They are never folded anew from the beginning, for that would
    command anew; a new version goes on with them from where the last one stood.
    """

    commands_as: ClassVar[str]


@runtime_checkable
class OfEnvelopes(Projection, Protocol):
    """A projection of what stands in every event's envelope, whatever the event says.

    It is told positions, and has PostgreSQL make its rows of the log's: no event passes through
    this process. Nothing is decoded, so none can stop it: those of unknown types reach it, and
    those whose payload was erased.
    """

    async def fold_positions(
        self, connection: Connection, ledger: Ledger, after: int, up_to: int
    ) -> None:
        """Change the rows by the events beyond `after` up to `up_to`, which the log holds all.

        What `fold` does with a page of the log that lacks none.
        """


@runtime_checkable
class IndexedForQueries(Protocol):
    """A projection with indexes that only queries use, and its fold never.

    While tables are folded anew nobody asks them; `query_indexes` are made when they are full.
    """

    query_indexes: ClassVar[tuple[str, ...]]


@runtime_checkable
class ComparedByContents(Protocol):
    """A projection with tables whose columns do not all follow from the log, such as sequences.

    `contents` has for each of those tables the query, with the ledger's number as ``$1``, whose
    rows are compared in their place.
    """

    contents: ClassVar[Mapping[str, str]]


def wanted(projection: Projection, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
    """Return those of `events` that `projection` folds: of its types, and not erased."""
    if isinstance(projection, OfEnvelopes):
        return list(events)
    if projection.types is None:
        return [event for event in events if not event.erased]
    types = frozenset(projection.types)
    return [event for event in events if event.type in types and not event.erased]


def anew(projection: Projection) -> Projection:
    """Return a projection of the same kind that remembers nothing."""
    return type(projection)()
