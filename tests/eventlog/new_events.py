"""Events for tests of the log: cheap to make, and the same label always gives the same event."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from domain.asset import SetpointReported
from domain.frames import ChannelHeader, Frame, FrameHeader, build_frame
from eventlog.database import Pool, create_pool
from eventlog.envelope import NewEvent, new_fact, new_frame
from eventlog.ledger import Ledger

OCCURRED_AT = datetime(2020, 3, 9, 10, 34, 33, 123456, tzinfo=UTC)
_NAMESPACE = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def fact(label: object, stream: str = "asset:loop-1", **changes: Any) -> NewEvent:
    """Return a fact on `stream` whose id and content follow from `label`."""
    event = new_fact(
        stream,
        SetpointReported("loop-1", str(label), 1.0),
        event_id=uuid.uuid5(_NAMESPACE, str(label)),
        occurred_at=OCCURRED_AT,
        actor="user:mara",
    )
    return replace(event, **changes)


def frame_of(sequence: int, agent: str = "agent-1", start_ns: int = 0, length: int = 5) -> Frame:
    """Return a frame of one channel whose values follow from `sequence`."""
    header = FrameHeader("loop-1", agent, (ChannelHeader("supply_voltage", "V", 1.0, 0.0),))
    times = start_ns + np.arange(length, dtype=np.int64) * 1_000
    values = np.arange(length) + sequence / 8
    return build_frame(header, sequence, [times], [values], [None])


def frame_event(frame: Frame, label: object | None = None) -> NewEvent:
    """Return the event for `frame`; without a `label` its id follows from agent and sequence."""
    named = f"{frame.header.agent}/{frame.sequence}" if label is None else str(label)
    return new_frame(
        "telemetry:loop-1",
        frame,
        event_id=uuid.uuid5(_NAMESPACE, named),
        occurred_at=OCCURRED_AT,
    )


@asynccontextmanager
async def opened(database_url: str, name: str = "plant-1") -> AsyncIterator[Ledger]:
    """Open a ledger on connections of its own, as another process would."""
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, name)
    try:
        yield ledger
    finally:
        await ledger.close()
        await pool.close()


async def cut_connections(pool: Pool) -> int:
    """Have the server end every other connection to this database; return how many."""
    cut: int = await pool.fetchval(
        """
        select count(*) from (
            select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()
                and backend_type = 'client backend'
        ) as ended
        """
    )
    return cut
