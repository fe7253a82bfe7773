"""From a sensor to a query with real processes: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from domain.asset import telemetry_stream
from domain.frames import FloatArray, IntArray
from domain.units import unit
from eventlog.database import Pool, create_pool
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from tests.end_to_end.processes import Agent, Server, skab_source
from tests.recordings import SKAB_COLUMNS, read_labels, read_skab

pytestmark = pytest.mark.slow

RECORDINGS = {"pump-a": "valve1/1", "pump-b": "valve2/1"}
SUBSCRIPTION = """
subscription ($after: Cursor) {
  events(after: $after) { cursor lag event { position stream version eventId } }
}
"""


def test_every_reading_arrives_once_and_right(folder: Path) -> None:
    sources = [skab_source(asset, name) for asset, name in RECORDINGS.items()]
    with Server(folder) as server, Agent(folder / "agent", server.url, sources) as agent:
        server.start()
        for asset in RECORDINGS:
            server.register(asset)
        agent.start()
        assert agent.wait() == 0, agent.log
        server.wait_until_folded()
        assert_all_is_right(server)


def test_nothing_is_lost_or_doubled_when_agent_and_server_are_killed(folder: Path) -> None:
    # Each recording takes some twenty seconds, so that the kills hit the middle of it.
    sources = [skab_source(asset, name, speed=60, window_s=5) for asset, name in RECORDINGS.items()]
    with Server(folder) as server, Agent(folder / "agent", server.url, sources) as agent:
        server.start()
        for asset in RECORDINGS:
            server.register(asset)
        agent.start()
        for victim in ("agent", "server", "agent", "server", "both"):
            time.sleep(1.5)
            if victim in ("agent", "both"):
                assert agent.is_running, agent.log
                agent.kill()
            if victim in ("server", "both"):
                server.kill()
                server.start()
            if not agent.is_running:
                agent.start()
        assert agent.wait() == 0, agent.log
        server.wait_until_folded()
        assert_all_is_right(server)


def test_a_second_start_sends_nothing_again(folder: Path) -> None:
    sources = [skab_source("pump-a", "valve1/1")]
    with Server(folder) as server, Agent(folder / "agent", server.url, sources) as agent:
        server.start()
        server.register("pump-a")
        agent.start()
        assert agent.wait() == 0, agent.log
        head = server.wait_until_folded()
        assert server.stop() == 0, server.log
        server.start()
        agent.start()
        assert agent.wait() == 0, agent.log
        assert server.wait_until_folded() == head


def test_an_agent_without_memory_is_recognised_by_its_sequences(folder: Path) -> None:
    sources = [skab_source("pump-a", "valve1/1")]
    with Server(folder) as server, Agent(folder / "agent", server.url, sources) as agent:
        server.start()
        server.register("pump-a")
        agent.start()
        assert agent.wait() == 0, agent.log
        head = server.wait_until_folded()
        shutil.rmtree(agent.state_dir)
        agent.start()
        assert agent.wait() == 0, agent.log
        assert server.wait_until_folded() == head


# --- what must be true of the log afterwards ----------------------------------------------


def assert_all_is_right(server: Server) -> None:
    asyncio.run(_assert_all_is_right(server))
    for asset, name in RECORDINGS.items():
        _assert_alerts_fit_labels(server, asset, name)
    _assert_readings_answer_queries(server)


async def _assert_all_is_right(server: Server) -> None:
    with EmbeddedPostgres.start(server.data_dir) as database:
        pool = await create_pool(database.url)
        ledger = await Ledger.open(pool, "plant-1")
        try:
            for asset, name in RECORDINGS.items():
                await _assert_log_holds_recording(ledger, asset, name)
                await _assert_rollups_equal_numpy(pool, asset, name)
            await _assert_subscriber_misses_nothing(server, ledger)
        finally:
            await ledger.close()
            await pool.close()


async def _assert_log_holds_recording(ledger: Ledger, asset: str, name: str) -> None:
    """Every reading of the file once: bit for bit as delivered, and right in SI."""
    recording = read_skab(name)
    frames = []
    position = 0
    while page := await read_page(ledger, position):
        position = page[-1].position
        frames += [e.frame for e in page if e.stream == telemetry_stream(asset)]
    sequences = [frame.sequence for frame in frames]
    assert len(set(sequences)) == len(sequences)
    times = np.concatenate([frame.clocks[0] for frame in frames])
    order = np.argsort(times, kind="stable")
    assert times[order].tolist() == recording.times_ns.tolist()
    for index, header in enumerate(frames[0].header.channels):
        delivered = np.concatenate([frame.values[index] for frame in frames])[order]
        wanted = recording.values[header.name]
        assert delivered.view(np.int64).tolist() == wanted.view(np.int64).tolist()
        assert not np.concatenate([frame.qualities[index] for frame in frames]).any()
        declared = unit(next(u for c, u in SKAB_COLUMNS.values() if c == header.name))
        si = np.concatenate([frame.channel_si(index) for frame in frames])[order]
        assert si.tolist() == [declared.to_si(value) for value in wanted.tolist()]


async def _assert_rollups_equal_numpy(pool: Pool, asset: str, name: str) -> None:
    recording = read_skab(name)
    seconds = recording.times_ns // 1_000_000_000
    for channel, delivered in recording.values.items():
        declared = unit(next(u for c, u in SKAB_COLUMNS.values() if c == channel))
        si = delivered * declared.factor + declared.offset
        for width_s in (60, 3600):
            rows = await pool.fetch(
                "select extract(epoch from bucket_start)::bigint as start, reading_count, min, "
                "max, sum, sum_of_squares, first, last from telemetry_rollup "
                "where asset_id = $1 and channel = $2 and resolution_s = $3 order by bucket_start",
                asset,
                channel,
                width_s,
            )
            assert [tuple(row)[:5] + tuple(row)[6:] for row in rows] == [
                pytest.approx(wanted[:5] + wanted[6:], rel=1e-12)
                for wanted in _buckets(seconds, si, width_s)
            ]
            assert [row["sum_of_squares"] for row in rows] == pytest.approx(
                [wanted[5] for wanted in _buckets(seconds, si, width_s)], rel=1e-12
            )


def _buckets(seconds: IntArray, si: FloatArray, width_s: int) -> list[tuple[float, ...]]:
    """Return the rollup as one would write it down: bucket by bucket."""
    found: list[tuple[float, ...]] = []
    for start in np.unique(seconds // width_s * width_s).tolist():
        values = si[(seconds >= start) & (seconds < start + width_s)]
        squares = float((values**2).sum())
        found.append(
            (
                start,
                len(values),
                values.min(),
                values.max(),
                float(values.sum()),
                squares,
                values[0],
                values[-1],
            )
        )
    return found


def _assert_alerts_fit_labels(server: Server, asset: str, name: str) -> None:
    """The valve fault of the recording raised an alert while it lasted."""
    labelled = read_labels(name)
    start, end = min(labelled), max(labelled)
    alerts = server.query(
        """query ($assets: [String!]) {
            alerts(first: 50, filter: {assetIds: $assets}) { nodes { rule since raisedAt } } }""",
        assets=[asset],
    )["alerts"]["nodes"]
    raised = [np.datetime64(alert["raisedAt"].rstrip("Z"), "s").astype(int) for alert in alerts]
    assert [alert["rule"] for alert in alerts].count("flow_restricted") == 1
    assert all(start <= moment <= end for moment in raised), (start, end, alerts)


def _assert_readings_answer_queries(server: Server) -> None:
    """The GraphQL API answers with the recording's own values."""
    recording = read_skab(RECORDINGS["pump-a"])
    answer = server.query(
        """query { asset(assetId: "pump-a") {
            twin { connectivity readings { channel value } }
            readings(channels: ["flow"], from: "2020-03-09T10:00:00Z", to: "2020-03-09T11:00:00Z",
                maxPoints: 10000) { channel timesMs values } } }"""
    )["asset"]
    assert answer["twin"]["connectivity"] == "STALE"
    flow = unit("l/min")
    (columns,) = answer["readings"]
    assert columns["timesMs"] == (recording.times_ns / 1e6).tolist()
    assert columns["values"] == [flow.to_si(v) for v in recording.values["flow"].tolist()]
    last = {r["channel"]: r["value"] for r in answer["twin"]["readings"]}
    assert last["flow"] == flow.to_si(recording.values["flow"][-1])


async def _assert_subscriber_misses_nothing(server: Server, ledger: Ledger) -> None:
    """A subscriber that comes with an old cursor gets every event after it, once, in order."""
    head = await ledger.head()
    async with _subscription(server, None, from_start=True) as messages:
        first_half = [await anext(messages) for _ in range(head // 2)]
    async with _subscription(server, first_half[-1]["cursor"]) as messages:
        second_half = [await anext(messages) for _ in range(head - head // 2)]
    events = [message["event"] for message in first_half + second_half]
    assert [event["position"] for event in events] == list(range(1, head + 1))
    assert len({event["eventId"] for event in events}) == head


@asynccontextmanager
async def _subscription(
    server: Server, after: str | None, *, from_start: bool = False
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    if from_start:
        after = server.query("{ log { start } }")["log"]["start"]
    url = server.url.replace("http", "ws", 1) + "/graphql"
    async with connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
        await socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        payload = {"query": SUBSCRIPTION, "variables": {"after": after}}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))

        async def messages() -> AsyncIterator[dict[str, Any]]:
            while True:
                message = json.loads(await asyncio.wait_for(socket.recv(), 60))
                assert message["type"] == "next", message
                yield message["payload"]["data"]["events"]

        yield messages()
