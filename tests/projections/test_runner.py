"""The runner: rows and checkpoint together, and a projection that cannot go on says so alone."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import uuid
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, cast

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

import domain.events
from domain.asset import AssetRetired
from domain.errors import Unavailable
from domain.events import type_of
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.erasure import erase
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_page
from projections.alerts.projection import AlertProjection
from projections.running import metrics
from projections.running.active import ActiveLocks, lock_key
from projections.running.metrics import Rate
from projections.running.runner import ProjectionRunner
from projections.telemetry.rollups import RollupProjection
from projections.twins.projection import TwinProjection
from tests.eventlog.new_events import cut_connections, fact, opened
from tests.projections.loop_frames import PATIENCE_S, process, register, running, table, until

pytestmark = pytest.mark.anyio


class Seen:
    """A projection that keeps each position it is given, and stumbles where it is told to."""

    name: ClassVar[str] = "seen"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = None
    payloads: ClassVar[PayloadOf] = PayloadOf.NONE
    tables: ClassVar[tuple[str, ...]] = ("seen",)
    poison: ClassVar[int | None] = None
    slow: ClassVar[asyncio.Event]

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        await connection.executemany(
            "insert into seen values ($1, $2)",
            [(ledger.ledger_id, event.position) for event in events],
        )
        await self.slow.wait()
        for event in events:
            if event.position == self.poison:
                raise ValueError(f"position {event.position} cannot be folded")


class SeenOfType(Seen):
    """One that wants set-points only."""

    name: ClassVar[str] = "seen-of-type"
    types: ClassVar[tuple[str, ...] | None] = ("asset.setpoint_reported",)


@pytest.fixture(autouse=True)
async def seen_table(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seen, "poison", None)
    monkeypatch.setattr(Seen, "slow", asyncio.Event(), raising=False)
    Seen.slow.set()
    monkeypatch.setattr("projections.running.runner.FAILED_RETRY_DELAY_S", 0.05)
    monkeypatch.setattr("projections.running.runner.RETRY_DELAY_S", 0.05)
    await ledger.pool.execute("create table seen (ledger_id smallint, position bigint)")


async def rows(ledger: Ledger) -> list[int]:
    return [row[0] for row in await ledger.pool.fetch("select position from seen order by 1")]


async def checkpoint(ledger: Ledger, name: str = "seen") -> int:
    position: int = await ledger.pool.fetchval(
        "select position from projection_checkpoint where ledger_id = $1 and projection = $2",
        ledger.ledger_id,
        name,
    )
    return position


async def write(ledger: Ledger, *labels: object) -> None:
    await ledger.append([fact(label) for label in labels])


async def test_every_event_is_folded_once_in_order_and_across_batches(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.running.runner.BATCH_EVENTS_MAX", 4)
    await write(ledger, *range(11))
    async with running(ledger, database_url, Seen()) as (runner,):
        await runner.wait_for(11, PATIENCE_S)
        await write(ledger, "more")
        await runner.wait_for(12, PATIENCE_S)
        assert (runner.position, runner.lag, runner.failure) == (12, 0, None)
    assert await rows(ledger) == list(range(1, 13))
    assert await checkpoint(ledger) == 12


async def test_what_has_gathered_is_folded_once_no_more_comes(
    ledger: Ledger, database_url: str
) -> None:
    await write(ledger, "first")
    async with running(ledger, database_url, Seen()) as (runner,):
        await until(lambda: runner.position == 1)
        runner._next_fold_at = float("inf")
        await write(ledger, *range(5))
        await until(lambda: runner.position == 6)
    assert await rows(ledger) == list(range(1, 7))


async def test_events_gather_while_they_pour_in(ledger: Ledger, database_url: str) -> None:
    async with running(ledger, database_url, Seen()) as (runner,):
        await write(ledger, "first")
        await until(lambda: runner.position == 1)
        runner._next_fold_at = float("inf")
        runner._silence_s = PATIENCE_S  # as after a fold that took so long
        await write(ledger, *range(5))
        await until(lambda: runner.lag == 5)
        assert await rows(ledger) == [1]
        await runner.wait_for(6, PATIENCE_S)  # somebody waits: no more gathering
    assert await rows(ledger) == list(range(1, 7))


async def test_a_projection_moves_past_events_it_does_not_want(
    ledger: Ledger, database_url: str
) -> None:
    await register(ledger)
    await write(ledger, 1)
    await register(ledger, "loop-2")
    async with running(ledger, database_url, SeenOfType()) as (runner,):
        await runner.wait_for(3, PATIENCE_S)
    assert await rows(ledger) == [2]
    assert await checkpoint(ledger, "seen-of-type") == 3


async def test_a_fold_that_raises_leaves_neither_rows_nor_checkpoint(
    ledger: Ledger, database_url: str
) -> None:
    Seen.poison = 1
    await write(ledger, *range(5))
    async with running(ledger, database_url, Seen()) as (runner,):
        await until(lambda: runner.failure is not None)
        assert (runner.position, await checkpoint(ledger), await rows(ledger)) == (0, 0, [])


@pytest.mark.parametrize("poison", [1, 2, 5, 40, 99, 100])
async def test_a_projection_stops_right_before_the_event_it_cannot_fold(
    ledger: Ledger, database_url: str, poison: int
) -> None:
    Seen.poison = poison
    await write(ledger, *range(100))
    async with running(ledger, database_url, Seen()) as (runner,):
        await until(lambda: runner.failure is not None)
        before = list(range(1, poison))
        assert (runner.position, await rows(ledger)) == (poison - 1, before)
        assert await checkpoint(ledger) == poison - 1
        told = runner.failure or ""
        assert told.startswith(f"ValueError: position {poison} cannot be folded")
        event = (await read_page(ledger, poison - 1, limit=1))[0]
        for words in (
            f"plant-1/{poison}, asset.setpoint_reported version 1 on asset:loop-1",
            str(event.event_id),
            "heddle rebuild seen",
            f"heddle erase {poison}",
        ):
            assert words in told
        Seen.poison = None
        await runner.wait_for(100, PATIENCE_S)
        await until(lambda: runner.failure is None)
    assert await rows(ledger) == list(range(1, 101))


async def test_a_poison_event_that_was_erased_is_passed_over(
    ledger: Ledger, database_url: str
) -> None:
    await register(ledger)
    malformed = replace(fact(1), payload=b"{}", payload_sha256=hashlib.sha256(b"{}").digest())
    await ledger.append([fact(0), malformed, fact(2)])
    async with running(ledger, database_url, TwinProjection(), Seen()) as (twins, seen):
        await seen.wait_for(4, PATIENCE_S)
        await until(lambda: twins.failure is not None)
        assert (twins.position, seen.failure) == (2, None)
        assert (twins.failure or "").startswith("MalformedFact: event.payload_malformed")
        await erase(
            ledger,
            [3],
            reason="nothing can read it",
            actor="user:mara",
            now=datetime.now(UTC),
            new_event_id=uuid.uuid4,
        )
        await twins.wait_for(5, PATIENCE_S)
        await until(lambda: twins.failure is None)


async def test_a_projection_that_stops_in_the_middle_goes_on_from_its_checkpoint(
    ledger: Ledger, database_url: str
) -> None:
    await write(ledger, 1, 2)
    async with running(ledger, database_url, Seen()) as (runner,):
        await runner.wait_for(2, PATIENCE_S)
        Seen.slow.clear()
        await write(ledger, 3)
        await until(lambda: runner.lag == 1)
    assert (await rows(ledger), await checkpoint(ledger)) == ([1, 2], 2)
    Seen.slow.set()
    async with running(ledger, database_url, Seen()) as (runner,):
        await runner.wait_for(3, PATIENCE_S)
    assert await rows(ledger) == [1, 2, 3]


async def test_a_poison_event_stops_its_projection_alone(ledger: Ledger, database_url: str) -> None:
    await register(ledger)
    poison = fact(1, type="asset.alert_raised", schema_version=9)
    await ledger.append([poison])
    async with running(ledger, database_url, AlertProjection(), RollupProjection()) as (
        alerts,
        rollups,
    ):
        await rollups.wait_for(2, PATIENCE_S)
        await until(lambda: alerts.failure is not None)
        assert alerts.failure is not None
        assert alerts.failure.startswith("UnknownEventType: event.unknown_version")
        assert (alerts.position, alerts.lag) == (1, 1)
        assert (rollups.failure, rollups.lag) == (None, 0)
        await write(ledger, 2)
        await rollups.wait_for(3, PATIENCE_S)
        await until(lambda: alerts.lag == 2)
        assert await rows(ledger) == []


async def test_an_event_of_an_unknown_type_stops_even_who_does_not_want_it(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(ledger, 1, 2)
    await ledger.append([fact(3, type="pump.enchanted", schema_version=4), fact(4)])
    async with running(ledger, database_url, SeenOfType()) as (runner,):
        # What lies before is folded; the checkpoint does not vouch for what nobody understood.
        await runner.wait_for(2, PATIENCE_S)
        await until(lambda: runner.failure is not None)
        assert runner.failure is not None
        assert runner.failure.startswith("UnknownEventType: event.unknown_type")
        for words in ("'pump.enchanted' (version 4)", "plant-1/3"):
            assert words in runner.failure
        assert await checkpoint(ledger, "seen-of-type") == 2
        # As after an upgrade.
        known = {**domain.events._BY_NAME, "pump.enchanted": type_of(AssetRetired("a", ""))}
        monkeypatch.setattr(domain.events, "_BY_NAME", known)
        await runner.wait_for(4, PATIENCE_S)
        await until(lambda: runner.failure is None)
    assert await rows(ledger) == [1, 2, 4]


async def test_a_repaired_projection_goes_on_and_its_failure_is_gone(
    ledger: Ledger, database_url: str
) -> None:
    Seen.poison = 1
    await write(ledger, 1)
    async with running(ledger, database_url, Seen()) as (runner,):
        await until(lambda: runner.failure is not None)
        Seen.poison = None
        await runner.wait_for(1, PATIENCE_S)
        await until(lambda: runner.failure is None)
    assert await rows(ledger) == [1]


async def test_a_failure_is_gone_once_somebody_else_has_folded_the_event(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.running.runner.IDLE_WAIT_S", 0.05)

    class Broken(Seen):
        poison: ClassVar[int | None] = 1

    async with running(ledger, database_url, Broken()) as (runner,):
        await write(ledger, 1)
        await until(lambda: runner.failure is not None)
        async with opened(database_url) as other, running(other, database_url, Seen()) as (sound,):
            await sound.wait_for(1, PATIENCE_S)
        await runner.wait_for(1, PATIENCE_S)
        await until(lambda: runner.failure is None)
    assert await rows(ledger) == [1]


async def test_two_runners_fold_every_event_once(ledger: Ledger, database_url: str) -> None:
    async with (
        opened(database_url) as other,
        running(ledger, database_url, Seen()) as (one,),
        running(other, database_url, Seen()) as (two,),
    ):
        for n in range(30):
            await write(ledger, f"a{n}", f"b{n}")
        await one.wait_for(60, PATIENCE_S)
        await two.wait_for(60, PATIENCE_S)
        assert (one.failure, two.failure) == (None, None)
    assert await rows(ledger) == list(range(1, 61))


# --- one active, the others stand by --------------------------------------------------------


async def test_one_folds_and_the_other_stands_by_and_takes_over(
    ledger: Ledger, database_url: str
) -> None:
    class Elsewhere(Seen):
        """Folds in another process, which must never happen while the first one is there."""

        async def fold(
            self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
        ) -> None:
            assert not active.active, "two fold at once"
            await super().fold(connection, ledger, events)

    async with opened(database_url) as other, running(ledger, database_url, Seen()) as (active,):
        await until(lambda: active.active)
        async with running(other, database_url, Elsewhere()) as (standby,):
            for n in range(20):
                await write(ledger, n)
                await standby.wait_for(n + 1, PATIENCE_S)
            assert (active.active, standby.active) == (True, False)
            assert (standby.position, standby.lag, standby.failure) == (20, 0, None)
            assert standby.rate_per_s > 0
            await active.close()
            await until(lambda: standby.active)
            await write(ledger, "after")
            await standby.wait_for(21, PATIENCE_S)
    assert await rows(ledger) == list(range(1, 22))


_FOLDING = """
import asyncio, sys
from eventlog.database import create_pool
from eventlog.ledger import Ledger
from eventlog.following.tail import Tail
from projections.running.runner import ProjectionRunner
from tests.projections.test_runner import Seen

async def main():
    pool = await create_pool(sys.argv[1])
    Seen.slow = asyncio.Event()
    Seen.slow.set()
    runner = ProjectionRunner(Seen(), Tail(await Ledger.open(pool, "plant-1"), sys.argv[1]))
    while True:
        await runner.wait_for(runner.position + 1, 3600)
        if runner.active:
            print(runner.position, flush=True)

asyncio.run(main())
"""


async def test_who_stands_by_takes_over_from_one_that_was_killed(
    ledger: Ledger, database_url: str
) -> None:
    async with process(_FOLDING, database_url) as killed:
        await write(ledger, "first")
        assert killed.stdout is not None
        assert await killed.stdout.readline() == b"1\n"
        async with running(ledger, database_url, Seen()) as (standby,):
            for n in range(2, 12):
                await write(ledger, n)
            await standby.wait_for(11, PATIENCE_S)
            assert (standby.active, standby.lag) == (False, 0)
            killed.send_signal(signal.SIGKILL)
            await write(ledger, "after")
            await standby.wait_for(12, PATIENCE_S)
            assert standby.active
    assert await rows(ledger) == list(range(1, 13))


async def test_who_lost_the_connection_of_its_locks_is_succeeded(
    ledger: Ledger, database_url: str
) -> None:
    async with (
        running(ledger, database_url, Seen()) as (one,),
        opened(database_url) as other,
    ):
        await until(lambda: one.active)
        async with running(other, database_url, Seen()) as (two,):
            one._locks.let_go(one._claim, for_s=3600.0)  # it will not be quicker to have it again
            await until(lambda: two.active)
            assert not one.active
            for n in range(5):
                await write(ledger, n)
                await one.wait_for(n + 1, PATIENCE_S)
            held = await other.pool.fetchval(
                "select pid from pg_locks where locktype = 'advisory' and granted and database = "
                "(select oid from pg_database where datname = current_database())"
            )
            assert await ledger.pool.fetchval("select pg_terminate_backend($1)", held)
            await until(lambda: not two.active)
            await until(lambda: two.active)  # nobody else wants it
            await write(ledger, "after")
            await one.wait_for(6, PATIENCE_S)
    assert await rows(ledger) == list(range(1, 7))


async def test_all_projections_of_a_process_hold_their_locks_on_one_connection(
    ledger: Ledger, database_url: str
) -> None:
    tail, locks = Tail(ledger, database_url), ActiveLocks(ledger.pool)
    runners = [
        ProjectionRunner(projection, tail, locks=locks)
        for projection in (Seen(), TwinProjection(), RollupProjection())
    ]
    try:
        await until(lambda: all(runner.active for runner in runners))
        holders = await ledger.pool.fetch(
            "select pid, count(*) from pg_locks where locktype = 'advisory' and granted and "
            "database = (select oid from pg_database where datname = current_database()) "
            "group by pid"
        )
        assert [row["count"] for row in holders] == [3]
        await runners[0].close()
        await until(lambda: runners[1].active)
        assert [runner.active for runner in runners] == [False, True, True]
    finally:
        for runner in runners:
            await runner.close()
        await locks.close()
        await tail.close()


async def test_a_runner_that_is_not_active_never_folds(ledger: Ledger, database_url: str) -> None:
    async with ledger.pool.acquire() as connection:
        key = lock_key("projection", ledger.ledger_id, "seen", 1)
        await connection.execute("select pg_advisory_lock($1)", key)
        async with running(ledger, database_url, Seen()) as (runner,):
            await write(ledger, 1)
            await until(lambda: runner.lag == 1)
            with pytest.raises(Unavailable):
                await runner.wait_for(1, timeout_s=1.5)
            assert (runner.active, await rows(ledger)) == (False, [])
            await connection.execute("select pg_advisory_unlock($1)", key)
            await runner.wait_for(1, PATIENCE_S)


# --- metrics ------------------------------------------------------------------------------


async def test_lag_rate_and_failure_are_told_as_metrics(ledger: Ledger, database_url: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkey = pytest.MonkeyPatch()
    monkey.setattr(metrics, "_measured", weakref.WeakSet())
    meter = provider.get_meter("heddle.projections")
    monkey.setattr(metrics, "meter", meter)
    metrics.make_gauges()
    try:
        await write(ledger, *range(6))
        Seen.poison = 5
        async with running(ledger, database_url, Seen()) as (runner,):
            await until(lambda: runner.failure is not None)
            data = reader.get_metrics_data()
            assert data is not None
            told = {
                metric.name: [
                    cast("NumberDataPoint", point).value for point in metric.data.data_points
                ]
                for resource in data.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }
            assert told["heddle.projection.position"] == [4]
            assert told["heddle.projection.lag"] == [2]
            assert told["heddle.projection.failed"] == [1]
            assert told["heddle.projection.rate"][0] > 0
    finally:
        monkey.undo()


async def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = Rate(100.0)
    assert rate.per_s(100.0) == 0
    rate.add(50, 100.5)
    rate.add(50, 109.0)
    assert rate.per_s(110.0) == 10.0
    assert rate.per_s(159.9) == pytest.approx(100 / 59.9)
    assert rate.per_s(165.0) == pytest.approx(50 / 60)
    assert rate.per_s(1000.0) == 0


# --- lost connections ---------------------------------------------------------------------


async def test_projections_survive_that_every_connection_is_cut(
    ledger: Ledger, database_url: str
) -> None:
    async with running(ledger, database_url, Seen(), TwinProjection()) as runners:
        async with opened(database_url) as other:
            for n in range(6):
                await write(other, n)
                await cut_connections(other.pool)
        head = 6
        await write(ledger, "after")
        for runner in runners:
            await runner.wait_for(head + 1, PATIENCE_S)
            await until(failure_gone(runner))
    assert await rows(ledger) == list(range(1, head + 2))
    assert await table(ledger, "twin_asset", "asset_id") == []


def failure_gone(runner: ProjectionRunner) -> Callable[[], bool]:
    return lambda: runner.failure is None


async def test_waiting_for_a_position_that_is_not_folded_in_time_says_so(
    ledger: Ledger, database_url: str
) -> None:
    await write(ledger, 1)
    async with running(ledger, database_url, Seen()) as (runner,):
        await runner.wait_for(1, PATIENCE_S)
        with pytest.raises(Unavailable) as behind:
            await runner.wait_for(2, timeout_s=0.05)
    error = behind.value
    assert (error.code, error.value, error.limit) == ("projection.behind", 2, 1)
    assert "'seen' is at 1, not yet at 2" in error.message


async def test_whoever_waits_is_woken_when_the_position_is_reached(
    ledger: Ledger, database_url: str
) -> None:
    async with running(ledger, database_url, Seen()) as (runner,):
        waiting: list[Awaitable[None]] = [
            asyncio.create_task(runner.wait_for(n, PATIENCE_S)) for n in (1, 2, 3)
        ]
        await write(ledger, 1, 2, 3)
        await asyncio.gather(*waiting)
        await runner.wait_for(0, timeout_s=0.0)
