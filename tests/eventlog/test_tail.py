"""The tail: every follower sees each event once and in order, whatever happens beside it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import numpy as np
import pytest

from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.envelope import RecordedEvent
from eventlog.following.listener import Listener
from eventlog.following.tail import Tail
from eventlog.following.window import Window
from eventlog.ledger import CHANNEL, Ledger
from eventlog.reading import EventFilter, Page, PayloadOf, read_page
from migrations.run import upgrade
from tests.database import (
    as_superuser,
    execute,
    new_database,
    server_folder,
    with_database,
)
from tests.eventlog.new_events import cut_connections, fact, frame_event, frame_of, opened

pytestmark = pytest.mark.anyio

PATIENCE_S = 120.0
LISTENER = "application_name = 'heddle listener'"


@pytest.fixture
async def tail(ledger: Ledger, database_url: str) -> AsyncIterator[Tail]:
    following = Tail(ledger, database_url)
    yield following
    await following.close()


async def followed(tail: Tail, count: int, after: int = 0, **options: Any) -> list[int]:
    """Return the positions of the next `count` events a follower is given."""
    seen: list[int] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(tail.follow(after, **options)) as events:
        async for event in events:
            seen.append(event.position)
            if len(seen) == count:
                break
    return seen


async def write(ledger: Ledger, name: str, count: int) -> None:
    for n in range(count):
        await ledger.append([fact(f"{name}/{n}/{m}", f"asset:{name}") for m in range(n % 4 + 1)])


async def until_followed(tail: Tail, followers: int) -> None:
    """Wait until so many followers wait for what comes next."""
    async with asyncio.timeout(PATIENCE_S):
        while len(tail._waiting) < followers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Reads:
    """Counts who reads the log: the tail for everybody, or a follower for itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shared = self.own = 0
        self.payloads: list[PayloadOf] = []
        monkeypatch.setattr("eventlog.following.tail.read_page", self._read)

    async def _read(self, *arguments: Any, **named: Any) -> Page:
        if "wanted" in named:
            self.own += 1
        else:
            self.shared += 1
            self.payloads.append(named["payloads"])
        return await read_page(*arguments, **named)


# --- once and in order --------------------------------------------------------------------


async def test_followers_see_every_event_once_and_in_order_beside_writers(
    tail: Tail, database_url: str
) -> None:
    writers, appends_each = 6, 20
    total = writers * 50  # 1 + 2 + 3 + 4 events, five times
    async with opened(database_url) as other:
        early = [asyncio.create_task(followed(tail, total)) for _ in range(3)]
        small = asyncio.create_task(followed(tail, total, page_events=3))
        late = asyncio.create_task(followed(tail, total - 100, after=100))
        await asyncio.gather(
            *(
                write(log, f"writer-{n}", appends_each)
                for n, log in enumerate([tail.ledger, other] * (writers // 2))
            )
        )
        for follower in (*early, small):
            assert await follower == list(range(1, total + 1))
        assert await late == list(range(101, total + 1))
        assert await followed(tail, total) == list(range(1, total + 1))


WRITING_PROCESS = """
import asyncio, sys
from eventlog.database import create_pool
from eventlog.ledger import Ledger
from tests.eventlog.test_tail import write

async def main(url, appends, writers):
    pool = await create_pool(url)
    ledger = await Ledger.open(pool, "plant-1")
    await asyncio.gather(*(write(ledger, f"process-{n}", appends) for n in range(writers)))
    await ledger.close()
    await pool.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@pytest.fixture
def another_database(postgres_url: str) -> Iterator[str]:
    """URL of another database of the same server."""
    with new_database(postgres_url, "heddle_beside") as url:
        yield url


@pytest.mark.slow
async def test_nothing_is_skipped_beside_two_writing_processes_and_an_open_transaction(
    tail: Tail, database_url: str, another_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small window, so that followers change over between it and the log again and again.
    tail._window.events_max = 40
    monkeypatch.setattr("eventlog.following.tail.CHUNK_EVENTS_MAX", 10)
    appends, writers = 24, 8
    total = 2 * writers * appends // 4 * 10
    held = await asyncpg.connect(another_database)
    await held.execute("create table t (n int)")
    transaction = held.transaction(isolation="repeatable_read")
    await transaction.start()
    await held.execute("insert into t values (1)")
    assert await held.fetchval("select pg_current_xact_id_if_assigned() is not null")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITING_PROCESS, database_url, str(appends), str(writers)),
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )
    followers = [asyncio.create_task(followed(tail, total, page_events=page)) for page in (7, 200)]
    try:
        await asyncio.gather(*(write(tail.ledger, f"task-{n}", appends) for n in range(writers)))
        _, complaint = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 0, complaint.decode()
        for follower in followers:
            assert await follower == list(range(1, total + 1))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await transaction.rollback()
        await held.close()
    assert await tail.ledger.head() == total


async def test_two_hundred_followers_with_filters_see_what_they_want(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    rng = np.random.default_rng(2)
    streams = [f"{category}:{n}" for category in ("asset", "part", "lot") for n in range(5)]
    types = ["asset.setpoint_reported", "asset.setpoint_desired", "asset.retired"]
    log = [(str(rng.choice(streams)), str(rng.choice(types))) for _ in range(600)]
    filters = [
        EventFilter(
            tuple(map(str, rng.choice(types, rng.integers(0, 3), replace=False))),
            tuple(map(str, rng.choice(streams, rng.integers(0, 4), replace=False))),
            tuple(map(str, rng.choice(["asset", "part", "none"], rng.integers(0, 2)))),
        )
        for _ in range(200)
    ]
    expected = [
        [
            position
            for position, (stream, kind) in enumerate(log, 1)
            if (not wanted.types or kind in wanted.types)
            and (not wanted.streams or stream in wanted.streams)
            and (not wanted.categories or stream.split(":")[0] in wanted.categories)
        ]
        for wanted in filters
    ]
    assert sum(map(len, expected)) > 5_000
    followers = [
        asyncio.create_task(followed(tail, len(positions) or 1, wanted=wanted))
        for wanted, positions in zip(filters, expected, strict=True)
    ]
    await until_followed(tail, 200)
    for at in range(0, 600, 40):
        await tail.ledger.append(
            [fact(at + n, stream, type=kind) for n, (stream, kind) in enumerate(log[at : at + 40])]
        )
    for follower, positions, wanted in zip(followers, expected, filters, strict=True):
        if positions:
            assert await follower == positions, wanted
        else:
            follower.cancel()
    # 200 followers, and the log was read as if there were one.
    assert (reads.own, reads.shared <= 30) == (0, True)


async def test_a_filtered_follower_sees_what_it_wants_and_moves_on(tail: Tail) -> None:
    wanted = EventFilter(streams=("asset:loop-3",))
    follower = asyncio.create_task(followed(tail, 6, wanted=wanted, page_events=2))
    for turn in range(6):
        await tail.ledger.append([fact(f"{turn}/{n}", f"asset:loop-{n}") for n in range(5)])
    assert await follower == [4, 9, 14, 19, 24, 29]


async def test_a_follower_of_a_rare_type_comes_through_a_long_log(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.reading.SCANNED_EVENTS_MAX", 20)
    tail._window.events_max = 10
    await tail.ledger.append([fact(n) for n in range(500)])
    await tail.ledger.append([fact("rare", type="asset.retired")])
    wanted = EventFilter(types=("asset.retired",))
    assert await followed(tail, 1, wanted=wanted) == [501]


async def test_a_follower_reads_on_where_a_page_was_cut_by_its_bytes(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.following.tail.CHUNK_BYTES_MAX", 1_000)
    monkeypatch.setattr("eventlog.following.tail.FOLLOWER_BYTES_MAX", 1_000)
    await tail.ledger.append([fact(n, payload=bytes(400)) for n in range(30)])
    assert await followed(tail, 30) == list(range(1, 31))
    tail._window.events_max = 5
    assert await followed(tail, 30) == list(range(1, 31))


# --- wakes --------------------------------------------------------------------------------


async def test_a_follower_is_woken_by_a_notification(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.following.listener.POLL_S", 1_000.0)
    await tail.ledger.append([fact(0)])
    assert await followed(tail, 1) == [1]
    await asyncio.sleep(1.2)  # a poll in progress ends; from here on only a notification wakes
    follower = asyncio.create_task(followed(tail, 1, after=1))
    await until_followed(tail, 1)
    await tail.ledger.append([fact(1)])
    assert await follower == [2]


async def test_a_lost_notification_costs_one_poll(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    monkeypatch.setattr(tail._listener, "_notified", lambda *said: heard.append(said))
    await cut_the_listener(tail)  # it listens anew, and what it hears goes astray
    follower = asyncio.create_task(followed(tail, 5))
    await tail.ledger.append([fact(n) for n in range(5)])
    assert await follower == [1, 2, 3, 4, 5]
    assert heard


@pytest.mark.parametrize(
    "payload", ["", "plant-1", "plant-1:", "plant-1:x", "plant-1:999999999", "plant-1:-5", ":::"]
)
async def test_a_forged_notification_moves_nobody(tail: Tail, payload: str) -> None:
    await tail.ledger.append([fact(0)])
    follower = asyncio.create_task(followed(tail, 3))
    await tail.wait_beyond(0, timeout_s=PATIENCE_S)
    await tail.ledger.pool.execute("select pg_notify($1, $2)", CHANNEL, payload)
    await asyncio.sleep(0.1)
    assert tail.position == 1
    await tail.ledger.append([fact(1), fact(2)])
    assert await follower == [1, 2, 3]


async def test_a_follower_of_an_empty_log_waits(tail: Tail) -> None:
    assert await tail.wait_beyond(0, timeout_s=0.05) == 0


async def test_ledgers_of_one_database_do_not_wake_each_other(
    tail: Tail, database_url: str
) -> None:
    async with opened(database_url, "plant-2") as other:
        await other.append([fact(n) for n in range(9)])
        await tail.ledger.append([fact(1)])
        assert await tail.wait_beyond(0, timeout_s=PATIENCE_S) == 1


async def test_tails_of_several_ledgers_share_one_connection(
    ledger: Ledger, database_url: str
) -> None:
    listener = Listener(database_url)
    async with opened(database_url, "plant-2") as second:
        tails = [Tail(ledger, listener), Tail(second, listener)]
        followers = [
            asyncio.create_task(followed(tail, count))
            for tail, count in zip(tails, (3, 5), strict=True)
        ]
        await ledger.append([fact(n) for n in range(3)])
        await second.append([fact(n) for n in range(5)])
        assert await followers[0] == [1, 2, 3]
        assert await followers[1] == [1, 2, 3, 4, 5]
        assert await listening(ledger) == 1
        await tails[0].close()
        await second.append([fact(9)])
        assert await followed(tails[1], 1, after=5) == [6]
        await tails[1].close()
    await listener.close()


async def listening(ledger: Ledger) -> int:
    count: int = await ledger.pool.fetchval(
        f"select count(*) from pg_stat_activity where datname = current_database() and {LISTENER}"
    )
    return count


# --- lost connections ---------------------------------------------------------------------


async def cut_the_listener(tail: Tail) -> None:
    """Have the server end the listener's connection, and wait until it has another one."""
    pid = None
    async with asyncio.timeout(PATIENCE_S):
        while pid is None:
            pid = await tail.ledger.pool.fetchval(
                "select pid from pg_stat_activity "
                f"where datname = current_database() and {LISTENER} and query like 'select%'"
            )
            await asyncio.sleep(0.01)
        await tail.ledger.pool.execute("select pg_terminate_backend($1)", pid)
        while True:
            now = await tail.ledger.pool.fetchval(
                "select pid from pg_stat_activity "
                f"where datname = current_database() and {LISTENER} and query like 'select%'"
            )
            if now not in (None, pid):
                return
            await asyncio.sleep(0.01)


async def test_followers_survive_that_every_connection_is_cut_again_and_again(
    tail: Tail, database_url: str
) -> None:
    followers = [
        asyncio.create_task(followed(tail, 80, page_events=page, wanted=wanted))
        for page in (3, 200)
        for wanted in (EventFilter(), EventFilter(categories=("asset",)))
    ]
    cut = 0
    async with opened(database_url) as other:
        for turn in range(8):
            await other.append([fact(f"{turn}/{n}") for n in range(10)])
            cut += await cut_connections(other.pool)
            await asyncio.sleep(0.02 * turn)
        for follower in followers:
            assert await follower == list(range(1, 81))
    assert cut >= 8


async def test_a_tail_listens_again_after_all_connections_were_cut(
    tail: Tail, database_url: str
) -> None:
    await tail.ledger.append([fact(0)])
    assert await tail.wait_beyond(0, timeout_s=PATIENCE_S) == 1
    async with opened(database_url) as other:
        assert await cut_connections(other.pool) >= 2
        await other.append([fact(1)])
        assert await tail.wait_beyond(1, timeout_s=PATIENCE_S) == 2
        assert await followed(tail, 2) == [1, 2]


@asynccontextmanager
async def database_away(database_url: str) -> AsyncIterator[None]:
    """Cut every connection of one database and let none in; others of the server stay."""
    name = urlsplit(database_url).path[1:]
    superuser = as_superuser(with_database(database_url, "postgres"))
    await asyncio.to_thread(execute, superuser, f"alter database {name} connection limit 0")
    await asyncio.to_thread(
        execute,
        superuser,
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
    )
    try:
        yield
    finally:
        await asyncio.to_thread(execute, superuser, f"alter database {name} connection limit -1")


async def test_a_follower_says_that_the_log_is_away_when_it_was_told_to(
    tail: Tail, database_url: str
) -> None:
    await tail.ledger.append([fact(0)])
    patient = asyncio.create_task(followed(tail, 2))
    hurried = asyncio.create_task(followed(tail, 2, retries_max=2))
    await until_followed(tail, 2)
    async with database_away(database_url):
        with pytest.raises(CONNECTION_LOST):
            await hurried
        assert not patient.done()
    await tail.ledger.append([fact(1)])
    assert await patient == [1, 2]


async def test_an_outage_is_told_once_and_so_is_its_end(
    tail: Tail, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "heddle.eventlog")
    await tail.wait_beyond(-1, timeout_s=PATIENCE_S)
    async with database_away(database_url):
        async with asyncio.timeout(PATIENCE_S):
            while tail._listener._delay_s < 0.8:  # noqa: ASYNC110  # it has tried a few times
                await asyncio.sleep(0.01)
    await tail.ledger.append([fact(0)])
    assert await tail.wait_beyond(0, timeout_s=PATIENCE_S) == 1
    said = [record.message for record in caplog.records if "listening" in record.message]
    away = [record for record in caplog.records if "nothing is heard" in record.message]
    assert (len(away), said) == (1, ["listening to the log again"])


@pytest.mark.slow
async def test_followers_go_on_after_the_server_was_restarted() -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(server_folder())
        server = await asyncio.to_thread(EmbeddedPostgres.start, folder / "data")
        stack.callback(lambda: server.stop())
        await asyncio.to_thread(upgrade, server.url)
        async with opened(server.url) as ledger:
            tail = Tail(ledger, server.url)
            follower = asyncio.create_task(followed(tail, 20))
            await ledger.append([fact(n) for n in range(10)])
            await tail.wait_beyond(9, timeout_s=PATIENCE_S)
            await asyncio.to_thread(server.stop)
            server = await asyncio.to_thread(EmbeddedPostgres.start, folder / "data")
            async with opened(server.url) as other:
                await other.append([fact(n) for n in range(10, 20)])
            assert await follower == list(range(1, 21))
            await tail.close()


# --- bounds -------------------------------------------------------------------------------


async def test_a_slow_follower_is_handed_over_to_the_log_and_back(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail._window.events_max = 10
    reads = Reads(monkeypatch)
    await tail.wait_beyond(-1, timeout_s=PATIENCE_S)
    async with aclosing(tail.follow(0)) as slow, aclosing(tail.follow(0)) as quick:
        await tail.ledger.append([fact(0)])
        seen = [(await anext(slow)).position]
        assert (await anext(quick)).position == 1
        assert reads.own == 0
        for n in range(1, 51):
            await tail.ledger.append([fact(n)])
            # The quick one is not held up by the other, who has not come back for more.
            assert (await anext(quick)).position == n + 1
        assert reads.own == 0
        seen += [(await anext(slow)).position for _ in range(50)]
        assert reads.own >= 1
        own = reads.own
        for n in range(51, 61):
            coming = asyncio.create_task(followed_next(slow))
            await until_followed(tail, 1)
            await tail.ledger.append([fact(n)])
            seen.append(await coming)
        assert reads.own == own  # it is live again
    assert seen == list(range(1, 62))


async def followed_next(events: AsyncIterator[RecordedEvent]) -> int:
    return (await anext(events)).position


async def test_a_follower_in_the_middle_of_what_leaves_the_window_skips_nothing(
    tail: Tail,
) -> None:
    tail._window.events_max = 10
    await tail.wait_beyond(-1, timeout_s=PATIENCE_S)
    async with aclosing(tail.follow(0)) as slow, aclosing(tail.follow(0)) as quick:
        coming = asyncio.create_task(followed_next(slow))
        await until_followed(tail, 1)
        await tail.ledger.append([fact(n) for n in range(8)])
        seen = [await coming]  # it stands in a chunk of eight
        for n in range(8, 40):
            await tail.ledger.append([fact(n)])
        assert [(await anext(quick)).position for _ in range(40)] == list(range(1, 41))
        seen += [(await anext(slow)).position for _ in range(39)]
    assert seen == list(range(1, 41))


async def test_slow_followers_hold_no_events_of_the_window(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.following.tail.CHUNK_EVENTS_MAX", 10)
    tail._window.events_max = 20
    await tail.wait_beyond(-1, timeout_s=PATIENCE_S)
    slow = [tail.follow(0) for _ in range(50)]
    first = [asyncio.create_task(followed_next(follower)) for follower in slow]
    await until_followed(tail, 50)
    quick = asyncio.create_task(followed(tail, 200))
    recorded = [fact(f"held or not {n}") for n in range(200)]
    for start in range(0, 200, 10):
        await tail.ledger.append(recorded[start : start + 10])
    assert await asyncio.gather(*first) == [1] * 50
    assert await quick == list(range(1, 201))
    gc.collect()
    # Servers of other tests may run in this process and hold events of their own.
    own = {event.event_id for event in recorded}
    alive = {
        event.position
        for event in gc.get_objects()
        if type(event) is RecordedEvent and event.event_id in own
    }
    # The one that each slow follower has in hand, and what the window may hold.
    assert len(alive) <= 1 + 20
    for follower in slow:
        await follower.aclose()


async def test_the_window_is_bounded_in_bytes(tail: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_window", Window(10_000, 200_000))
    monkeypatch.setattr("eventlog.following.tail.CHUNK_BYTES_MAX", 50_000)
    follower = asyncio.create_task(followed(tail, 100))
    for n in range(100):
        await tail.ledger.append([fact(n, payload=bytes(20_000))])
        assert tail._window.size_bytes <= 200_000
    assert await follower == list(range(1, 101))


async def test_a_tail_without_followers_reads_and_holds_nothing(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    await tail.ledger.append([fact(n) for n in range(5)])
    assert await tail.wait_beyond(4, timeout_s=PATIENCE_S) == 5
    assert (reads.shared, reads.own) == (0, 0)
    assert await followed(tail, 5) == [1, 2, 3, 4, 5]
    assert (tail._window.events, tail._window.size_bytes, tail._waiting) == (0, 0, set())
    waiting = asyncio.create_task(followed(tail, 1, after=5))
    await until_followed(tail, 1)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert (tail._waiting, tail._needs.total()) == (set(), 0)
    before = reads.shared
    await tail.ledger.append([fact("nobody sees this")])
    assert await tail.wait_beyond(5, timeout_s=PATIENCE_S) == 6
    await asyncio.sleep(0.05)
    assert reads.shared == before


async def test_payloads_are_read_once_and_only_for_whom_they_matter(
    tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    await tail.wait_beyond(-1, timeout_s=PATIENCE_S)
    async with aclosing(tail.follow(0, payloads=PayloadOf.NONE)) as bare:
        await tail.ledger.append([fact(1)])
        assert (await anext(bare)).payload is None
        # One that wants payloads does not take what was read without.
        async with aclosing(tail.follow(0, payloads=PayloadOf.FACTS)) as facts:
            assert (await anext(facts)).fact.setpoint == "1"
            await tail.ledger.append([fact(2), frame_event(frame_of(1))])
            assert (await anext(facts)).fact.setpoint == "2"
            assert (await anext(facts)).payload is None
            assert [(await anext(bare)).position for _ in range(2)] == [2, 3]
        # Who wants no frames needs no frames' payloads.
        wanted = EventFilter(types=("asset.setpoint_reported",))
        async with aclosing(tail.follow(3, wanted=wanted)) as all_of_some:
            coming = asyncio.create_task(followed_next(all_of_some))
            await until_followed(tail, 1)
            await tail.ledger.append([frame_event(frame_of(2)), fact(3)])
            assert await coming == 5
        async with aclosing(tail.follow(5)) as everything:
            coming = asyncio.create_task(followed_next(everything))
            await until_followed(tail, 1)
            await tail.ledger.append([fact(4)])
            assert await coming == 6
    assert reads.payloads == [PayloadOf.NONE, PayloadOf.FACTS, PayloadOf.FACTS, PayloadOf.ALL]
    assert reads.own == 1


@pytest.mark.parametrize("in_window", [True, False])
@pytest.mark.parametrize(
    ("after", "up_to", "streams", "expected"),
    [
        (0, 4, (), [1, 2, 3, 4]),
        (2, 7, ("asset:a",), [3, 5, 7]),
        (2, 8, ("asset:a",), [3, 5, 7]),  # where nothing wanted is the last of it
        (0, 10, ("asset:nobody",), []),
        (4, 4, (), []),
        (6, 4, (), []),
    ],
)
async def test_a_follower_ends_where_it_was_told_to(
    tail: Tail,
    in_window: bool,
    after: int,
    up_to: int,
    streams: tuple[str, ...],
    expected: list[int],
) -> None:
    async with AsyncExitStack() as stack:
        if in_window:  # somebody else has it read
            other = await stack.enter_async_context(aclosing(tail.follow(0)))
            reading = asyncio.create_task(followed_next(other))
            await until_followed(tail, 1)
        for n in range(10):
            await tail.ledger.append([fact(n, f"asset:{'ab'[n % 2]}")])
        if in_window:
            await reading
        wanted = EventFilter(streams=streams)
        async with asyncio.timeout(PATIENCE_S):
            following = tail.follow(after, wanted=wanted, up_to=up_to, page_events=3)
            assert [event.position async for event in following] == expected


async def test_a_follower_that_ends_beyond_the_log_waits_for_it(tail: Tail) -> None:
    async def follow(streams: tuple[str, ...]) -> list[int]:
        wanted = EventFilter(streams=streams)
        return [event.position async for event in tail.follow(0, wanted=wanted, up_to=3)]

    some, none = (asyncio.create_task(follow((name,))) for name in ("asset:a", "asset:nobody"))
    await until_followed(tail, 2)
    for n in range(4):
        assert n == 3 or not none.done()
        await tail.ledger.append([fact(n, "asset:a")])
    async with asyncio.timeout(PATIENCE_S):
        assert await some == [1, 2, 3]
        assert await none == []


async def test_a_follower_of_a_closed_tail_is_told(ledger: Ledger, database_url: str) -> None:
    tail = Tail(ledger, database_url)
    follower = asyncio.create_task(followed(tail, 1))
    await until_followed(tail, 1)
    await tail.close()
    with pytest.raises(Unavailable) as told:
        await follower
    assert told.value.code == "tail.closed"
    with pytest.raises(Unavailable):
        await followed(tail, 1)
