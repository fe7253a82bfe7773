"""The rows that the audit trail is found by, and the trail wherever they stand."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from eventlog.database import Connection
from eventlog.envelope import NewEvent
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from projections.audit.projection import AuditProjection
from projections.audit.search import find_positions
from projections.audit.trail import AuditFilter, audit_trail
from projections.running.content import check
from projections.running.rebuild import rebuild
from projections.telemetry.rollups import RollupProjection
from tests.eventlog.new_events import fact, frame_event, frame_of
from tests.projections.audit_rows import fold_up_to, short_blocks
from tests.projections.loop_frames import PATIENCE_S, running, until

pytestmark = pytest.mark.anyio

BLOCK = 4


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.running.rebuild.LIVE_WAIT_S", 0.1)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    short_blocks(monkeypatch, near=2, length=BLOCK)


ACTORS = ("user:mara", "user:otto", "agent:line")
TYPES = ("asset.setpoint_reported", "pump.enchanted", "pump.disenchanted", "valve.sung")
QUESTIONS = (
    AuditFilter(),
    AuditFilter(actors=("user:otto",)),
    AuditFilter(types=("valve.sung",)),
    AuditFilter(actors=("user:mara", "agent:line"), types=("pump.enchanted",)),
    AuditFilter(streams=("asset:loop-1",)),
)


def done(n: int) -> NewEvent:
    """Return the fact that stands at position `n`: of each kind by each actor in turn."""
    return fact(n, actor=ACTORS[n % len(ACTORS)], type=TYPES[n % len(TYPES)])


def positions(wanted: AuditFilter, up_to: int, first: int) -> list[int]:
    """Return the last `first` positions up to `up_to` of a log of `done` that are `wanted`."""
    found = (
        n
        for n in range(up_to, 0, -1)
        if (not wanted.actors or ACTORS[n % len(ACTORS)] in wanted.actors)
        and (not wanted.types or TYPES[n % len(TYPES)] in wanted.types)
    )
    return list(itertools.islice(found, first))


async def answered(ledger: Ledger, first: int = 10, as_of: int | None = None) -> int:
    """Ask every question, compare each answer with what was done; return as of when it was."""
    for wanted in QUESTIONS:
        page = await audit_trail(ledger, wanted, first=first, as_of=as_of)
        expected = positions(wanted, page.as_of, first + 1)
        assert [entry.position for entry in page.entries] == expected[:first]
        assert page.more == (len(expected) > first)
    return page.as_of


async def rows(ledger: Ledger) -> set[tuple[int, ...]]:
    found = await ledger.pool.fetch(
        "select block, kind, who from audit_block where ledger_id = $1", ledger.ledger_id
    )
    return {tuple(row) for row in found}


async def expected(ledger: Ledger, *done_at: int) -> set[tuple[int, ...]]:
    """Return the rows of a log that holds facts of `done` at those positions."""
    found = await ledger.pool.fetch(
        "select n / $4, hashtext(kind), hashtext(who) "
        "from unnest($1::bigint[], $2::text[], $3::text[]) as of(n, kind, who)",
        done_at,
        [TYPES[n % len(TYPES)] for n in done_at],
        [ACTORS[n % len(ACTORS)] for n in done_at],
        BLOCK,
    )
    return {tuple(row) for row in found}


async def erase(ledger: Ledger, position: int) -> None:
    await ledger.pool.execute(
        "update event set payload = null, payload_tier = 2 where ledger_id = $1 and position = $2",
        ledger.ledger_id,
        position,
    )


# --- the rows -----------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
async def test_every_fact_is_told_of_and_no_frame_is(ledger: Ledger, database_url: str) -> None:
    """Of unknown kinds too, which stop every other projection; and of erased payload."""
    await ledger.append([done(1), frame_event(frame_of(1)), done(3), done(4)])
    await erase(ledger, 4)
    async with running(ledger, database_url, AuditProjection(), RollupProjection()) as (
        audit,
        rollups,
    ):
        await audit.wait_for(4, PATIENCE_S)
        await until(lambda: rollups.failure is not None)
        assert (audit.failure, audit.lag, rollups.position) == (None, 0, 0)
        await ledger.append([frame_event(frame_of(2)), done(6)])
        await audit.wait_for(6, PATIENCE_S)
    assert await rows(ledger) == await expected(ledger, 1, 3, 4, 6)


@pytest.mark.usefixtures("short")
async def test_rebuilt_rows_are_the_live_ones_whatever_was_erased_meanwhile(
    ledger: Ledger,
) -> None:
    await ledger.append([done(n) for n in range(1, 31)])
    for folded in (1, 4, 17, 25):
        await fold_up_to(ledger, folded)
    before = await rows(ledger)
    assert before == await expected(ledger, *range(1, 26))
    await erase(ledger, 25)
    assert (await check(ledger.pool, ledger, AuditProjection())).equal
    rebuilt = await rebuild(ledger.pool, AuditProjection())
    assert rebuilt.after[ledger.name].position == 30
    assert before < await rows(ledger) == await expected(ledger, *range(1, 31))
    await ledger.pool.execute("delete from audit_block where block = 5")
    (table,) = (await check(ledger.pool, ledger, AuditProjection())).tables
    assert table.rebuilt.rows == table.live.rows + BLOCK


async def test_a_log_that_ends_too_early_is_told_of_and_not_vouched_for(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the database was restored to an earlier point under a running server."""
    monkeypatch.setattr("projections.running.runner.RETRY_DELAY_S", 0.02)
    await ledger.append([done(1), done(2)])
    async with running(ledger, database_url, AuditProjection()) as (runner,):
        await runner.wait_for(2, PATIENCE_S)
        monkeypatch.setattr(Tail, "position", property(lambda _: 5))
        await ledger.append([done(3)])
        await until(lambda: runner.failure is not None)
        assert runner.failure is not None
        assert "the log ends at 3, before the position 5" in runner.failure
        assert runner.position == 2
        await ledger.append([done(4), done(5)])
        await runner.wait_for(5, PATIENCE_S)
        await until(lambda: runner.failure is None)
    assert len(await rows(ledger)) == 5


# --- the trail, wherever they stand -------------------------------------------------------


@pytest.mark.usefixtures("short")
async def test_the_trail_is_exact_before_there_are_rows_and_wherever_they_lag(
    ledger: Ledger,
) -> None:
    await ledger.append([done(n) for n in range(1, 61)])
    assert await answered(ledger) == 60
    for folded in (1, 30, 55, 60):
        await fold_up_to(ledger, folded)
        for as_of in (10, 30, 31, 58, None):
            assert await answered(ledger, as_of=as_of) == as_of or 60
        assert await answered(ledger, first=100) == 60
    await ledger.append([done(61)])
    assert await answered(ledger) == 61


@pytest.mark.usefixtures("short")
async def test_the_trail_is_exact_after_a_rebuild_of_a_projection_that_lagged(
    ledger: Ledger,
) -> None:
    await ledger.append([done(n) for n in range(1, 41)])
    await fold_up_to(ledger, 15)
    await rebuild(ledger.pool, AuditProjection())
    assert await rows(ledger) == await expected(ledger, *range(1, 41))
    assert await answered(ledger) == 40
    await ledger.append([done(41)])
    assert await answered(ledger) == 41


async def test_rows_of_another_version_are_left_alone(ledger: Ledger) -> None:
    await ledger.append([done(n) for n in range(1, 31)])
    await fold_up_to(ledger, 30)
    await ledger.pool.execute("truncate audit_block")
    await ledger.pool.execute(
        "update projection_checkpoint set version = version + 1 where projection = $1",
        AuditProjection.name,
    )
    assert await answered(ledger) == 30


@pytest.mark.usefixtures("short")
async def test_every_page_is_exact_while_facts_come_and_rows_are_folded_and_exchanged(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is compared with what was done up to the position it is told for."""
    monkeypatch.setattr("projections.running.runner.ENVELOPES_MAX", 7)
    ended = asyncio.Event()

    async def write() -> None:
        begin = 1
        while not ended.is_set():
            await ledger.append([done(n) for n in range(begin, begin + 10)])
            begin += 10
            await asyncio.sleep(0.01)

    async def ask() -> int:
        pages = 0
        while not ended.is_set():
            await answered(ledger, first=25)
            pages += 1
        return pages

    async with running(ledger, database_url, AuditProjection()) as (runner,):
        writing, asking = asyncio.create_task(write()), [asyncio.create_task(ask()) for _ in "ab"]
        for _ in range(2):
            await rebuild(ledger.pool, AuditProjection())
        ended.set()
        await writing
        assert min(await asyncio.gather(*asking)) > 0
        head = await ledger.head()
        await runner.wait_for(head, PATIENCE_S)
        assert runner.failure is None
    assert await rows(ledger) == await expected(ledger, *range(1, head + 1))
    assert await answered(ledger) == head


# --- what a page costs --------------------------------------------------------------------


async def test_a_page_looks_at_no_more_rows_of_a_longer_log(ledger: Ledger) -> None:
    """Whatever the filter; also for what one actor did once, at the beginning."""
    await ledger.append([fact("first", actor="user:rare", type="rare.happened")])
    questions = (
        *QUESTIONS[:-1],
        AuditFilter(actors=("user:rare",)),
        AuditFilter(types=("rare.happened",)),
        AuditFilter(actors=("user:nobody",), types=("pump.enchanted",)),
    )
    looked_at: list[list[int]] = []
    for up_to in (4_000, 12_000):
        head = await ledger.head()
        for begin in range(head + 1, up_to, 1_000):
            events = [done(n) for n in range(begin, min(begin + 1_000, up_to))]
            await ledger.append([*events, frame_event(frame_of(begin))])
        head = await ledger.head()
        await fold_up_to(ledger, head)
        await ledger.pool.execute("analyze event; analyze audit_block")
        looked_at.append([await rows_looked_at(ledger, each, head) for each in questions])
    for wanted, shorter, longer in zip(questions, *looked_at, strict=True):
        assert longer < 1.5 * shorter + 50, wanted  # of a log three times as long
        assert shorter < 1_200, wanted


async def rows_looked_at(ledger: Ledger, wanted: AuditFilter, head: int) -> int:
    """Return how many rows PostgreSQL fetches to find a page of ten."""
    async with ledger.pool.acquire() as connection, connection.transaction():
        before = await _fetched(connection)
        await find_positions(connection, ledger, wanted, 1, head, 11)
        return await _fetched(connection) - before


async def _fetched(connection: Connection) -> int:
    rows: int = await connection.fetchval(
        "select sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::bigint "
        "from pg_stat_xact_user_tables where relname like 'event%' or relname = 'audit_block'"
    )
    return rows
