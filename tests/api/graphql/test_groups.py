"""A group on a log that is made up: whoever comes, lags and goes is told of each event once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from api.access.identity import LOCAL_ADMIN
from api.graphql import groups
from api.graphql.changes import cursor_at
from api.graphql.context import OperationContext, Told
from api.graphql.events.types import CURSOR_KIND
from api.graphql.groups import Group
from api.graphql.messages import Batch
from api.graphql.operations import Operation, OperationRequest, Payload
from api.graphql.relay import decode_position_cursor
from api.graphql.scalars import Cursor
from api.graphql.subscribers import Counts, Subscriber
from domain.errors import Unavailable
from eventlog.database import ConnectionLost

pytestmark = pytest.mark.anyio

LEDGER = "plant-1"
LAST = 300


@dataclass
class MadeUpLog:
    """Positions 1, 2, 3 …, of which each third is of no interest to anybody."""

    rng: random.Random
    lasts: bool
    gathered_max: int
    position: int = 0
    name: str = LEDGER
    is_away: bool = False
    executions: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ledger(self) -> MadeUpLog:
        return self

    async def head(self) -> int:
        await asyncio.sleep(0)
        if self.is_away:
            raise ConnectionLost("away")
        return self.position

    def grow(self, count: int) -> None:
        self.position += count
        self.grown.set()
        self.grown = asyncio.Event()

    async def results(self, operation: Operation) -> AsyncGenerator[Payload, None]:
        """Tell of the events beyond the cursor, as the subscriptions of the API do."""
        context = operation.context
        self.executions += 1
        head = await self.head()
        done = head
        if context.resume_after is not None:
            done = decode_position_cursor(context.resume_after, CURSOR_KIND, LEDGER)
        context.told = Told(done, done)
        while context.up_to is None or done < context.up_to:
            end = self.position if context.up_to is None else min(self.position, context.up_to)
            found = [n for n in range(done + 1, end + 1) if n % 3]
            found = found[: self.rng.randint(1, self.gathered_max)]
            if not found:
                if context.up_to is not None and end >= context.up_to:
                    return
                await self.grown.wait()
                continue
            if self.rng.random() < 0.5:
                await asyncio.sleep(self.rng.random() * 0.003)
            done = found[-1]
            context.told = Told(found[0], done, self.lasts)
            yield {"data": {"positions": found}}


@dataclass
class MadeUpLine:
    """Takes what it is given, and often enough wants a rest."""

    rng: random.Random
    slowness: float
    told: list[int] = field(default_factory=list)
    is_open: bool = True
    rests: bool = False

    def write(self, batch: Batch) -> bool:
        assert not self.rests, "it is written to without room"
        for message in batch.messages:
            self.told += orjson.loads(message.payload)["data"]["positions"]
        self.rests = self.rng.random() < self.slowness
        return not self.rests

    async def room(self) -> None:
        if self.rests:
            await asyncio.sleep(self.rng.random() * 0.005)
            self.rests = False


def subscriber_of(log: MadeUpLog, line: MadeUpLine, after: int | None) -> Subscriber:
    services = cast("Any", SimpleNamespace(ledger=log, tail=log))
    context = OperationContext(services, LOCAL_ADMIN, cast("Any", None))
    if after is not None:
        context.resume_after = Cursor(cursor_at(context, after))
    operation = Operation(OperationRequest("subscription"), cast("Any", None), context, {}, 1)
    return Subscriber(operation, line)


def wanted(after: int, last: int = LAST) -> list[int]:
    return [n for n in range(after + 1, last + 1) if n % 3]


async def until_told(line: MadeUpLine, last: int) -> None:
    async with asyncio.timeout(20):
        while not line.told or line.told[-1] < last:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("seed", range(16))
async def test_each_event_is_told_once_and_in_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    log = MadeUpLog(rng, lasts=bool(seed % 2), gathered_max=rng.choice((1, 4, 30)))
    monkeypatch.setattr(groups, "KEPT_MESSAGES_MAX", rng.choice((3, 50, 1_000)))
    monkeypatch.setattr(groups, "WRITES_AT_ONCE_MAX", rng.choice((1, 3, 500)))
    monkeypatch.setattr(groups, "PENDING_MESSAGES_MAX", rng.choice((1, 4, 64)))
    monkeypatch.setattr(groups, "PIECE_BYTES_MAX", rng.choice((1, 100, 100_000)))
    group = Group(log.results, Counts())
    log.grow(rng.randint(0, 40))
    slow = (0.0, 0.02, 0.3, 0.9)

    async def follow(line: MadeUpLine, after: int) -> None:
        task = asyncio.create_task(group.serve(subscriber_of(log, line, after)))
        try:
            await until_told(line, wanted(0)[-1])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def pass_by(line: MadeUpLine) -> None:
        task = asyncio.create_task(group.serve(subscriber_of(log, line, None)))
        await asyncio.sleep(rng.random() * 0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    followers: list[tuple[int, MadeUpLine]] = []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            line, after = MadeUpLine(rng, rng.choice(slow)), rng.randint(0, log.position)
            followers.append((after, line))
            tasks.create_task(follow(line, after))
            if rng.random() < 0.5:
                passer_by = MadeUpLine(rng, rng.choice(slow))
                tasks.create_task(pass_by(passer_by))
            await asyncio.sleep(rng.random() * 0.02)
            log.grow(min(rng.randint(0, 25), LAST - log.position))
        while log.position < LAST:
            await asyncio.sleep(rng.random() * 0.01)
            log.grow(min(rng.randint(1, 8), LAST - log.position))

    for after, line in followers:
        assert line.told == wanted(after)
    assert len(group) == group.live == 0


async def settle(group: Group, live: int) -> None:
    async with asyncio.timeout(20):
        while group.live != live:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_group_begins_where_the_log_ends_however_far_its_first_was_behind() -> None:
    rng = random.Random(1)
    log = MadeUpLog(rng, True, 1)
    log.grow(LAST)
    counts = Counts()
    group = Group(log.results, counts)
    behind, current = MadeUpLine(rng, 0.0), MadeUpLine(rng, 0.0)
    tasks = [asyncio.create_task(group.serve(subscriber_of(log, behind, 0)))]
    while not behind.told:  # noqa: ASYNC110
        await asyncio.sleep(0)
    # Who is at the end has not to wait for who reads the whole log.
    tasks.append(asyncio.create_task(group.serve(subscriber_of(log, current, None))))
    await settle(group, 1)
    assert behind.told[-1] < LAST - 100
    log.grow(1)
    await until_told(current, LAST + 1)
    await until_told(behind, LAST + 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert current.told == [LAST + 1]
    assert behind.told == wanted(0, LAST + 1)


async def test_shared_execution_ends_with_the_last_who_is_told() -> None:
    rng = random.Random(2)
    log = MadeUpLog(rng, True, 1)
    group = Group(log.results, Counts())
    lines = [MadeUpLine(rng, 0.0) for _ in range(3)]
    tasks = [asyncio.create_task(group.serve(subscriber_of(log, line, 0))) for line in lines]
    await settle(group, 3)
    for left in (2, 1, 0):
        tasks.pop().cancel()
        await settle(group, left)
    await asyncio.sleep(0)
    executions = log.executions
    log.grow(5)
    await asyncio.sleep(0.01)

    assert all(task.get_name() != "subscription" for task in asyncio.all_tasks())
    assert log.executions == executions
    assert [line.told for line in lines] == [[]] * 3


async def test_who_falls_behind_by_little_is_told_what_was_kept_for_him() -> None:
    rng = random.Random(5)
    log = MadeUpLog(rng, True, 1)
    group = Group(log.results, Counts())
    quick, tired = MadeUpLine(rng, 0.0), MadeUpLine(rng, 0.0)
    tasks = [
        asyncio.create_task(group.serve(subscriber_of(log, line, 0))) for line in (quick, tired)
    ]
    await settle(group, 2)
    executions = log.executions
    rested = asyncio.Event()
    tired.slowness, tired.room = 1.0, rested.wait  # type: ignore[assignment,method-assign]
    log.grow(1)
    await settle(group, 1)
    log.grow(30)
    await until_told(quick, 31)
    tired.slowness, tired.rests = 0.0, False
    rested.set()
    await settle(group, 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert tired.told == quick.told == wanted(0, 31)
    assert log.executions == executions


async def test_everybody_is_told_where_he_resumes_when_the_log_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "RETRIES_MAX", 2)
    monkeypatch.setattr(groups, "RETRY_DELAY_S", 0.001)
    rng = random.Random(3)
    log = MadeUpLog(rng, True, 1)
    log.grow(9)
    group = Group(log.results, Counts())
    slow = subscriber_of(log, MadeUpLine(rng, 0.0), 3)
    slow.after = 3  # he has fallen behind, and reads for himself
    log.is_away = True

    with pytest.raises(Unavailable) as caught:
        await group.serve(slow)

    assert caught.value.code == "log.unavailable"
    assert decode_position_cursor(caught.value.value, CURSOR_KIND, LEDGER) == 3


async def test_who_is_told_by_the_group_gets_his_own_cursor_with_its_failure() -> None:
    rng = random.Random(4)
    log = MadeUpLog(rng, True, 1)
    broken = asyncio.Event()

    async def results(operation: Operation) -> AsyncGenerator[Payload, None]:
        if operation.context.up_to is not None:
            async for payload in log.results(operation):
                yield payload
            return
        await broken.wait()
        raise Unavailable("projection.behind", "it is", value="the group's own")

    group = Group(results, Counts())
    tasks = []
    for after in (0, 2):
        log.grow(2)
        line = MadeUpLine(rng, 0.0)
        tasks.append(asyncio.create_task(group.serve(subscriber_of(log, line, None))))
        await settle(group, len(tasks))
        assert after + 2 == log.position
    broken.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    told = [cast("Unavailable", error).value for error in ended]
    assert [decode_position_cursor(value, CURSOR_KIND, LEDGER) for value in told] == [2, 4]
