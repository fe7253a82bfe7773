"""A log that the first release wrote, brought to the newest schema."""

from __future__ import annotations

import asyncio
import json
import struct
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from domain.errors import Conflict
from domain.events import FRAME_RECORDED, format_time
from domain.frame_decoding import decode
from domain.frame_statistics import unpack_statistics
from eventlog.database import create_pool
from eventlog.envelope import FrameWindow, NewEvent, leaf_entry
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from eventlog.transparency.merkle import EMPTY_ROOT, Frontier, leaf_hash
from eventlog.verification.whole_log import verify_ledger
from migrations.run import upgrade
from projections.telemetry.rollup_columns import read_rollups
from projections.telemetry.rollups import RollupProjection
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import OCCURRED_AT, fact, opened

pytestmark = pytest.mark.anyio
VECTOR = json.loads((Path(__file__).parent.parent / "domain" / "vectors" / "tiny.json").read_text())
FIRST_RELEASE = "0004"
ROWS_OF_NUMBERS = "0022"
"""The last schema in which a sender's number had a row of its own."""


def frame_of_first_release() -> NewEvent:
    """Return the event of a frame in the first encoding, beside statistics in the first form."""
    encoded = bytes.fromhex(VECTOR["encoded"])
    frame = decode(encoded)
    si = frame.channel_si(0)
    times = frame.channel_times_ns(0)
    name = frame.header.channels[0].name.encode()
    record = struct.pack(
        "<II6d2q",
        *(len(si), len(si), si.min(), si.max(), si.sum(), (si * si).sum(), si[0], si[-1]),
        *(int(times[0]), int(times[-1])),
    )
    return NewEvent(
        stream="telemetry:pump-1",
        type=FRAME_RECORDED,
        schema_version=1,
        event_id=uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8001"),
        occurred_at=OCCURRED_AT,
        actor="agent:agent-1",
        payload=encoded,
        payload_sha256=bytes.fromhex(VECTOR["sha256"]),
        source="agent:agent-1",
        sequence=frame.sequence,
        window=FrameWindow(
            frame.window_start_ns,
            frame.window_end_ns,
            frame.reading_count,
            struct.pack("<BH", 1, len(name)) + name + record,
        ),
    )


async def write_as_first_release(url: str, events: list[NewEvent]) -> None:
    """Store `events` by plain statements in the tables of the first release."""
    connection = await asyncpg.connect(url)
    recorded_at = OCCURRED_AT + timedelta(seconds=1)
    await connection.execute("insert into ledger (name, root) values ('plant-1', $1)", EMPTY_ROOT)
    frontier, versions = Frontier(), dict[str, int]()
    for position, event in enumerate(events, 1):
        version = versions[event.stream] = versions.get(event.stream, 0) + 1
        leaf = leaf_hash(leaf_entry("plant-1", position, version, format_time(recorded_at), event))
        frontier.append([leaf])
        window = event.window
        row: dict[str, Any] = {
            name: getattr(event, name)
            for name in (
                *("stream", "type", "schema_version", "event_id", "occurred_at", "actor"),
                *("payload", "payload_sha256", "source", "sequence"),
            )
        }
        row |= {"ledger_id": 1, "position": position, "version": version, "leaf_hash": leaf}
        row["recorded_at"] = recorded_at
        if window is not None:
            row |= {"window_start_ns": window.start_ns, "window_end_ns": window.end_ns}
            row |= {"reading_count": window.reading_count, "statistics": window.statistics}
        places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await connection.execute(
            f"insert into event ({', '.join(row)}) values ({places})", *row.values()
        )
        await connection.execute(
            "insert into event_identity values ($1, $2, 1)", event.event_id, position
        )
        if event.source is not None:
            await connection.execute(
                "insert into source_sequence values ($1, $2, 1, $3)",
                *(event.sequence, position, event.source),
            )
    for stream, version in versions.items():
        await connection.execute("insert into stream_head values (1, $1, $2)", stream, version)
    await connection.execute(
        "update ledger set position = $1, recorded_at = $2, frontier = $3, root = $4",
        *(len(events), recorded_at, frontier.packed(), frontier.root()),
    )
    await connection.execute(
        "insert into projection_checkpoint (ledger_id, projection, version, position) "
        "values (1, 'rollups', 1, $1), (1, 'twins', 1, $1)",
        len(events),
    )
    await connection.close()


async def test_a_log_of_the_first_release_goes_on(empty_database_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_database_url, FIRST_RELEASE)
    old = [fact("before"), frame_of_first_release()]
    await write_as_first_release(empty_database_url, old)
    await asyncio.to_thread(upgrade, empty_database_url)
    pool = await create_pool(empty_database_url)
    ledger = await Ledger.open(pool, "plant-1")
    try:
        recorded_fact, recorded_frame = await read_page(ledger, 0)
        assert recorded_fact.fact.setpoint == "before"
        assert recorded_frame.frame.canonical_sha256.hex() == VECTOR["sha256"]
        assert list(recorded_frame.frame.values[0]) == VECTOR["values"][0]
        assert recorded_frame.window is not None
        names, statistics = unpack_statistics(recorded_frame.window.statistics)
        assert names == ("flow",)
        assert statistics["good_count"].tolist() == [3]
        assert statistics["max"].tolist() == [float(recorded_frame.frame.channel_si(0).max())]

        # What is new goes on where it ended, and what is sent again is recognised.
        assert (await ledger.append([fact("after")])).placed[0][:2] == (3, 2)
        repeated = await ledger.append([frame_of_first_release()], expected={"asset:loop-1": 77})
        assert (repeated.duplicate, repeated.position) == (True, 2)
        await assert_log_is_sound(ledger, 3)
        report = await verify_ledger(pool, "plant-1")
        assert report.clean, report.findings
        assert (report.size, report.payloads) == (3, 3)

        # The rollups have another form now: they begin again, the twins do not.
        kept = await pool.fetch("select projection from projection_checkpoint")
        assert [row["projection"] for row in kept] == ["twins"]
        async with pool.acquire() as connection, connection.transaction():
            await RollupProjection().fold(connection, ledger, [recorded_frame])
        (minutes,) = await read_rollups(ledger, 60, start_s=0, end_s=2_000_000_000)
        assert minutes.reading_count.tolist() == [3]
    finally:
        await ledger.close()
        await pool.close()


async def test_numbers_of_senders_move_into_the_row_of_the_event(empty_database_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_database_url, ROWS_OF_NUMBERS)
    numbered = fact("numbered", source="user:mara", sequence=9)
    await write_as_first_release(
        empty_database_url, [fact("plain"), frame_of_first_release(), numbered]
    )
    await asyncio.to_thread(upgrade, empty_database_url)
    async with opened(empty_database_url) as ledger:
        rows = await ledger.pool.fetch(
            "select position, source, sequence from event_identity order by position"
        )
        assert [tuple(row) for row in rows] == [
            (1, None, None),
            (2, "agent:agent-1", frame_of_first_release().sequence),
            (3, "user:mara", 9),
        ]
        # Under another id, so that only its number tells.
        again = replace(numbered, event_id=uuid.uuid4())
        assert (await ledger.append([again]))[1:] == (True,)
        other = fact("other", source="user:mara", sequence=9)
        with pytest.raises(Conflict) as refused:
            await ledger.append([other])
        assert refused.value.code == "source.sequence_reused"
        await ledger.append([fact("next", source="user:mara", sequence=10)])
        await assert_log_is_sound(ledger, 4)
        report = await verify_ledger(ledger.pool, "plant-1")
        assert report.clean, report.findings


async def test_a_number_that_points_elsewhere_is_found_after_the_upgrade_too(
    empty_database_url: str,
) -> None:
    await asyncio.to_thread(upgrade, empty_database_url, ROWS_OF_NUMBERS)
    await write_as_first_release(empty_database_url, [fact("plain"), frame_of_first_release()])
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("insert into source_sequence values (5, 1, 1, 'agent:forged')")
    await connection.execute("insert into source_sequence values (6, 77, 1, 'agent:forged')")
    await connection.close()
    await asyncio.to_thread(upgrade, empty_database_url)
    pool = await create_pool(empty_database_url)
    try:
        report = await verify_ledger(pool, "plant-1")
    finally:
        await pool.close()
    found = {(finding.code, finding.position) for finding in report.findings}
    assert found == {
        ("event.sequence_mismatch", 1),
        ("event.sequence_mismatch", 77),
        ("event.identity_mismatch", 77),
    }
