"""The quarantine policy: what is judged CRITICAL is not used until a person releases it.

The rule: a CRITICAL verdict on a part or a lot quarantines it; one on a process run quarantines
every part and lot that came out of that run, made there or sent through it. Verdict and output
may become known in any order. What left before the verdict was known cannot be quarantined any
more, and what was made of it since is not touched: to find both is a forward trace. A verdict
that is corrected quarantines no more from then on, and releases nothing: that is for a person to
do, and what a person released knowing of the verdict stays released.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import asyncpg

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.identifiers import derived_uuid7
from domain.material.lot import LotCreated, LotReceived, LotReleased, QuarantineLot
from domain.material.part import PartCreated, PartReceived, PartReleased, QuarantinePart
from domain.quality.inspection import InspectionRecorded, Verdict, inspection_stream
from domain.records import CORRECTED, Entry, RecordCorrected, effective_entries
from domain.thread import Link, LinkKind, NodeKind, Threaded, node_kind
from eventlog.commands import DECISIONS_MAX, handle
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import PayloadOf, read_whole_stream

logger = logging.getLogger("heddle.projections")

ACTOR: Final = "policy:quarantine"
NODES_AT_ONCE: Final = 4
"""Parts and lots that are commanded at once: each may hold a connection meanwhile."""
NODES_FETCHED_MAX: Final = 500
"""Parts and lots in memory at a time, however many a run put out."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)

_TO_QUARANTINE: Final = """
    select v.position, v.event_id, v.known_position, v.inspection_id, v.subject, t.node, t.known
    from (
        select v.position, o.node, greatest(v.known_position, n.known) as known
        from quarantine_verdict v
        join quarantine_output o on o.ledger_id = v.ledger_id and o.run = v.subject
        left join unnest($3::bigint[], $4::bigint[]) n(position, known) on n.position = o.position
        where v.ledger_id = $1 and (v.position = any($2) or o.position = any($3))
        union
        select position, subject, known_position from quarantine_verdict
        where ledger_id = $1 and position = any($2)
        union
        select * from unnest($5::bigint[], $6::text[], $7::bigint[])
    ) t join quarantine_verdict v on v.ledger_id = $1 and v.position = t.position
    order by t.node, v.position
"""
"""Verdicts and outputs that are new, by position, and where those outputs became known; then what
waited and has become known: the verdict, the node, and where."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A CRITICAL verdict: the inspection's event, and its subject, a stream."""

    event_id: uuid.UUID
    subject: str
    inspection_id: str


@dataclass(frozen=True, slots=True)
class _Output:
    """A part or lot, `node`, and the run that it came out of, both streams."""

    run: str
    node: str


class _Batch:
    """What a batch of events says; by the position of the event that counts.

    `known` has where each of these was told: the event itself, or its correction. `nodes` are the
    parts and lots that somebody told of, and where.
    """

    def __init__(self) -> None:
        self.verdicts: dict[int, _Verdict] = {}
        self.outputs: dict[int, _Output] = {}
        self.nodes: dict[str, int] = {}
        self.known: dict[int, int] = {}
        self.corrected: set[int] = set()
        self.causes: dict[int, RecordedEvent] = {}

    def add(self, event: RecordedEvent) -> None:
        """Note what `event` says."""
        fact, position, event_id = event.fact, event.position, event.event_id
        if isinstance(fact, RecordCorrected):
            position, event_id = fact.corrected_position, fact.corrected_event_id
            self.corrected.add(position)
            self.verdicts.pop(position, None)
            self.outputs.pop(position, None)
            fact = fact.fact()
        self.causes[event.position] = event
        self.known[position] = event.position
        if isinstance(fact, InspectionRecorded):
            if fact.verdict is Verdict.CRITICAL:
                self.verdicts[position] = _Verdict(event_id, fact.subject, fact.inspection_id)
            return
        if isinstance(fact, (PartCreated, PartReceived, LotCreated, LotReceived)):
            self.nodes[event.stream] = event.position
        output = _output(fact)
        if output is not None:
            self.outputs[position] = output


def _output(fact: Any) -> _Output | None:
    """Return the run that a part or lot came out of, if `fact` tells of one."""
    for item in fact.thread() if isinstance(fact, Threaded) else ():
        match item:
            case Link(kind=LinkKind.PRODUCED, cause=run, effect=node):
                return _Output(run, node)
            case Link(kind=LinkKind.PROCESSED_BY, cause=node, effect=run):
                return _Output(run, node)
    return None


class QuarantinePolicy:
    """Quarantines what a CRITICAL verdict concerns, once for each verdict."""

    name: ClassVar[str] = "quarantine-policy"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        "inspection.recorded",
        "lot.created",
        "lot.received",
        "part.created",
        "part.processed",
        "part.received",
        "part.reworked",
        CORRECTED,
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = (
        "quarantine_output",
        "quarantine_verdict",
        "quarantine_waiting",
    )
    commands_as: ClassVar[str] = ACTOR

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Remember what `events` say, and quarantine what follows from them."""
        batch = _Batch()
        for event in events:
            batch.add(event)
        woken = await _remember(connection, ledger.ledger_id, batch)
        refused: list[asyncpg.Record] = []
        rows: list[asyncpg.Record] = []
        async for row in connection.cursor(
            _TO_QUARANTINE,
            ledger.ledger_id,
            list(batch.verdicts),
            list(batch.outputs),
            [batch.known[position] for position in batch.outputs],
            [row["position"] for row in woken],
            [row["node"] for row in woken],
            [batch.nodes[row["node"]] for row in woken],
            prefetch=NODES_FETCHED_MAX,
        ):
            # The verdicts on one node stay together: they are sorted by it.
            if len(rows) >= NODES_FETCHED_MAX and row["node"] != rows[-1]["node"]:
                refused += await _quarantine_all(ledger, rows, batch)
                rows = []
            rows.append(row)
        refused += await _quarantine_all(ledger, rows, batch)
        await _wait(connection, ledger.ledger_id, refused)


async def _remember(connection: Connection, ledger_id: int, batch: _Batch) -> list[asyncpg.Record]:
    """Store what `batch` says; return what waited for one of its nodes: (position, node)."""
    if batch.corrected:
        for table in QuarantinePolicy.tables:
            await connection.execute(
                f"delete from {table} where ledger_id = $1 and position = any($2)",
                ledger_id,
                list(batch.corrected),
            )
    if batch.verdicts:
        verdicts = batch.verdicts.values()
        await connection.execute(
            """
            insert into quarantine_verdict
                (ledger_id, position, known_position, event_id, subject, inspection_id)
            select $1, * from unnest($2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::text[])
            """,
            ledger_id,
            list(batch.verdicts),
            [batch.known[position] for position in batch.verdicts],
            [verdict.event_id for verdict in verdicts],
            [verdict.subject for verdict in verdicts],
            [verdict.inspection_id for verdict in verdicts],
        )
    if batch.outputs:
        outputs = batch.outputs.values()
        await connection.execute(
            """
            insert into quarantine_output (ledger_id, position, run, node)
            select $1, * from unnest($2::bigint[], $3::text[], $4::text[])
            """,
            ledger_id,
            list(batch.outputs),
            [output.run for output in outputs],
            [output.node for output in outputs],
        )
    if not batch.nodes:
        return []
    return await connection.fetch(
        "delete from quarantine_waiting where ledger_id = $1 and node = any($2) "
        "returning position, node",
        ledger_id,
        list(batch.nodes),
    )


async def _wait(connection: Connection, ledger_id: int, rows: Sequence[asyncpg.Record]) -> None:
    """Keep what nobody has told of yet until somebody does."""
    if rows:
        await connection.execute(
            "insert into quarantine_waiting (ledger_id, position, node) "
            "select $1, * from unnest($2::bigint[], $3::text[]) on conflict do nothing",
            ledger_id,
            [row["position"] for row in rows],
            [row["node"] for row in rows],
        )


# --- commands -----------------------------------------------------------------------------


async def _quarantine_all(
    ledger: Ledger, rows: Sequence[asyncpg.Record], batch: _Batch
) -> list[asyncpg.Record]:
    """Quarantine the nodes of `rows`; return those whose node nobody has told of yet.

    Several at once, of one node verdict after verdict.
    """
    by_node: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        by_node.setdefault(row["node"], []).append(row)
    places = asyncio.Semaphore(NODES_AT_ONCE)

    async def unknown_of(some: list[asyncpg.Record]) -> list[asyncpg.Record]:
        async with places:
            return [
                row
                for row in some
                if not await _quarantine(ledger, row, batch.causes[row["known"]])
            ]

    unknown: list[asyncpg.Record] = []
    outcomes = await asyncio.gather(
        *(unknown_of(some) for some in by_node.values()), return_exceptions=True
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        unknown += outcome
    return unknown


async def _quarantine(ledger: Ledger, row: asyncpg.Record, cause: RecordedEvent) -> bool:
    """Quarantine the node of `row`, told by `cause`, unless somebody has released it since.

    False where nobody has told of the node yet.
    """
    node: str = row["node"]
    command = _command(node, row["subject"], row["inspection_id"])
    if command is None:
        return True
    key = f"{ACTOR}:{row['event_id'].hex}:{cause.event_id.hex}:{node}"
    time_ms = int(cause.recorded_at.timestamp() * 1000)
    for remaining in reversed(range(DECISIONS_MAX)):
        released, latest = await _since(ledger, node, row["known_position"])
        if released:
            return True
        try:
            await handle(
                ledger,
                command,
                actor=ACTOR,
                # Not the verdict's time: until now it was used as if nothing were wrong.
                occurred_at=max(cause.recorded_at, latest),
                event_id=lambda n: derived_uuid7(time_ms, ledger.name, key, str(n)),
                idempotency=IdempotencyKey.of(key, repr(command).encode()),
                causation_id=cause.event_id,
                traceparent=cause.traceparent,
            )
            return True
        except NotFound as unknown:
            logger.info("quarantine policy: %s waits: %s", node, unknown)
            return False
        except (CommandRejected, InvalidInput) as refused:
            if refused.code == "command.out_of_order" and remaining:
                continue  # something became known meanwhile
            # It has left, or is gone.
            logger.warning("quarantine policy: %s is not quarantined: %s", node, refused)
            return True
    raise AssertionError("the loop returns")


def _command(node: str, subject: str, inspection_id: str) -> QuarantinePart | QuarantineLot | None:
    reason = f"inspection {inspection_id} of {subject} came to the verdict CRITICAL"
    name = node.partition(":")[2]
    match node_kind(node):
        case NodeKind.PART:
            return QuarantinePart(name, reason, inspection_stream(inspection_id))
        case NodeKind.LOT:
            return QuarantineLot(name, reason, inspection_stream(inspection_id))
        case _:
            return None  # a run itself is not quarantined


async def _since(ledger: Ledger, node: str, position: int) -> tuple[bool, datetime]:
    """Return whether `node` was released beyond `position`, and the latest time known of it."""
    history = [
        Entry(event.event_id, event.position, event.occurred_at, event.fact)
        async for event in read_whole_stream(ledger, node)
    ]
    entries = effective_entries(history)
    released = any(
        isinstance(entry.fact, (PartReleased, LotReleased)) and entry.position > position
        for entry in entries
    )
    return released, max((entry.occurred_at for entry in entries), default=_LONG_AGO)
