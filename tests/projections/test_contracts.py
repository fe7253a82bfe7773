"""What every event type and every projection promises, whoever wrote it.

A new event type or projection is under these contracts as soon as it is in the catalogue or in
`api.app.projections`; nothing has to be added here.
"""

from __future__ import annotations

import collections
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from api.app import projections
from api.history_recording import record_history
from api.plant_history import HistoryName, plant_history
from domain.catalogue import DECIDERS, EVENT_MODULES
from domain.errors import InvalidInput
from domain.events import FRAME_RECORDED, decode_fact, encode_fact, event_types, type_of
from domain.frames import Frame
from domain.records import CORRECTED, SIGNED, RecordCorrected, RecordSigned
from domain.thread import (
    NODE_KIND_OF_CATEGORY,
    Link,
    LinkEnd,
    LinkKind,
    NodeKind,
    NodeState,
    Standing,
    Threaded,
    ThreadItem,
    node_kind,
)
from domain.units import unit
from eventlog.database import Connection, Pool
from eventlog.envelope import RecordedEvent, new_fact
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from projections.alerts.projection import AlertProjection
from projections.running.content import ProjectionCheck, check
from projections.running.projection import (
    ComparedByContents,
    IndexedForQueries,
    Policy,
    Projection,
    anew,
    wanted,
)
from projections.running.rebuild import rebuild
from projections.twins.history import ROW_FRAMES, TwinHistoryProjection
from tests.projections.all_projections import running_all, settled
from tests.projections.loop_frames import record
from tests.projections.machine_frames import DELIVERED, machine_frame

SAMPLES: Final = Path(__file__).parents[1] / "domain" / "samples"
BEGINNING: Final = datetime(2026, 1, 5, 6, tzinfo=UTC)
_NAMESPACE: Final = uuid.UUID("0193b3c2-77d1-7c7e-8a55-6f1d2c3b4a59")

_DECLARED_IN: Final = {module.__name__ for module in EVENT_MODULES}
EVENT_TYPES: Final = {
    name: known
    for name, known in event_types().items()
    if known.event_class.__module__ in _DECLARED_IN
}
PROJECTIONS: Final = projections()
FOLDED_ANEW: Final = [p for p in PROJECTIONS if not isinstance(p, Policy)]
POLICIES: Final = [p for p in PROJECTIONS if isinstance(p, Policy)]


def named(projection: Projection) -> str:
    return projection.name


def samples() -> list[tuple[str, Any]]:
    """Return every stored type's name with a realistic event of it, as they follow in a life."""
    newest = [(name, known.schema_version) for name, known in EVENT_TYPES.items()]
    return [
        (name, decode_fact(name, version, (SAMPLES / f"{name}.v{version}.json").read_bytes()))
        for name, version in newest
    ]


# --- event types: what they say of the thread -----------------------------------------------

K = NodeKind
MADE: Final = {K.PART, K.LOT, K.PROCESS_RUN}
OPINIONS: Final = {K.PREDICTION, K.SCENARIO, K.SETPOINT_PROPOSAL}
ENDS: Final[Mapping[LinkKind, tuple[set[NodeKind], set[NodeKind]]]] = {
    LinkKind.SPECIFIED: ({K.DOCUMENT}, MADE | {K.INSPECTION}),
    LinkKind.CERTIFIED: ({K.DOCUMENT}, {K.LOT, K.PART, K.INSTRUMENT}),
    LinkKind.CONSUMED_BY: ({K.LOT}, {K.PROCESS_RUN}),
    LinkKind.PROCESSED_BY: ({K.PART}, {K.PROCESS_RUN}),
    LinkKind.PRODUCED: ({K.PROCESS_RUN}, {K.PART, K.LOT}),
    LinkKind.PERFORMED: ({K.ASSET}, {K.PROCESS_RUN}),
    LinkKind.SPLIT_INTO: ({K.LOT}, {K.LOT}),
    LinkKind.MERGED_INTO: ({K.LOT}, {K.LOT}),
    LinkKind.ASSEMBLED_INTO: ({K.PART}, {K.PART}),
    LinkKind.INSPECTED_BY: (MADE, {K.INSPECTION}),
    LinkKind.MEASURED_WITH: ({K.INSTRUMENT}, {K.INSPECTION}),
    LinkKind.FOUND: ({K.INSPECTION}, {K.NONCONFORMANCE}),
    LinkKind.CONCERNS: ({K.NONCONFORMANCE}, MADE),
    LinkKind.SHIPPED_IN: ({K.PART, K.LOT}, {K.SHIPMENT}),
    LinkKind.FAILED_AS: ({K.PART}, {K.FAILURE}),
    LinkKind.INSTALLED_IN: ({K.COMPONENT}, {K.ASSET}),
    LinkKind.EMBODIED_BY: ({K.PART}, {K.COMPONENT}),
    LinkKind.RAISED: ({K.ASSET}, {K.ALERT}),
    LinkKind.LED_TO: (
        {K.ALERT, K.PREDICTION, K.FAILURE, K.SCENARIO},
        {K.WORK_ORDER, K.SETPOINT_PROPOSAL},
    ),
    LinkKind.SERVICED: ({K.WORK_ORDER}, {K.ASSET, K.COMPONENT}),
    LinkKind.PREDICTED: ({K.MODEL}, {K.PREDICTION, K.INSPECTION}),
    LinkKind.ABOUT: ({K.ASSET, K.COMPONENT}, OPINIONS),
    LinkKind.CONFIRMED_BY: ({K.WORK_ORDER}, {K.PREDICTION}),
    LinkKind.USED_IN: ({K.SPARE_PART}, {K.WORK_ORDER}),
    LinkKind.REWORKED_FOR: ({K.NONCONFORMANCE}, {K.PROCESS_RUN}),
    LinkKind.SUPERSEDED_BY: ({K.DOCUMENT}, {K.DOCUMENT}),
    LinkKind.LOCATED_IN: ({K.ASSET}, {K.LOCATION}),
    LinkKind.MADE_FROM: ({K.LOT}, {K.PART}),
}
"""What each kind of link may run from and to."""

KEY: Final = re.compile(r"([a-z][a-z0-9-]*):[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?")
REVISED: Final = {NodeKind.DOCUMENT, NodeKind.MODEL}
"""Things that are a node for each of their revisions."""

QUANTIFIED: Final = {
    LinkKind.CONSUMED_BY,
    LinkKind.SPLIT_INTO,
    LinkKind.MERGED_INTO,
    LinkKind.USED_IN,
}
"""Links that say how much, always."""


def check_item(item: ThreadItem) -> None:
    """Fail unless `item` is one that the thread can hold and a reader can understand."""
    match item:
        case Standing(node=node, state=state):
            check_key(node)
            assert state is not NodeState.MENTIONED, "what is described is more than mentioned"
        case Link() | LinkEnd():
            check_key(item.cause)
            check_key(item.effect)
            assert item.cause != item.effect
            causes, effects = ENDS[item.kind]
            assert node_kind(item.cause) in causes, item
            assert node_kind(item.effect) in effects, item
    if isinstance(item, Link):
        check_quantity(item)


def check_key(key: str) -> None:
    found = KEY.fullmatch(key)
    assert found is not None, key
    assert found[1] in NODE_KIND_OF_CATEGORY, key
    assert (found[2] is not None) == (node_kind(key) in REVISED), key


def check_quantity(link: Link) -> None:
    assert (link.quantity is None) == (link.unit is None), link
    assert link.quantity is not None or link.kind not in QUANTIFIED, link
    if link.quantity is not None:
        assert link.quantity > 0
        assert link.unit is not None
        unit(link.unit)  # refuses what is none


def test_every_kind_of_link_has_its_ends() -> None:
    assert set(ENDS) == set(LinkKind)


@pytest.mark.parametrize(("name", "event"), samples(), ids=[name for name, _ in samples()])
def test_what_an_event_says_of_the_thread_can_be_drawn(name: str, event: Any) -> None:
    assert isinstance(event, Threaded) == hasattr(EVENT_TYPES[name].event_class, "thread")
    items = event.thread() if isinstance(event, Threaded) else ()
    for item in items:
        check_item(item)
    assert len(set(items)) == len(items), "it says the same thing twice"


def test_what_a_whole_plant_says_of_the_thread_can_be_drawn() -> None:
    """More of each type than its sample: optional fields, other kinds of ends, other units."""
    links = collections.Counter[LinkKind]()
    for event in plant_history(400, 3):
        if isinstance(event.fact, Threaded):
            for item in event.fact.thread():
                check_item(item)
                if isinstance(item, Link):
                    links[item.kind] += 1
    assert set(links) >= set(LinkKind) - {LinkKind.EMBODIED_BY, LinkKind.MADE_FROM}


# --- projections: what they declare ---------------------------------------------------------


def test_projections_have_names_of_their_own() -> None:
    names = [projection.name for projection in PROJECTIONS]
    assert len(set(names)) == len(names)
    tables = [table for projection in PROJECTIONS for table in projection.tables]
    assert len(set(tables)) == len(tables)
    commanders = [policy.commands_as for policy in POLICIES if isinstance(policy, Policy)]
    assert len(set(commanders)) == len(commanders)
    assert all(actor.startswith("policy:") for actor in commanders)


@pytest.mark.parametrize("projection", PROJECTIONS, ids=named)
def test_a_projection_declares_what_it_folds(projection: Projection) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]*", projection.name)
    assert projection.version >= 1
    types = projection.types
    assert types is None or set(types) <= {*EVENT_TYPES, FRAME_RECORDED}
    assert types is None or len(set(types)) == len(types) > 0
    assert projection.tables
    assert type(anew(projection)) is type(projection)
    compared = projection.contents if isinstance(projection, ComparedByContents) else {}
    assert set(compared) <= set(projection.tables)


@pytest.mark.anyio
async def test_every_declared_table_is_there_and_says_of_which_ledger_it_is(pool: Pool) -> None:
    rows = await pool.fetch(
        "select relname, attname from pg_class c join pg_attribute a on a.attrelid = c.oid "
        "where relkind = 'r' and relnamespace = 'public'::regnamespace and attnum > 0"
    )
    tables = {row["relname"] for row in rows}
    of_a_ledger = {row["relname"] for row in rows if row["attname"] == "ledger_id"}
    for projection in PROJECTIONS:
        compared = projection.contents if isinstance(projection, ComparedByContents) else {}
        assert set(projection.tables) <= tables, projection.name
        assert set(projection.tables) - set(compared) <= of_a_ledger, projection.name


# --- every event type through every projection ----------------------------------------------


@pytest.mark.anyio
async def test_every_index_for_queries_is_there_and_keeps_nothing_out(pool: Pool) -> None:
    for projection in PROJECTIONS:
        if not isinstance(projection, IndexedForQueries):
            continue
        rows = await pool.fetch(
            "select i.indexrelid::regclass::text as name, i.indisunique as is_unique "
            "from pg_index i where i.indrelid = any($1::text[]::regclass[])",
            list(projection.tables),
        )
        unique = {row["name"]: row["is_unique"] for row in rows}
        for index in projection.query_indexes:
            assert unique[index] is False, index


def stream_of(name: str, event: Any) -> str:
    """Return the stream that an event of the type `name` belongs to."""
    if isinstance(event, RecordCorrected | RecordSigned):
        return event.stream
    category = name.partition(".")[0].replace("_", "-")
    decider = next((d for d in DECIDERS if d.category == category), None)
    return f"{category}:sample" if decider is None else decider.stream_of(event)


def correction_of(event: RecordedEvent, replacement: Any) -> RecordCorrected:
    stored = None if replacement is None else type_of(replacement)
    return RecordCorrected(
        stream=event.stream,
        corrected_event_id=event.event_id,
        corrected_position=event.position,
        reason="it was written down wrong",
        replacement_type=None if stored is None else stored.name,
        replacement_version=None if stored is None else stored.schema_version,
        replacement=None if stored is None else encode_fact(replacement).decode(),
    )


async def tell(
    ledger: Ledger, told: Iterable[tuple[str, Any]], *, later: timedelta, label: str
) -> None:
    """Append facts (stream, fact), each true `later` than the one before."""
    moment = BEGINNING
    events = []
    for number, (stream, told_fact) in enumerate(told):
        moment += later
        events.append(
            new_fact(
                stream,
                told_fact,
                event_id=uuid.uuid5(_NAMESPACE, f"{label}/{number}"),
                occurred_at=moment,
                actor="user:mara",
            )
        )
    await ledger.append(events)


async def tell_of_a_webhook(ledger: Ledger) -> int:
    """Append the life of a webhook, which no plant's history has; return how many facts it is."""
    told = [(stream_of(name, e), e) for name, e in samples() if name.startswith("webhook.")]
    await tell(ledger, told, later=timedelta(hours=1), label="webhooks")
    return len(told)


async def everything(ledger: Ledger, *, backwards: bool) -> None:
    """Record an event of every type, then that each was wrong: said anew, and unsaid."""
    told = [(stream_of(name, event), event) for name, event in samples()]
    step = timedelta(minutes=1)
    if backwards:
        told, step = told[::-1], -step
    await tell(ledger, told, later=step, label="told")
    await record(ledger, machine_frames("lathe-1", count=2))
    recorded = await read_page(ledger, 0, limit=len(told))
    correctable = [e for e in recorded if e.type not in (CORRECTED, SIGNED)]
    anew = [(e.stream, correction_of(e, e.fact)) for e in correctable]
    await tell(ledger, anew, later=step, label="said anew")
    unsaid = [(e.stream, correction_of(e, None)) for e in correctable]
    await tell(ledger, unsaid, later=step, label="unsaid")


def machine_frames(asset: str, *, count: int, readings: int = 20) -> list[Frame]:
    """Return `count` windows of readings, one a second, of a vibration that comes and goes."""
    begins_ns = int(BEGINNING.timestamp()) * 1_000_000_000
    frames = []
    for number in range(count):
        seconds = np.arange(number * readings, (number + 1) * readings)
        columns = {
            channel: np.round(2 + np.sin(seconds / (60 + n)), 3)
            for n, channel in enumerate(DELIVERED)
        }
        frames.append(
            machine_frame(asset, number + 1, begins_ns + seconds * 1_000_000_000, columns)
        )
    return frames


async def rows_written(connection: Connection) -> dict[str, int]:
    """Return how many rows of each table `connection` has written that are not reported yet."""
    rows = await connection.fetch(
        "select relname, n_tup_ins + n_tup_upd + n_tup_del as written from pg_stat_xact_user_tables"
    )
    return {row["relname"]: row["written"] for row in rows}


@pytest.mark.anyio
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
async def test_every_event_type_is_folded_by_every_projection(
    ledger: Ledger, *, backwards: bool
) -> None:
    """Whatever the log holds, in whatever order; and each writes to its own tables alone."""
    await everything(ledger, backwards=backwards)
    head = await ledger.head()
    events = await read_page(ledger, 0, limit=head)
    assert {event.type for event in events} == {*EVENT_TYPES, FRAME_RECORDED}
    for projection in FOLDED_ANEW:
        one_by_one = await fold_strictly(ledger, projection, events, 1)
        at_once = await fold_strictly(ledger, projection, events, head)
        assert one_by_one == at_once, projection.name


async def fold_strictly(
    ledger: Ledger, projection: Projection, events: Sequence[RecordedEvent], batch: int
) -> dict[str, list[str]]:
    """Fold `events` in batches, watching what is written; return the rows, and keep none."""
    folding = anew(projection)
    async with ledger.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        before = await rows_written(connection)
        for first in range(0, len(events), batch):
            some = wanted(folding, events[first : first + batch])
            if some:
                await folding.fold(connection, ledger, some)
        after = await rows_written(connection)
        written = {table for table, count in after.items() if count > before.get(table, 0)}
        assert written <= set(projection.tables), projection.name
        rows = await rows_of(connection, ledger, projection)
        await transaction.rollback()
    return rows


async def rows_of(
    connection: Connection, ledger: Ledger, projection: Projection
) -> dict[str, list[str]]:
    compared = projection.contents if isinstance(projection, ComparedByContents) else {}
    found = {}
    for table in projection.tables:
        query = compared.get(table, f"select * from {table} where ledger_id = $1")
        rows = await connection.fetch(f"select r::text from ({query}) r", ledger.ledger_id)
        found[table] = sorted(row[0] for row in rows)
    return found


@pytest.mark.anyio
async def test_no_event_type_stops_a_runner(ledger: Ledger, database_url: str) -> None:
    """Policies command meanwhile: what they command is folded too."""
    await everything(ledger, backwards=False)
    told = await ledger.head()
    async with running_all(ledger, database_url) as runners:
        head = await settled(ledger, runners)
        assert {runner.failure for runner in runners.values()} == {None}
        assert head >= told


# --- rebuilt is live ------------------------------------------------------------------------


def contents(checked: ProjectionCheck) -> dict[str, tuple[int, str]]:
    return {table.table: (table.live.rows, table.live.digest) for table in checked.tables}


def differences(checked: ProjectionCheck) -> list[Any]:
    return [
        (t.table, t.live.rows, t.rebuilt.rows, t.differences) for t in checked.tables if not t.equal
    ]


@pytest.mark.anyio
async def test_what_is_rebuilt_is_what_was_live(ledger: Ledger, database_url: str) -> None:
    """Folded live by runners as it came, policies among them, and then anew from the log."""
    history = await record_history(ledger, HistoryName(parts=60, seed=3, months=12))
    told = await tell_of_a_webhook(ledger)
    async with running_all(ledger, database_url) as runners:
        await settled(ledger, runners)
        frames = machine_frames("lathe-3-1", count=ROW_FRAMES + 4)
        await record(ledger, frames)
        head = await settled(ledger, runners)
    assert head > history.position + told + len(frames), "the policies had nothing to say"
    empty = set()
    for projection in FOLDED_ANEW:
        before = await check(ledger.pool, ledger, anew(projection))
        assert before.position == head
        assert differences(before) == []
        empty |= {table for table, (rows, _) in contents(before).items() if rows == 0}
        rebuilt = await rebuild(ledger.pool, anew(projection))
        assert rebuilt.after[ledger.name].generation == 1
        after = await check(ledger.pool, ledger, anew(projection))
        assert differences(after) == []
        assert contents(after) == contents(before)
    assert empty == set(), "nothing was compared there"


@pytest.mark.anyio
async def test_a_policy_is_not_rebuilt_for_it_would_command_anew(ledger: Ledger) -> None:
    for policy in POLICIES:
        for from_the_beginning in (
            rebuild(ledger.pool, anew(policy)),
            check(ledger.pool, ledger, anew(policy)),
        ):
            with pytest.raises(InvalidInput) as refused:
                await from_the_beginning
            assert (refused.value.code, refused.value.value) == (
                "projection.is_policy",
                policy.name,
            )


# --- however it is fed ----------------------------------------------------------------------


@pytest.mark.anyio
async def test_batches_of_any_size_give_the_same_rows(ledger: Ledger) -> None:
    await record_history(ledger, HistoryName(parts=6, seed=3, months=3))
    await record(ledger, machine_frames("lathe-3-1", count=8))
    await tell_of_a_webhook(ledger)
    head = await ledger.head()
    events = await read_page(ledger, 0, limit=head)
    assert len(events) == head
    without_rows = set()
    for projection in FOLDED_ANEW:
        at_once = await fold_strictly(ledger, projection, events, head)
        if not any(at_once.values()):
            without_rows.add(projection.name)
        for batch in (1, 7):
            rows = await fold_strictly(ledger, projection, events, batch)
            assert rows == at_once, (projection.name, batch)
    assert without_rows <= {AlertProjection.name, TwinHistoryProjection.name}
