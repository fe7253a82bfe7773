"""The limit of recording frames: bare COPY of the same rows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from eventlog.database import Connection
from eventlog.envelope import NewEvent


async def copy_frames(connection: Connection, events: Sequence[NewEvent], at_once: int) -> float:
    """Return readings/s of COPY of ready-made rows into a table with a key on the position.

    Parameters
    ----------
    at_once : frames a transaction
    """
    rows, reading_count = [], 0
    for position, event in enumerate(events, 1):
        window = event.window
        assert window is not None, "a frame has a window"
        reading_count += window.reading_count
        rows.append(
            (
                *(position, event.stream, position, event.event_id, event.occurred_at),
                *(event.payload_sha256, event.payload_sha256, window.start_ns, window.end_ns),
                *(window.statistics, event.payload),
            )
        )
    await connection.execute(
        "create table bare (position bigint primary key, stream text, version bigint, "
        "event_id uuid, occurred_at timestamptz, payload_sha256 bytea, leaf_hash bytea, "
        "window_start_ns bigint, window_end_ns bigint, statistics bytea, payload bytea)"
    )
    await connection.execute("alter table bare alter column payload set storage external")
    started = time.perf_counter()
    for at in range(0, len(rows), at_once):
        await connection.copy_records_to_table("bare", records=rows[at : at + at_once])
    elapsed_s = time.perf_counter() - started
    await connection.execute("drop table bare")
    return reading_count / elapsed_s
