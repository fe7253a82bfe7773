"""What an interruption has cost: told where something was lost, and only there, by any clock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.live.feed import SourceFeed
from edge_agent.live.outage import Outage
from edge_agent.outbox import Outbox, open_outbox
from edge_agent.outbox.records import Loss, NewFrame, Priority, Rejection
from edge_agent.settings import Settings
from edge_agent.uplink import frames as uplink_frames
from edge_agent.uplink.frames import TIME_IN_FUTURE, Uplink
from edge_agent.uplink.http import open_http_transport
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.feeds import RecordingFeed, delivering, until
from tests.edge_agent.frame_server import FrameServer, serving
from tests.edge_agent.test_live import NOW_NS, Clock, S, configured, readings

HOUR_NS = 3600 * S
SOURCE = "pump-7"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with open_outbox(tmp_path, 10**9) as opened:
        opened.adopt("agent-1", {}, live={SOURCE: SOURCE})
        yield opened


def outage(clock: Clock) -> Outage:
    return Outage(lambda: clock.wall_ns, lambda: round(clock.steady_s * S))


def test_outage_lasts_from_the_last_sign_of_life_to_the_return() -> None:
    clock = Clock()
    found = outage(clock)
    assert found.ended() is None
    found.begun(clock.wall_ns - 2 * S)
    clock.advance(60)
    found.begun()  # it goes on
    assert found.ended() == (NOW_NS - 2 * S, NOW_NS + 60 * S)
    assert found.ended() is None


@pytest.mark.parametrize("set_ns", [HOUR_NS, -HOUR_NS])
def test_outage_spans_what_the_clock_showed_before_and_after_it_was_set(set_ns: int) -> None:
    clock = Clock()
    found = outage(clock)
    found.begun(clock.wall_ns - 2 * S)
    clock.advance(60)
    clock.wall_ns += set_ns
    span = found.ended()
    assert span is not None
    by_old = (NOW_NS - 2 * S, NOW_NS + 60 * S)
    by_new = (by_old[0] + set_ns, by_old[1] + set_ns)
    assert span == (min(by_old[0], by_new[0]), max(by_old[1], by_new[1]))


def test_loss_that_ends_before_it_begins_is_told_the_right_way_round(outbox: Outbox) -> None:
    outbox.put_window(SOURCE, [], losses=[Loss("clock.odd", NOW_NS, NOW_NS - HOUR_NS)])
    (told,) = outbox.losses.take_settled(outbox.run_s + 60, "agent-1")
    assert told.input["since"] < told.input["until"]  # type: ignore[operator]


# --- what somebody else has kept ----------------------------------------------------------


def interrupted(kept_by: str) -> SourceFeed:
    """Return the feed of a source that was kept by `kept_by`, and that nobody listened to since."""
    feed = SourceFeed(configured(), lambda: None, lambda: NOW_NS)
    feed.kept_by = kept_by
    feed.missed("agent.down", NOW_NS - HOUR_NS)
    return feed


@pytest.mark.parametrize(
    ("before", "now", "was_kept", "lost"),
    [
        ("session", "session", True, False),
        ("session", "session", False, True),  # the broker has forgotten it
        ("session", "other filters", True, True),  # it kept what we did not ask for
        ("", "session", True, True),
        ("", "", True, True),
    ],
)
def test_what_was_kept_for_us_is_not_lost(
    before: str, now: str, was_kept: bool, lost: bool
) -> None:
    feed = interrupted(before)
    noted: list[str] = []
    feed.on_kept_by = noted.append
    feed.resumed(now, was_kept=was_kept)
    assert [loss.reason for loss in feed.incidents.losses] == ["agent.down"] * lost
    assert feed.listening
    assert noted == ([] if now == before else [now])
    asyncio.run(feed.take([readings([NOW_NS], [1.0])]))
    assert len(feed.incidents.losses) == lost, "told once"


def test_outbox_remembers_who_keeps_for_a_source(tmp_path: Path) -> None:
    for before, now in (("", "session"), ("session", "")):
        with open_outbox(tmp_path, 10**9) as outbox:
            outbox.adopt("agent-1", {}, live={SOURCE: SOURCE})
            assert outbox.source_state(SOURCE).kept_by == before
            outbox.note_kept_by(SOURCE, now)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as running:
        yield running


@pytest.mark.anyio
async def test_a_session_is_known_again_by_its_broker_client_and_filters(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    from tests.edge_agent.test_mqtt import configured as over_mqtt
    from tests.edge_agent.test_mqtt import source

    async def told(**changes: object) -> tuple[str, bool]:
        connection, (pump,) = over_mqtt(tmp_path, broker, source(**changes))
        feed = RecordingFeed()
        async with delivering(connection, (pump, feed)):
            await until(lambda: feed.resumptions)
        (found,) = feed.resumptions
        return found

    first, again = await told(), await told()
    assert first[0] == again[0] != ""
    assert (first[1], again[1]) == (False, True)
    other = await told(topic="plant/pump-8/#")
    assert other[1]
    assert other[0] not in ("", first[0])
    assert (await told(qos=0))[0] == "", "at QoS 0 a broker keeps nothing"
    broker.stop()
    broker.forget_sessions()
    broker.start()
    assert await told() == (first[0], False)


# --- frames whose time has not come -------------------------------------------------------


def put(outbox: Outbox, times_ns: list[int]) -> None:
    for at_ns in times_ns:
        number = outbox.next_sequence
        event_id = uuid.UUID(int=number)
        frame = NewFrame(number, event_id, b"x" * 10, Priority.LIVE, at_ns, at_ns, 1)
        outbox.put_window(SOURCE, [frame])


def test_the_earliest_of_the_frames_that_came_too_early_are_queued_again(outbox: Outbox) -> None:
    put(outbox, [NOW_NS + ahead for ahead in (3, 1, 2, 0)])
    outbox.reject([Rejection(number, TIME_IN_FUTURE, "") for number in (1, 2, 3)])
    outbox.reject([Rejection(4, "frame.checksum", "")])
    assert outbox.retry_earliest(TIME_IN_FUTURE, 2) == [2, 3]
    assert [frame.sequence for frame in outbox.pending(10, 10_000)] == [2, 3]
    assert outbox.rejected_counts() == {TIME_IN_FUTURE: 1, "frame.checksum": 1}


@dataclass
class Believing:
    """A server's judgement that changes: too early at first, in time later."""

    is_early: bool = True

    def __call__(self, _asset: str, _sequence: int) -> dict[str, str] | None:
        return {"code": TIME_IN_FUTURE, "message": "no"} if self.is_early else None


@pytest.mark.anyio
async def test_frames_that_came_too_early_arrive_once_and_by_themselves(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.edge_agent.test_uplink import put as put_frames

    monkeypatch.setattr(uplink_frames, "FUTURE_RETRY_S", 0.05)
    believing = Believing()
    outbox.adopt("agent-1", {"pump-1": ["a.csv"]})
    put_frames(outbox, 30)
    with serving(FrameServer(judge=believing)) as server:
        async with uplink(outbox, server) as running:
            await until(lambda: running.counts.rejected > 30)
            assert not server.stored
            believing.is_early = False
            await until(lambda: running.counts.accepted == 30)
        assert sorted(sequence for _, sequence in server.stored) == list(range(1, 31))
    assert not outbox.rejected_counts()
    assert not outbox.pending_count()


@asynccontextmanager
async def uplink(outbox: Outbox, server: FrameServer) -> AsyncIterator[Uplink]:
    chosen = Settings(server_url=server.url, retry_delay_s_min=0.001, retry_delay_s_max=0.01)
    async with open_http_transport(chosen) as transport:
        made = Uplink(outbox, transport, chosen, asyncio.Event(), asyncio.Event())
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


# --- a small disk -------------------------------------------------------------------------

_ON_A_SMALL_DISK = """
import os, resource, sys, uuid
from pathlib import Path
from domain.errors import Unavailable
from edge_agent.outbox import open_outbox
from edge_agent.outbox.records import NewFrame, Priority

def put(outbox, size):
    number = outbox.next_sequence
    frame = NewFrame(number, uuid.uuid4(), os.urandom(size), Priority.LIVE, 1, 2, 1)
    outbox.put_window("s", [frame])
    return number

with open_outbox(Path(sys.argv[1]), 2**30) as outbox:
    outbox.adopt("agent-1", {}, live={"s": "s"})
    outbox.acknowledge([put(outbox, 40_000) for _ in range(10)], 1)
    outbox.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    kept = 0
    for _ in range(200):
        try:
            outbox.acknowledge([put(outbox, 3_000)], 1)
            kept += 1
        except Unavailable:
            pass
    print(kept)
"""


def test_journal_that_fills_the_disk_gives_its_room_back(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _ON_A_SMALL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout) > 100, "one commit finds the disk full; the next one has room again"
