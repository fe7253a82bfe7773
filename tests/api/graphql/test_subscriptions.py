"""The subscription of events: resumed anywhere, each event once and in order, whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.graphql.events.subscriptions import RETRIES_MAX, follow_or_tell
from api.graphql.relay import encode_cursor
from domain.asset import CommissionAsset, DesireSetpoint, RegisterAsset, RetireAsset
from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST
from eventlog.envelope import RecordedEvent
from eventlog.following.tail import Tail
from eventlog.reading import ALL_EVENTS, PayloadOf, read_page
from tests.api.graphql.server import LEDGER, PUMP_TYPE, Server, frame_of
from tests.database import as_superuser, execute

pytestmark = pytest.mark.anyio

EVENTS = """
subscription Events($after: Cursor, $filter: EventFilter) {
  events(after: $after, filter: $filter) {
    cursor lag
    event { position cursor stream type fact frame { sequence readingCount } }
  }
}
"""


async def test_subscription_without_a_cursor_starts_now(server: Server) -> None:
    await server.register("past")
    async with server.socket() as socket:
        await socket.subscribe(EVENTS, after=None)
        await started(server)
        await server.register("pump-1")

        message = (await socket.next())["events"]

    assert message == {
        "cursor": server.cursor(2),
        "lag": 0,
        "event": {
            "position": 2,
            "cursor": message["cursor"],
            "stream": "asset:pump-1",
            "type": "asset.registered",
            "fact": {"asset_id": "pump-1", "asset_type": PUMP_TYPE, "title": "Pump pump-1"},
            "frame": None,
        },
    }


async def started(server: Server) -> None:
    """Wait until a subscription that was sent before has looked where the log ends."""
    for _ in range(3):
        await server.ask("{ log { position } }")
    await asyncio.sleep(0.1)


async def test_subscription_resumed_half_way_gets_every_event_once_and_in_order(
    server: Server,
) -> None:
    await server.register(*(f"pump-{number}" for number in range(20)))
    async with server.socket() as socket:
        await socket.subscribe(EVENTS, after=server.cursor(0))
        received = [(await socket.next())["events"] for _ in range(9)]

    await server.register(*(f"late-{number}" for number in range(20)))
    async with server.socket() as socket:
        await socket.subscribe(EVENTS, after=received[-1]["cursor"])
        received += [(await socket.next())["events"] for _ in range(20)]
        writer = asyncio.create_task(server.register(*(f"live-{number}" for number in range(20))))
        received += [(await socket.next())["events"] for _ in range(31)]
        await writer

    assert [message["event"]["position"] for message in received] == list(range(1, 61))
    assert [message["event"]["fact"]["asset_id"] for message in received[20:22]] == [
        "late-0",
        "late-1",
    ]
    assert received[0]["lag"] == 19
    assert received[-1]["lag"] == 0


async def test_frames_come_in_outline_among_the_facts(server: Server) -> None:
    await server.register("pump-1")
    frames = [frame_of("pump-1", {"flow": ("l/min", [30.0, 31.0])}) for _ in range(3)]
    await server.record(*frames)
    async with server.socket() as socket:
        await socket.subscribe(EVENTS, after=server.cursor(0))
        events = [(await socket.next())["events"]["event"] for _ in range(4)]

    assert [event["frame"] for event in events] == [
        None,
        *({"sequence": frame.sequence, "readingCount": 2} for frame in frames),
    ]
    assert events[1]["fact"] is None


async def test_filtered_subscription_gets_what_it_wants_and_nothing_else(server: Server) -> None:
    filters = {
        "type": {"types": ["asset.retired"]},
        "stream": {"streams": ["asset:b"]},
        "category": {"categories": ["telemetry"]},
    }
    async with server.socket() as socket:
        for name, wanted in filters.items():
            await socket.subscribe(EVENTS, name, after=server.cursor(0), filter=wanted)
        await server.register("a", "b")
        await server.record(frame_of("a", {"flow": ("l/min", [30.0])}))
        await server.command(DesireSetpoint("b", "flow", 0.0005))
        await server.command(RetireAsset("a", "worn"))

        received: dict[str, list[int]] = {name: [] for name in filters}
        for _ in range(4):
            message = await socket.receive()
            event = message["payload"]["data"]["events"]["event"]
            received[message["id"]].append(event["position"])

    assert received == {"type": [5], "stream": [2, 4], "category": [3]}


async def test_many_subscribers_each_get_everything(server: Server) -> None:
    async with server.socket() as socket:
        for number in range(10):
            await socket.subscribe(EVENTS, str(number), after=server.cursor(0))
        await server.register("a", "b", "c")
        received: dict[str, list[int]] = {str(number): [] for number in range(10)}
        for _ in range(30):
            message = await socket.receive()
            event = message["payload"]["data"]["events"]["event"]
            received[message["id"]].append(event["position"])

    assert all(found == [1, 2, 3] for found in received.values())


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"after": "rubbish"}, "cursor.malformed"),
        ({"after": encode_cursor("events", "plant-2", 1)}, "cursor.malformed"),
        ({"after": encode_cursor("alerts", LEDGER, 1)}, "cursor.malformed"),
        ({"after": encode_cursor("events", LEDGER, 7)}, "cursor.beyond_log"),
        ({"filter": {"types": ["a"] * 101}}, "filter.too_many"),
        ({"filter": {"colours": ["red"]}}, "graphql.invalid"),
    ],
)
async def test_impossible_subscription_ends_with_its_reason(
    empty_server: Server, variables: dict[str, Any], code: str
) -> None:
    async with empty_server.socket() as socket:
        await socket.subscribe(EVENTS, **variables)

        error = await socket.error()

        assert error["extensions"]["code"] == code
        # The socket lives on.
        await socket.subscribe("{ log { position } }", "2")
        assert await socket.next("2") == {"log": {"position": 0}}


async def test_completed_subscription_falls_silent(server: Server) -> None:
    async with server.socket() as socket:
        await socket.subscribe(EVENTS, after=server.cursor(0))
        await server.register("a")
        await socket.next()
        await socket.send({"id": "1", "type": "complete"})
        await server.register("b")
        await socket.subscribe("{ log { position } }", "2")

        assert await socket.next("2") == {"log": {"position": 2}}
        assert await socket.receive() == {"id": "2", "type": "complete"}


# --- when the database is away ------------------------------------------------------------


@asynccontextmanager
async def database_away(server_url: str) -> AsyncIterator[None]:
    """Cut every connection of the server and let none in."""
    superuser = as_superuser(server_url)
    await asyncio.to_thread(execute, superuser, "alter role heddle connection limit 0")
    await asyncio.to_thread(
        execute,
        superuser,
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'heddle'",
    )
    await asyncio.sleep(0.2)  # until the pool has noticed
    try:
        yield
    finally:
        await asyncio.to_thread(execute, superuser, "alter role heddle connection limit -1")


async def test_subscription_goes_on_after_the_database_was_away(
    server: Server, postgres_url: str
) -> None:
    async with server.socket() as socket:
        await socket.subscribe(EVENTS, after=server.cursor(0))
        await server.register("a", "b")
        received = [(await socket.next())["events"]["event"]["position"] for _ in range(2)]

        async with database_away(postgres_url):
            await asyncio.sleep(0.5)
        await server.register("c", "d")
        received += [(await socket.next())["events"]["event"]["position"] for _ in range(2)]

    assert received == [1, 2, 3, 4]


async def test_query_while_the_database_is_away_says_so(server: Server, postgres_url: str) -> None:
    async with database_away(postgres_url):
        assert await server.code("{ log { position } }") == "database.unavailable"
        answer = await server.post(
            'mutation { acknowledgeAlert(input: {idempotencyKey: "k", '
            'alertId: "00000000-0000-0000-0000-000000000001"}) { __typename '
            "... on Error { code hint path } } }"
        )
    assert answer["data"]["acknowledgeAlert"] == {
        "__typename": "UnavailableError",
        "code": "database.unavailable",
        "hint": "send the same request again later",
        "path": ["input"],
    }
    assert await server.ask("{ log { position } }") == {"log": {"position": 0}}


class BrokenTail:
    """A tail that yields the positions it was given and then gives up."""

    def __init__(self, *positions: int) -> None:
        self.ledger = SimpleNamespace(name=LEDGER)
        self.positions = positions
        self.asked: list[tuple[int, object]] = []

    async def follow(
        self, after: int, *, retries_max: int, **_: object
    ) -> AsyncIterator[RecordedEvent]:
        """Yield its events."""
        self.asked.append((after, retries_max))
        for position in self.positions:
            yield cast("RecordedEvent", SimpleNamespace(position=position))
        raise ConnectionResetError


@pytest.mark.parametrize("positions", [(), (4, 5)])
async def test_follower_that_cannot_go_on_names_the_cursor_to_resume_from(
    positions: tuple[int, ...],
) -> None:
    tail = BrokenTail(*positions)
    received: list[int] = []

    async def follow() -> None:
        async for event in follow_or_tell(cast("Tail", tail), 3, ALL_EVENTS, PayloadOf.NONE):
            received.append(event.position)  # noqa: PERF401  # what came before it broke counts

    with pytest.raises(Unavailable) as caught:
        await follow()

    assert received == list(positions)
    assert tail.asked == [(3, RETRIES_MAX)]
    assert caught.value.code == "log.unavailable"
    assert caught.value.value == encode_cursor("events", LEDGER, max(positions, default=3))
    assert isinstance(caught.value.__cause__, CONNECTION_LOST)


async def test_subscription_reads_again_what_it_could_not_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [False, True, True, False, True]

    async def read_badly(*arguments: Any, **named: Any) -> list[RecordedEvent]:
        if failing and failing.pop(0):
            raise ConnectionResetError
        return await read_page(*arguments, **named)

    monkeypatch.setattr("eventlog.following.tail.read_page", read_badly)
    async with server.socket() as socket:
        await socket.subscribe(EVENTS, after=server.cursor(0))
        received = []
        for name in ("a", "b", "c", "d", "e", "f"):
            await server.register(name)
            received.append((await socket.next())["events"]["event"]["position"])

    assert received == [1, 2, 3, 4, 5, 6]
    assert not failing


async def test_slow_client_holds_nobody_up(server: Server) -> None:
    names = [f"pump-{number}" for number in range(30)]
    async with server.socket() as slow, server.socket() as quick:
        await slow.subscribe(EVENTS, after=server.cursor(0))
        await quick.subscribe(EVENTS, after=server.cursor(0))
        for name in names:
            await server.command(RegisterAsset(name, PUMP_TYPE, name))
            await server.command(CommissionAsset(name))
        seen = [(await quick.next())["events"]["event"]["position"] for _ in range(60)]
        seen_late = [(await slow.next())["events"]["event"]["position"] for _ in range(60)]

    assert seen == seen_late == list(range(1, 61))
