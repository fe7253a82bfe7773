"""The runner: rows and checkpoint together, and a projection that cannot go on says so alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

import pytest

import domain.events
from domain.asset import AssetRetired
from domain.errors import Unavailable
from domain.events import type_of
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.alerts import AlertProjection
from projections.rollups import RollupProjection
from projections.runner import ProjectionRunner
from projections.twins import TwinProjection
from tests.eventlog.new_events import cut_connections, fact, opened
from tests.projections.loop_frames import PATIENCE_S, register, running, table

pytestmark = pytest.mark.anyio


class Seen:
    """A projection that keeps each position it is given, and stumbles where it is told to."""

    name: ClassVar[str] = "seen"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = None
    payloads: ClassVar[PayloadOf] = PayloadOf.NONE

    def __init__(self) -> None:
        self.poison: int | None = None
        self.slow = asyncio.Event()
        self.slow.set()

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
    monkeypatch.setattr("projections.runner.FAILED_RETRY_DELAY_S", 0.05)
    monkeypatch.setattr("projections.runner.RETRY_DELAY_S", 0.05)
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


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def write(ledger: Ledger, *labels: object) -> None:
    await ledger.append([fact(label) for label in labels])


async def test_every_event_is_folded_once_in_order_and_across_batches(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.BATCH_EVENTS_MAX", 4)
    await write(ledger, *range(11))
    async with running(ledger, database_url, Seen()) as (runner,):
        await runner.wait_for(11, PATIENCE_S)
        await write(ledger, "more")
        await runner.wait_for(12, PATIENCE_S)
        assert (runner.position, runner.lag, runner.failure) == (12, 0, None)
    assert await rows(ledger) == list(range(1, 13))
    assert await checkpoint(ledger) == 12


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
    seen = Seen()
    seen.poison = 3
    await write(ledger, *range(5))
    async with running(ledger, database_url, seen) as (runner,):
        await until(lambda: runner.failure is not None)
        assert runner.failure == "ValueError: position 3 cannot be folded"
        assert (runner.position, await checkpoint(ledger), await rows(ledger)) == (0, 0, [])


async def test_a_projection_that_stops_in_the_middle_goes_on_from_its_checkpoint(
    ledger: Ledger, database_url: str
) -> None:
    seen = Seen()
    await write(ledger, 1, 2)
    async with running(ledger, database_url, seen) as (runner,):
        await runner.wait_for(2, PATIENCE_S)
        seen.slow.clear()
        await write(ledger, 3)
        await until(lambda: runner.lag == 1)
    assert (await rows(ledger), await checkpoint(ledger)) == ([1, 2], 2)
    seen.slow.set()
    async with running(ledger, database_url, seen) as (runner,):
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
        assert (alerts.position, alerts.lag) == (0, 2)
        assert (rollups.failure, rollups.lag) == (None, 0)
        await write(ledger, 2)
        await rollups.wait_for(3, PATIENCE_S)
        await until(lambda: alerts.lag == 3)
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
    seen = Seen()
    seen.poison = 1
    await write(ledger, 1)
    async with running(ledger, database_url, seen) as (runner,):
        await until(lambda: runner.failure is not None)
        seen.poison = None
        await runner.wait_for(1, PATIENCE_S)
        await until(lambda: runner.failure is None)
    assert await rows(ledger) == [1]


async def test_a_failure_is_gone_once_somebody_else_has_folded_the_event(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.runner.IDLE_WAIT_S", 0.05)
    broken = Seen()
    broken.poison = 1
    async with running(ledger, database_url, broken) as (runner,):
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


async def test_a_new_version_folds_from_the_start_beside_the_old_one(
    ledger: Ledger, database_url: str
) -> None:
    class Newer(Seen):
        version: ClassVar[int] = 2

    await write(ledger, 1, 2)
    for projection in (Seen(), Newer()):
        async with running(ledger, database_url, projection) as (runner,):
            await runner.wait_for(2, PATIENCE_S)
    assert await rows(ledger) == [1, 1, 2, 2]


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
