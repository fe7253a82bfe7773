"""Missing data: one alert a silence, whoever watches; cleared when the asset is heard again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.asset import AlertCleared, AlertRaised, CommissionAsset, RaiseAlert, RetireAsset
from domain.asset_model import EVERY_CHANNEL, Severity
from domain.errors import Unavailable
from eventlog.commands import handle
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, read_page
from projections.alerts import missing_data
from projections.alerts.missing_data import ACTOR, RULE, MissingDataPolicy, SilenceWatch, alert_of
from projections.running.runner import ProjectionRunner
from tests.eventlog.new_events import opened
from tests.projections.loop_frames import (
    LOOP,
    PATIENCE_S,
    PUMP_LOOP,
    fold,
    loop_frame,
    record,
    register,
    running,
    seconds_ns,
    table,
    told,
)

pytestmark = pytest.mark.anyio

LIMIT = timedelta(seconds=PUMP_LOOP.stale_after_s)
MOMENT = timedelta(milliseconds=1)


@dataclass
class Clock:
    """A clock that goes when it is told to."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.at


async def in_service(ledger: Ledger, asset_id: str = LOOP) -> None:
    await register(ledger, asset_id)
    await told(ledger, CommissionAsset(asset_id), datetime.now(UTC))


async def say(ledger: Ledger, sequence: int, asset_id: str = LOOP) -> None:
    """Have a frame of `asset_id` recorded."""
    frame = loop_frame(
        sequence, seconds_ns(sequence), {"flow": [32.0]}, asset=asset_id, agent=asset_id
    )
    await record(ledger, [frame])


async def heard_at(ledger: Ledger) -> tuple[datetime, int]:
    """Return when and where the log's last event was recorded."""
    last = (await read_page(ledger, 0, limit=1000))[-1]
    return last.recorded_at, last.position


async def outcomes(ledger: Ledger) -> list[tuple[str, str]]:
    """Return (kind, asset) of every alert event in the log, in its order."""
    wanted = EventFilter(types=("asset.alert_raised", "asset.alert_cleared"))
    return [
        ("raised" if isinstance(event.fact, AlertRaised) else "cleared", event.fact.asset_id)
        for event in await read_page(ledger, 0, wanted=wanted)
    ]


@asynccontextmanager
async def watched(
    ledger: Ledger, database_url: str, clock: Clock
) -> AsyncIterator[tuple[SilenceWatch, ProjectionRunner]]:
    async with running(ledger, database_url, MissingDataPolicy()) as (runner,):
        yield SilenceWatch(ledger, runner, clock), runner


async def caught_up(ledger: Ledger, runner: ProjectionRunner) -> None:
    await runner.wait_for(await ledger.head(), PATIENCE_S)
    assert runner.failure is None


async def test_a_silent_asset_raises_one_alert_and_clears_it_when_it_is_heard(
    ledger: Ledger, database_url: str
) -> None:
    clock = Clock(datetime.now(UTC) - timedelta(hours=1))
    await in_service(ledger)
    await say(ledger, 1)
    at, position = await heard_at(ledger)
    async with watched(ledger, database_url, clock) as (watch, runner):
        clock.at = at + LIMIT
        assert await watch.look() == 0
        clock.at = at + LIMIT + MOMENT
        assert await watch.look() == 1
        assert await watch.look() == 0
        raised = (await read_page(ledger, 0, limit=1000))[-1]
        assert raised.fact == AlertRaised(
            LOOP,
            alert_of(ledger, LOOP, at, position),
            RULE,
            Severity.WARNING,
            EVERY_CHANNEL.name,
            LIMIT.total_seconds(),
            LIMIT.total_seconds(),
            at,
            "nothing was heard for more than 180 s",
        )
        assert (raised.occurred_at, raised.actor) == (at + LIMIT, ACTOR)
        await say(ledger, 2)
        frame = (await read_page(ledger, 0, limit=1000))[-1]
        await caught_up(ledger, runner)
        cleared = (await read_page(ledger, 0, limit=1000))[-1]
        assert cleared.fact == AlertCleared(LOOP, raised.fact.alert_id, 0.0)
        assert cleared.causation_id == frame.event_id
        clock.at = frame.recorded_at + LIMIT + MOMENT
        assert await watch.look() == 1
    assert await outcomes(ledger) == [("raised", LOOP), ("cleared", LOOP), ("raised", LOOP)]


async def test_an_asset_that_never_spoke_is_silent_since_its_commissioning(
    ledger: Ledger, database_url: str
) -> None:
    clock = Clock(datetime.now(UTC) - timedelta(hours=1))
    await in_service(ledger)
    at, _ = await heard_at(ledger)
    async with watched(ledger, database_url, clock) as (watch, _runner):
        clock.at = at + LIMIT
        assert await watch.look() == 0
        clock.at += MOMENT
        assert await watch.look() == 1


async def test_only_what_is_in_service_is_missed(ledger: Ledger, database_url: str) -> None:
    clock = Clock(datetime.now(UTC) - timedelta(hours=1))
    await register(ledger, "loop-2")
    await say(ledger, 1, "loop-2")
    await in_service(ledger, "loop-3")
    await told(ledger, RetireAsset("loop-3", "sold"))
    async with watched(ledger, database_url, clock) as (watch, _runner):
        clock.at += timedelta(days=1)
        assert await watch.look() == 0
    assert [row[0] for row in await table(ledger, "telemetry_silence", "asset_id")] == ["loop-2"]


async def test_an_asset_of_an_imported_past_is_waited_for_once_it_has_spoken(
    ledger: Ledger, database_url: str
) -> None:
    clock = Clock(datetime.now(UTC) - timedelta(hours=1))
    await register(ledger)
    await told(ledger, CommissionAsset(LOOP), datetime.now(UTC) - timedelta(days=8))
    async with watched(ledger, database_url, clock) as (watch, _runner):
        clock.at += timedelta(days=1)
        assert await watch.look() == 0
        await say(ledger, 1)
        assert await watch.look() == 1


async def test_while_nobody_watched_nobody_was_silent(ledger: Ledger, database_url: str) -> None:
    await in_service(ledger)
    clock = Clock(datetime.now(UTC) + timedelta(days=1))
    began = clock.at
    async with watched(ledger, database_url, clock) as (watch, _runner):
        clock.at = began + LIMIT
        assert await watch.look() == 0
        clock.at += MOMENT
        assert await watch.look() == 1
    assert (await read_page(ledger, 0, limit=1000))[-1].occurred_at == began + LIMIT


async def test_processes_that_watch_at_once_raise_one_alert(
    ledger: Ledger, database_url: str
) -> None:
    await in_service(ledger)
    early = Clock(datetime.now(UTC) - timedelta(hours=2))
    late = Clock(datetime.now(UTC) + timedelta(minutes=5))
    async with (
        opened(database_url) as other,
        watched(ledger, database_url, early) as (one, _),
        watched(other, database_url, late) as (two, _),
    ):
        early.at = late.at = late.at + LIMIT + timedelta(minutes=1)
        await asyncio.gather(*(watch.look() for watch in (one, two) * 3))
        assert await outcomes(ledger) == [("raised", LOOP)]


async def test_an_alert_that_was_overtaken_by_a_frame_is_cleared(ledger: Ledger) -> None:
    await in_service(ledger)
    at, position = await heard_at(ledger)
    await say(ledger, 1)
    outdated = alert_of(ledger, LOOP, at, position)
    await told_by_policy(ledger, outdated)
    await fold(ledger, MissingDataPolicy())
    assert await outcomes(ledger) == [("raised", LOOP), ("cleared", LOOP)]
    (row,) = await table(ledger, "telemetry_silence", "asset_id")
    assert row[-1] is None


async def told_by_policy(ledger: Ledger, alert_id: uuid.UUID) -> None:
    """Have the alert raised as a watch raises it."""
    command = RaiseAlert(
        LOOP, alert_id, RULE, Severity.WARNING, "*", 180.0, 180.0, datetime.now(UTC), "silent"
    )
    await handle(
        ledger,
        command,
        actor=ACTOR,
        occurred_at=datetime.now(UTC),
        event_id=lambda _: uuid.uuid4(),
    )


async def story(ledger: Ledger) -> None:
    """Have an asset speak, be missed, and speak again; another one is missed still."""
    await in_service(ledger)
    await say(ledger, 1)
    await told_by_policy(ledger, alert_of(ledger, LOOP, *await heard_at(ledger)))
    await say(ledger, 2)
    await in_service(ledger, "loop-2")


@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_folding_again_after_a_crash_commands_nothing_twice(
    ledger: Ledger, batch: int
) -> None:
    await story(ledger)
    page = await read_page(ledger, 0, limit=1000)
    types = MissingDataPolicy.types or ()

    async def fold_and_lose() -> None:
        async with ledger.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            wanted: list[Any] = [event for event in page if event.type in types]
            await MissingDataPolicy().fold(connection, ledger, wanted)
            await transaction.rollback()

    await fold_and_lose()
    assert await outcomes(ledger) == [("raised", LOOP), ("cleared", LOOP)]
    assert await table(ledger, "telemetry_silence", "asset_id") == []
    head = await ledger.head()
    await fold_and_lose()
    await fold(ledger, MissingDataPolicy(), batch)
    assert await ledger.head() == head
    rows = await table(ledger, "telemetry_silence", "asset_id")
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        (LOOP, True, None),
        ("loop-2", True, None),
    ]


async def test_one_look_raises_a_bounded_number_longest_silent_first(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_data, "ALERTS_AT_ONCE_MAX", 2)
    clock = Clock(datetime.now(UTC) - timedelta(hours=1))
    for n in (3, 1, 2):
        await in_service(ledger, f"loop-{n}")
    async with watched(ledger, database_url, clock) as (watch, _runner):
        clock.at += timedelta(days=1)
        assert [await watch.look() for _ in range(3)] == [2, 1, 0]
    assert [asset for _, asset in await outcomes(ledger)] == ["loop-3", "loop-1", "loop-2"]


async def test_nothing_is_judged_while_the_log_is_not_read(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_data, "FOLD_TIMEOUT_S", 0.05)
    await in_service(ledger)
    clock = Clock(datetime.now(UTC) - timedelta(hours=1))
    async with watched(ledger, database_url, clock) as (watch, runner):
        await caught_up(ledger, runner)
        await runner.close()
        await say(ledger, 1)
        clock.at += timedelta(days=1)
        with pytest.raises(Unavailable) as behind:
            await watch.look()
        assert behind.value.code == "projection.behind"
    assert await outcomes(ledger) == []


async def test_it_looks_by_itself(ledger: Ledger, database_url: str) -> None:
    await in_service(ledger)
    clock = Clock(datetime.now(UTC) - timedelta(hours=1))
    looked = asyncio.Event()

    class Telling(SilenceWatch):
        async def look(self) -> int:
            try:
                return await super().look()
            finally:
                looked.set()

    async with running(ledger, database_url, MissingDataPolicy()) as (runner,):
        watch = Telling(ledger, runner, clock)
        clock.at += timedelta(days=1)
        watch.start(interval_s=0.01)
        async with asyncio.timeout(PATIENCE_S):
            await looked.wait()
        await watch.close()
    assert watch.failure is None
    assert await outcomes(ledger) == [("raised", LOOP)]
