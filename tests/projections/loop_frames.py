"""Frames of a pump loop for tests of projections, and the two ways to have them folded."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from domain.asset import AssetCommand, RegisterAsset, telemetry_stream
from domain.asset_types import asset_type
from domain.frames import (
    ChannelHeader,
    Column,
    Frame,
    FrameHeader,
    IntArray,
    build_frame,
    time_from_ns,
)
from domain.units import unit
from eventlog.commands import Handled, handle
from eventlog.database import Pool
from eventlog.envelope import new_frame
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from projections.running.runner import Projection, ProjectionRunner
from tests.recordings import SKAB_COLUMNS, read_skab

LOOP: Final = "loop-1"
PUMP_LOOP: Final = asset_type("skab-pump-loop")
UNITS: Final = dict(SKAB_COLUMNS.values())
SECOND_NS: Final = 1_000_000_000
PATIENCE_S: Final = 60.0
NOON: Final = datetime(2020, 3, 9, 12, 0, tzinfo=UTC)
NOON_S: Final = int(NOON.timestamp())
_NAMESPACE = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def loop_frame(
    sequence: int,
    times_ns: Column | Sequence[int],
    columns: Mapping[str, Sequence[float] | Column],
    *,
    agent: str = "agent-1",
    asset: str = LOOP,
    qualities: Mapping[str, Sequence[int] | Column] | None = None,
    second_clock: Mapping[str, tuple[Sequence[int] | Column, Sequence[float] | Column]]
    | None = None,
) -> Frame:
    """Return a frame whose `columns` hold values in the units a sensor of SKAB delivers.

    Parameters
    ----------
    second_clock : channels that share another clock: (times_ns, values)
    """
    others = second_clock or {}
    header = FrameHeader(
        asset,
        agent,
        tuple(
            ChannelHeader(
                name,
                UNITS[name],
                unit(UNITS[name]).factor,
                unit(UNITS[name]).offset,
                clock=int(name in others),
            )
            for name in (*columns, *others)
        ),
        clock_count=2 if others else 1,
    )
    clocks = [np.asarray(times_ns, np.int64)]
    clocks += [np.asarray(times, np.int64) for times, _ in list(others.values())[:1]]
    values = [*columns.values(), *(values for _, values in others.values())]
    masks = qualities or {}
    return build_frame(
        header,
        sequence,
        clocks,
        [np.asarray(column, np.float64) for column in values],
        [
            np.asarray(masks[name], np.uint8) if name in masks else None
            for name in (*columns, *others)
        ],
    )


def seconds_ns(*seconds: float) -> IntArray:
    """Return `seconds` after noon as ns since 1970 UTC."""
    return np.array([NOON_S * SECOND_NS + round(s * SECOND_NS) for s in seconds], np.int64)


def si(channel: str, values: Sequence[float] | Column) -> Column:
    """Return `values` of `channel`, as delivered, in SI."""
    delivered = unit(UNITS[channel])
    return np.asarray(values, np.float64) * delivered.factor + delivered.offset


def skab_frames(name: str, length: int) -> list[Frame]:
    """Return the recording `name` in frames of `length` readings a channel."""
    recording = read_skab(name)
    return [
        loop_frame(
            n + 1,
            recording.times_ns[at : at + length],
            {c: column[at : at + length] for c, column in recording.values.items()},
        )
        for n, at in enumerate(range(0, len(recording.times_ns), length))
    ]


# --- the log ------------------------------------------------------------------------------


async def told(ledger: Ledger, command: AssetCommand, at: datetime = NOON) -> Handled:
    """Have `command` decided and recorded."""
    return await handle(
        ledger, command, actor="user:mara", occurred_at=at, event_id=lambda _: uuid.uuid4()
    )


async def register(ledger: Ledger, asset_id: str = LOOP) -> None:
    """Make a pump loop known."""
    await told(ledger, RegisterAsset(asset_id, PUMP_LOOP.name, "Loop 1"))


async def record(ledger: Ledger, frames: Sequence[Frame]) -> None:
    """Append `frames` in their order."""
    events = [
        new_frame(
            telemetry_stream(frame.header.asset),
            frame,
            event_id=uuid.uuid5(_NAMESPACE, f"{frame.header.agent}/{frame.sequence}"),
            occurred_at=time_from_ns(frame.window_end_ns),
        )
        for frame in frames
    ]
    for at in range(0, len(events), 500):
        await ledger.append(events[at : at + 500])


# --- folding ------------------------------------------------------------------------------


async def fold(
    ledger: Ledger, projection: Projection, batch: int = 1000, *, after: int = 0
) -> None:
    """Fold the log beyond `after` in transactions of `batch` events, as the runner does."""
    types = projection.types
    while page := await read_page(ledger, after, limit=batch, payloads=projection.payloads):
        async with ledger.pool.acquire() as connection, connection.transaction():
            await projection.fold(
                connection, ledger, [e for e in page if types is None or e.type in types]
            )
        after = page[-1].position


@asynccontextmanager
async def running(
    ledger: Ledger, database_url: str, *projections: Projection
) -> AsyncIterator[list[ProjectionRunner]]:
    """Run `projections` on a tail of their own."""
    tail = Tail(ledger, database_url)
    runners = [ProjectionRunner(projection, tail) for projection in projections]
    try:
        yield runners
    finally:
        for runner in runners:
            await runner.close()
        await tail.close()


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def process(script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python in a process of its own, and end it."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def fresh_ledgers(pool: Pool, count: int) -> list[Ledger]:
    """Return `count` empty ledgers with names of their own; the caller closes them."""
    return [await Ledger.open(pool, f"plant-{uuid.uuid4().hex}") for _ in range(count)]


async def table(ledger: Ledger, name: str, order: str) -> list[tuple[Any, ...]]:
    """Return the rows of `ledger` in a projection's table, without the ledger's number."""
    rows = await ledger.pool.fetch(
        f"select * from {name} where ledger_id = $1 order by {order}", ledger.ledger_id
    )
    return [tuple(value for key, value in row.items() if key != "ledger_id") for row in rows]
