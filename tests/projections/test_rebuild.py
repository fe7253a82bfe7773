"""Rebuilding and checking: rows made anew lie beside the live ones, and are exchanged at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import asyncpg
import pytest

from api.app import projections
from api.plant_history import plant_history
from domain.asset import SetpointDesired
from domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent, new_fact
from eventlog.ledger import Ledger
from eventlog.reading import Page, PayloadOf, read_pages
from projections.alerts.policy import AlertPolicy
from projections.running.beside import beside
from projections.running.checkpoints import begin
from projections.running.content import check
from projections.running.poison import PoisonEvent
from projections.running.projection import Policy
from projections.running.rebuild import rebuild
from projections.telemetry.rollups import RollupProjection
from projections.twins.projection import TwinProjection
from tests.database import as_superuser
from tests.eventlog.new_events import OCCURRED_AT, fact, opened
from tests.projections.loop_frames import (
    PATIENCE_S,
    process,
    record,
    register,
    running,
    skab_frames,
    until,
)

pytestmark = pytest.mark.anyio


class Tally:
    """Counts the events of each stream, and keeps every position."""

    name: ClassVar[str] = "tally"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = None
    payloads: ClassVar[PayloadOf] = PayloadOf.NONE
    tables: ClassVar[tuple[str, ...]] = ("tally", "tally_position")
    weight: ClassVar[int] = 1
    poison: ClassVar[int | None] = None

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        for event in events:
            if event.position == self.poison:
                raise ValueError(f"position {event.position} cannot be folded")
        await connection.execute(
            """
            insert into tally select $1, stream, $3 * count(*) from unnest($2::text[]) stream
            group by stream on conflict (ledger_id, stream) do update
                set events = tally.events + excluded.events
            """,
            ledger.ledger_id,
            [event.stream for event in events],
            self.weight,
        )
        await connection.copy_records_to_table(
            "tally_position",
            records=[(ledger.ledger_id, event.position) for event in events],
            columns=["ledger_id", "position"],
        )


class HeavyTally(Tally):
    """A new version, which gives other rows."""

    version: ClassVar[int] = 2
    weight: ClassVar[int] = 10


class IndexedLast(Tally):
    """Its fold has no use for one of the indexes."""

    query_indexes: ClassVar[tuple[str, ...]] = ("tally_by_events", "tally_pkey")


TALLY_TABLES = """
    create table tally (ledger_id smallint not null, stream text not null, events bigint not null,
        primary key (ledger_id, stream)) with (fillfactor = 70);
    create index tally_by_events on tally (ledger_id, events desc) where events > 0;
    comment on table tally is 'events of each stream';
    create table tally_position (ledger_id smallint not null, position bigint not null,
        id bigint generated always as identity, unique (ledger_id, position));
    create view tally_view with (security_barrier = true) as
        select t.stream, t.events, (select max(position) from tally_position) as position
        from tally t;
    create view tally_total as select sum(events) as events from tally_view;
"""


@pytest.fixture(autouse=True)
async def tables(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.running.runner.FAILED_RETRY_DELAY_S", 0.05)
    monkeypatch.setattr("projections.running.rebuild.LIVE_WAIT_S", 0.2)
    monkeypatch.setattr(
        Tally,
        "contents",
        {"tally_position": "select position from tally_position where ledger_id = $1"},
        raising=False,
    )
    await ledger.pool.execute(TALLY_TABLES)


async def write(ledger: Ledger, count: int, *, label: str = "e") -> None:
    await ledger.append([fact(f"{label}{n}", stream=f"asset:loop-{n % 7}") for n in range(count)])


async def folded(ledger: Ledger, url: str, *projections: Any) -> None:
    """Have `projections` come to the head of `ledger`."""
    async with running(ledger, url, *projections) as runners:
        for runner in runners:
            await runner.wait_for(await ledger.head(), PATIENCE_S)


async def schemas(ledger: Ledger) -> list[str]:
    return [
        row[0]
        for row in await ledger.pool.fetch(
            "select nspname from pg_namespace where nspname !~ '^(pg_|information|public)'"
        )
    ]


async def definition(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Return all that is to be said of the tables, but for their numbers."""
    rows = await ledger.pool.fetch(
        """
        select 'table', c.relname, c.relacl::text, c.reloptions::text,
            obj_description(c.oid, 'pg_class') from pg_class c
            where c.relnamespace = 'public'::regnamespace and c.relname like 'tally%'
                and c.relkind in ('r', 'v')
        union all select 'index', indexname, indexdef, null, null from pg_indexes
            where tablename like 'tally%'
        union all select 'constraint', conname, pg_get_constraintdef(oid), contype::text, null
            from pg_constraint where conrelid in ('tally'::regclass, 'tally_position'::regclass)
        union all select 'column', attrelid::regclass::text, attname, attidentity::text,
            attnotnull::text from pg_attribute where attnum > 0
            and attrelid in ('tally'::regclass, 'tally_position'::regclass)
        union all select 'view', viewname, definition, null, null from pg_views
            where viewname like 'tally%'
        order by 1, 2, 3, 4
        """
    )
    return [tuple(row) for row in rows]


# --- rebuilding ---------------------------------------------------------------------------


async def test_rebuilt_rows_are_the_live_ones_and_what_was_damaged_is_repaired(
    ledger: Ledger, database_url: str
) -> None:
    await write(ledger, 30)
    await folded(ledger, database_url, Tally())
    right = await ledger.pool.fetch("select * from tally order by stream")
    await ledger.pool.execute("update tally set events = 99 where stream = 'asset:loop-3'")
    await ledger.pool.execute("delete from tally_position where position = 7")
    rebuilt = await rebuild(ledger.pool, Tally())
    assert (rebuilt.after["plant-1"].position, rebuilt.after["plant-1"].generation) == (30, 1)
    assert await ledger.pool.fetch("select * from tally order by stream") == right
    assert await ledger.pool.fetchval("select count(*) from tally_position") == 30
    assert await ledger.pool.fetchval("select events from tally_total") == 30
    assert await schemas(ledger) == []
    assert (await check(ledger.pool, ledger, Tally())).equal


async def test_everything_about_a_table_survives_its_exchange(
    ledger: Ledger, database_url: str
) -> None:
    await ledger.pool.execute("grant select on tally to public")
    await ledger.pool.execute("grant select (position) on tally_position to public")
    await write(ledger, 3)
    await folded(ledger, database_url, Tally())
    before = await definition(ledger)
    assert len(before) > 15
    for projection in (Tally(), Tally(), IndexedLast(), Tally()):
        await rebuild(ledger.pool, projection)
        assert await definition(ledger) == before


async def test_rows_of_every_ledger_are_rebuilt_together(ledger: Ledger, database_url: str) -> None:
    async with opened(database_url, "plant-2") as other, opened(database_url, "plant-3") as idle:
        await write(ledger, 20)
        await write(other, 5, label="other")
        await write(idle, 5, label="idle")
        await folded(ledger, database_url, Tally())
        await folded(other, database_url, Tally())
        before = await ledger.pool.fetch("select * from tally order by ledger_id, stream")
        rebuilt = await rebuild(ledger.pool, Tally())
        assert {name: c.position for name, c in rebuilt.after.items()} == {
            "plant-1": 20,
            "plant-2": 5,
        }
        assert await ledger.pool.fetch("select * from tally order by ledger_id, stream") == before


async def test_a_projection_is_rebuilt_while_it_is_fed_folded_and_read(
    ledger: Ledger, database_url: str
) -> None:
    """No query fails, and none sees anything but the rows of the position it reads beside."""
    await write(ledger, 500, label="first")
    stop = asyncio.Event()
    looks = rebuilds = 0

    async def feed() -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            await ledger.append([fact(f"live{n}", stream=f"asset:loop-{n % 7}")])
            await asyncio.sleep(0.002)

    async def look(*, in_snapshot: bool) -> None:
        nonlocal looks
        while not stop.is_set():
            async with ledger.pool.acquire() as connection:
                if in_snapshot:
                    async with connection.transaction(isolation="repeatable_read", readonly=True):
                        position = await connection.fetchval(
                            "select position from projection_checkpoint where projection = 'tally'"
                        )
                        await asyncio.sleep(0.005)
                        row = await connection.fetchrow(
                            "select (select sum(events) from tally)::bigint, "
                            "(select count(*) from tally_position), "
                            "(select events from tally_total)::bigint"
                        )
                        assert tuple(row or ()) == (position, position, position)
                else:
                    rows = await connection.fetch(
                        "select * from tally where ledger_id = $1", ledger.ledger_id
                    )
                    assert len(rows) == 7
            looks += 1

    async with running(ledger, database_url, Tally()) as (runner,):
        await runner.wait_for(500, PATIENCE_S)
        tasks = [
            asyncio.create_task(work)
            for work in (
                feed(),
                *(look(in_snapshot=True) for _ in range(3)),
                *(look(in_snapshot=False) for _ in range(3)),
            )
        ]
        for _ in range(4):
            await rebuild(ledger.pool, Tally())
            rebuilds += 1
            await asyncio.sleep(0.05)
        stop.set()
        await asyncio.gather(*tasks)
        await runner.wait_for(await ledger.head(), PATIENCE_S)
        assert runner.failure is None
    assert (rebuilds, looks > 50) == (4, True)
    checked = await check(ledger.pool, ledger, Tally())
    assert checked.equal
    assert checked.position == await ledger.head()


async def test_a_reader_who_stays_is_waited_for_and_then_told_of(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.running.rebuild.SWITCH_ATTEMPTS_MAX", 2)
    monkeypatch.setattr("projections.running.rebuild.SNAPSHOT_WAIT_S", 0.1)
    monkeypatch.setattr("projections.running.rebuild.SWITCH_RETRY_DELAY_S", 0.01)
    await write(ledger, 10)
    await folded(ledger, database_url, Tally())
    async with ledger.pool.acquire() as connection:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetchval("select 1 from ledger")
            with pytest.raises(Unavailable) as in_use:
                await rebuild(ledger.pool, Tally())
            assert in_use.value.code == "projection.tables_in_use"
        async with connection.transaction():
            await connection.fetchval("select count(*) from tally")
            with pytest.raises(Unavailable) as in_use:
                await rebuild(ledger.pool, Tally())
            assert in_use.value.code == "projection.tables_in_use"
    assert await schemas(ledger) == []
    assert (await rebuild(ledger.pool, Tally())).after["plant-1"].generation == 1


async def test_rollups_are_rebuilt_through_their_view_while_they_are_folded(
    ledger: Ledger, database_url: str
) -> None:
    await register(ledger)
    frames = skab_frames("valve1/0", 20)
    await record(ledger, frames[:20])
    async with running(ledger, database_url, RollupProjection()) as (runner,):
        await runner.wait_for(await ledger.head(), PATIENCE_S)
        before = await ledger.pool.fetch("select * from telemetry_rollup order by 2, 3, 4, 5")
        await rebuild(ledger.pool, RollupProjection())
        after = await ledger.pool.fetch("select * from telemetry_rollup order by 2, 3, 4, 5")
        assert after == before != []
        await record(ledger, frames[20:])
        await runner.wait_for(await ledger.head(), PATIENCE_S)
        assert runner.failure is None
    checked = await check(ledger.pool, ledger, RollupProjection())
    assert checked.equal
    assert [table.live.rows > 0 for table in checked.tables] == [True, True, True]


async def test_a_projection_that_stands_before_a_poison_event_is_rebuilt_beyond_it(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(ledger, 50)
    monkeypatch.setattr(Tally, "poison", 31)
    async with running(ledger, database_url, Tally()) as (runner,):
        await runner.wait_for(30, PATIENCE_S)
        with pytest.raises(PoisonEvent) as poison:
            await rebuild(ledger.pool, Tally())
        assert poison.value.event.position == 31
        assert "projection 'tally' stands before plant-1/31" in poison.value.message
        assert await schemas(ledger) == []
        monkeypatch.setattr(Tally, "poison", None)
        rebuilt = await rebuild(ledger.pool, Tally())
        assert rebuilt.after["plant-1"].position == 50
        await runner.wait_for(50, PATIENCE_S)
    assert (await check(ledger.pool, ledger, Tally())).equal


class Rare(Tally):
    """Wants set-points that were desired, of which there are few."""

    name: ClassVar[str] = "rare"
    types: ClassVar[tuple[str, ...] | None] = ("asset.setpoint_desired",)


async def written_with_rare(ledger: Ledger, count: int, every: int) -> list[int]:
    """Append `count` events of which each `every`th is a rare one; return where those stand."""
    desired = SetpointDesired("loop-1", "valve", 0.5)
    events = [
        new_fact(
            "asset:loop-1",
            desired,
            event_id=uuid.uuid4(),
            occurred_at=OCCURRED_AT,
            actor="user:mara",
        )
        if n % every == 0
        else fact(f"common{n}")
        for n in range(1, count + 1)
    ]
    await ledger.append(events)
    return list(range(every, count + 1, every))


@pytest.mark.parametrize("every", [1, 2, 7, 40, 1000])
async def test_where_little_is_wanted_only_that_is_read_and_nothing_missed(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr("projections.running.beside.RANGE_EVENTS_FIRST", 10)
    monkeypatch.setattr("projections.running.beside.RANGE_EVENTS", 30)
    fetched = 0

    async def counted(*arguments: Any, **named: Any) -> AsyncIterator[Page]:
        nonlocal fetched
        async for page in read_pages(*arguments, **named):
            fetched += len(page)
            yield page

    monkeypatch.setattr("projections.running.beside.read_pages", counted)
    rare = await written_with_rare(ledger, 300, every)
    await folded(ledger, database_url, Rare())
    rebuilt = await rebuild(ledger.pool, Rare())
    assert rebuilt.after["plant-1"].position == 300
    found = await ledger.pool.fetch("select position from tally_position order by 1")
    assert [row[0] for row in found] == rare
    assert fetched == 300 if every <= 2 else fetched < 60 + 300 // every


@pytest.mark.parametrize("place", [5, 10, 11, 41, 47, 120])
async def test_a_type_that_nobody_knows_is_found_where_little_is_read(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr("projections.running.beside.RANGE_EVENTS_FIRST", 10)
    monkeypatch.setattr("projections.running.beside.RANGE_EVENTS", 30)
    await begin(ledger.pool, ledger.ledger_id, "rare", 1)
    events = [fact(n) for n in range(1, 121)]
    events[place - 1] = fact("unknown", type="pump.enchanted", schema_version=4)
    await ledger.append(events)
    with pytest.raises(PoisonEvent) as poison:
        await rebuild(ledger.pool, Rare())
    assert poison.value.event.position == place
    assert "event.unknown_type" in poison.value.message


async def test_every_projection_rebuilt_is_what_it_was_live(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a generated history, folded live in odd batches and anew in large ones."""
    monkeypatch.setattr("projections.running.runner.BATCH_EVENTS_MAX", 37)
    history = [
        new_fact(
            event.stream,
            event.fact,
            event_id=event.event_id,
            occurred_at=event.occurred_at,
            actor=event.actor,
        )
        for event in plant_history(20, 7)
    ]
    kept = [projection for projection in projections() if not isinstance(projection, Policy)]
    async with running(ledger, database_url, *kept) as runners:
        for at in range(0, len(history), 100):
            await ledger.append(history[at : at + 100])
        for runner in runners:
            await runner.wait_for(len(history), PATIENCE_S)
            assert runner.failure is None
    filled = 0
    for projection in kept:
        found = await check(ledger.pool, ledger, projection)
        assert not [
            (t.table, t.live.rows, t.rebuilt.rows, t.differences)
            for t in found.tables
            if not t.equal
        ]
        filled += sum(table.live.rows > 0 for table in found.tables)
    assert filled > 10


# --- what is refused ----------------------------------------------------------------------


async def test_a_policy_is_never_folded_anew(ledger: Ledger) -> None:
    for work in (rebuild(ledger.pool, AlertPolicy()), check(ledger.pool, ledger, AlertPolicy())):
        with pytest.raises(InvalidInput) as refused:
            await work
        assert refused.value.code == "projection.is_policy"
        assert "policy:alerts" in refused.value.message


async def test_one_works_beside_a_projection_at_a_time(ledger: Ledger, database_url: str) -> None:
    await folded(ledger, database_url, Tally())
    async with beside(ledger.pool, Tally(), "rebuild"):
        for work in (rebuild(ledger.pool, Tally()), check(ledger.pool, ledger, Tally())):
            with pytest.raises(Conflict) as busy:
                await work
            assert busy.value.code == "projection.busy"
    await rebuild(ledger.pool, Tally())


@pytest.mark.parametrize(
    "more",
    [
        "create trigger t before insert on tally for each row execute function "
        "suppress_redundant_updates_trigger()",
        "create table referring (ledger_id smallint, stream text, "
        "foreign key (ledger_id, stream) references tally)",
        "alter table tally enable row level security",
        "create table heir () inherits (tally)",
        "create materialized view seen as select * from tally",
        "create function f(tally) returns bigint language sql return 1",
    ],
)
async def test_a_table_that_is_more_than_its_copy_is_not_exchanged(
    ledger: Ledger, database_url: str, more: str
) -> None:
    await write(ledger, 3)
    await folded(ledger, database_url, Tally())
    await ledger.pool.execute(more)
    before = await definition(ledger)
    with pytest.raises(Conflict) as refused:
        await rebuild(ledger.pool, Tally())
    assert refused.value.code == "projection.table_not_copied"
    assert await schemas(ledger) == []
    assert await definition(ledger) == before
    assert await ledger.pool.fetchval("select sum(events) from tally") == 3


async def test_a_table_that_is_not_there_is_named(ledger: Ledger) -> None:
    class Lost(Tally):
        tables: ClassVar[tuple[str, ...]] = ("tally", "tally_lost")

    with pytest.raises(NotFound) as missing:
        await rebuild(ledger.pool, Lost())
    assert (missing.value.code, missing.value.value) == ("projection.table_missing", "tally_lost")
    assert await schemas(ledger) == []


# --- versions -----------------------------------------------------------------------------


async def stored(ledger: Ledger) -> list[tuple[int, int]]:
    return [
        tuple(row)
        for row in await ledger.pool.fetch(
            "select version, position from projection_checkpoint where projection = 'tally'"
        )
    ]


async def test_a_new_version_is_rebuilt_beside_the_old_one_which_serves_meanwhile(
    ledger: Ledger, database_url: str
) -> None:
    await write(ledger, 40)
    async with running(ledger, database_url, Tally()) as (old,), opened(database_url) as other:
        await old.wait_for(40, PATIENCE_S)
        async with running(other, database_url, HeavyTally()) as (new,):
            await write(ledger, 5, label="more")
            await new.wait_for(45, PATIENCE_S)
            await write(ledger, 1, label="again")
            await until(lambda: old.failure is not None)
            assert "projection.superseded" in (old.failure or "")
            head = await ledger.head()
            await new.wait_for(head, PATIENCE_S)
            assert await stored(ledger) == [(2, head)]
            total = await ledger.pool.fetchval("select sum(events)::bigint from tally")
            assert total == 10 * head
            assert new.failure is None


async def test_going_back_to_an_older_version_is_a_rebuild_that_is_asked_for(
    ledger: Ledger, database_url: str
) -> None:
    await write(ledger, 4)
    await folded(ledger, database_url, HeavyTally())
    async with running(ledger, database_url, Tally()) as (runner,):
        await until(lambda: "projection.superseded" in (runner.failure or ""))
        assert await stored(ledger) == [(2, 4)]
        await rebuild(ledger.pool, Tally())
        await until(lambda: runner.failure is None)
    assert await stored(ledger) == [(1, 4)]
    assert await ledger.pool.fetchval("select sum(events)::bigint from tally") == 4


async def test_a_new_version_of_a_policy_goes_on_where_the_old_one_stood(
    ledger: Ledger, database_url: str
) -> None:
    class Watcher(Tally):
        commands_as: ClassVar[str] = "policy:watcher"

    class NewWatcher(Watcher):
        version: ClassVar[int] = 2

    await write(ledger, 4)
    await folded(ledger, database_url, Watcher())
    await write(ledger, 2, label="more")
    await folded(ledger, database_url, NewWatcher())
    assert await stored(ledger) == [(2, 6)]
    assert await ledger.pool.fetchval("select count(*) from tally_position") == 6


# --- checking -----------------------------------------------------------------------------


async def changed_by_hand(url: str, statement: str) -> None:
    connection = await asyncpg.connect(as_superuser(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_row_that_was_changed_by_hand_is_found(ledger: Ledger, database_url: str) -> None:
    await write(ledger, 70)
    async with running(ledger, database_url, Tally(), TwinProjection()) as runners:
        for runner in runners:
            await runner.wait_for(70, PATIENCE_S)
        assert (await check(ledger.pool, ledger, Tally())).equal
        await changed_by_hand(
            database_url, "update tally set events = 11 where stream = 'asset:loop-3'"
        )
        await changed_by_hand(database_url, "delete from tally where stream = 'asset:loop-5'")
        await changed_by_hand(database_url, "insert into tally values (1, 'asset:ghost', 0)")
        await changed_by_hand(
            database_url, "update tally_position set position = 700 where position = 7"
        )
        found = await check(ledger.pool, ledger, Tally())
        assert (found.equal, found.position) == (False, 70)
        streams, positions = found.tables
        assert (streams.equal, positions.equal) == (False, False)
        number = ledger.ledger_id
        assert [(d.key, d.live, d.rebuilt) for d in streams.differences] == [
            (f"({number},asset:ghost)", f"({number},asset:ghost,0)", None),
            (
                f"({number},asset:loop-3)",
                f"({number},asset:loop-3,11)",
                f"({number},asset:loop-3,10)",
            ),
            (f"({number},asset:loop-5)", None, f"({number},asset:loop-5,10)"),
        ]
        assert [(d.live, d.rebuilt) for d in positions.differences] == [
            ("(700)", None),
            (None, "(7)"),
        ]
        assert streams.live.rows == streams.rebuilt.rows == 7
        assert streams.live.digest != streams.rebuilt.digest
        assert await schemas(ledger) == []


async def test_a_check_while_events_pour_in_finds_nothing_where_nothing_is_wrong(
    ledger: Ledger, database_url: str
) -> None:
    stop = asyncio.Event()

    async def feed() -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            await ledger.append([fact(f"live{n}", stream=f"asset:loop-{n % 7}")])

    async with running(ledger, database_url, Tally()) as (runner,):
        feeding = asyncio.create_task(feed())
        await runner.wait_for(20, PATIENCE_S)
        for _ in range(4):
            found = await check(ledger.pool, ledger, Tally())
            assert (found.equal, found.position >= 20) == (True, True)
        stop.set()
        await feeding


async def test_rows_of_another_version_are_not_compared(ledger: Ledger, database_url: str) -> None:
    await write(ledger, 3)
    await folded(ledger, database_url, Tally())
    with pytest.raises(Unavailable) as refused:
        await check(ledger.pool, ledger, HeavyTally())
    assert (refused.value.code, refused.value.value) == ("projection.not_folded", 1)


# --- killed -------------------------------------------------------------------------------

_REBUILDING = """
import asyncio, sys
from eventlog.database import create_pool
from projections.running.rebuild import rebuild
from tests.projections.test_rebuild import Tally

class Slow(Tally):
    async def fold(self, connection, ledger, events):
        await super().fold(connection, ledger, events)
        print("folding", flush=True)
        await asyncio.sleep(3600)

async def main():
    await rebuild(await create_pool(sys.argv[1]), Slow())

asyncio.run(main())
"""


async def test_what_a_killed_rebuild_left_is_removed_by_the_next(
    ledger: Ledger, database_url: str
) -> None:
    await write(ledger, 9)
    await folded(ledger, database_url, Tally())
    async with process(_REBUILDING, database_url) as started:
        assert started.stdout is not None
        assert await started.stdout.readline() == b"folding\n"
        assert len(await schemas(ledger)) == 1
        started.send_signal(signal.SIGKILL)
    assert len(await schemas(ledger)) == 1
    async with asyncio.timeout(PATIENCE_S):
        while True:  # the server takes a moment to see that the process has gone
            with contextlib.suppress(Conflict):
                await rebuild(ledger.pool, Tally())
                break
            await asyncio.sleep(0.05)
    assert await schemas(ledger) == []
    assert await ledger.pool.fetchval("select sum(events) from tally") == 9
