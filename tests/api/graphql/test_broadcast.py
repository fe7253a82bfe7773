"""Subscriptions are executed once for all who ask the same; each client is told all the same."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from graphql import OperationDefinitionNode, parse

from api.access.keys import create_key
from api.access.rights import Role
from api.app import projections
from api.graphql.broadcast import Subscriptions, cursor_variable
from api.graphql.groups import KEPT_BYTES_MAX
from api.graphql.sockets import FrameLine
from api.websocket_protocol import UNSENT_BYTES_MAX
from domain.asset import AssetRegistered, DesireSetpoint
from domain.maintenance.work_order import Priority, RequestWorkOrder
from eventlog.commands import handle
from eventlog.envelope import new_fact
from projections.running.projection import Policy
from tests.api.graphql.server import PUMP_TYPE, WAIT_S, Server, Socket, serving
from tests.api.graphql.test_changes import WORK_ORDERS
from tests.api.graphql.test_sse import streaming, until
from tests.api.graphql.test_subscriptions import EVENTS

pytestmark = pytest.mark.anyio

_ledgers = itertools.count(1)
POSITIONS = "subscription($after: Cursor) { events(after: $after) { cursor event { position } } }"


def subscriptions_of(server: Server) -> Subscriptions:
    return server.application.graphql.subscriptions


async def all_live(server: Server, subscribers: int, groups: int = 1) -> None:
    """Wait until so many subscribers of so many groups are told by these."""
    found = subscriptions_of(server)
    await until(lambda: sum(group.live for group in found.groups) == subscribers)
    assert len(found.groups) == groups


async def record(server: Server, count: int, *, title: str = "Pump", at_once: int = 1) -> None:
    """Record `count` events of some size."""
    for begin in range(0, count, at_once):
        await server.ledger.append(
            [
                new_fact(
                    f"asset:made-{uuid.uuid4().hex}",
                    AssetRegistered(f"made-{begin}-{n}", PUMP_TYPE, title),
                    event_id=uuid.uuid4(),
                    occurred_at=server.clock.now,
                    actor="user:test",
                )
                for n in range(min(at_once, count - begin))
            ]
        )


async def positions(socket: Socket, count: int, id: str = "1") -> list[int]:
    return [(await socket.next(id))["events"]["event"]["position"] for _ in range(count)]


# --- once for all -------------------------------------------------------------------------


async def test_result_is_made_once_however_many_get_it(server: Server) -> None:
    await record(server, 5)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(server.socket()) for _ in range(8)]
        for number, socket in enumerate(sockets):
            # Each with an id and a cursor of its own, two on one socket.
            await socket.subscribe(POSITIONS, f"id-{number}", after=server.cursor(number % 6))
        await sockets[0].subscribe(POSITIONS, "second", after=server.cursor(5))
        stream = await stack.enter_async_context(
            streaming(server, POSITIONS, last=server.cursor(4), after=server.cursor(0))
        )
        await all_live(server, 10)
        before = subscriptions_of(server).counts.executed
        await record(server, 20)
        told = []
        for number, socket in enumerate(sockets[1:], 1):
            told.append(await positions(socket, 25 - number % 6, f"id-{number}"))
        events = [(await stream.next())["data"]["events"]["event"]["position"] for _ in range(21)]
        executed = subscriptions_of(server).counts.executed - before
        twice: dict[str, list[int]] = {"id-0": [], "second": []}
        for _ in range(25 + 20):
            message = await sockets[0].receive()
            twice[message["id"]].append(message["payload"]["data"]["events"]["event"]["position"])

    assert executed == 20
    assert told == [list(range(number % 6 + 1, 26)) for number in range(1, 8)]
    assert events == list(range(5, 26))
    assert twice == {"id-0": list(range(1, 26)), "second": list(range(6, 26))}
    await until(lambda: not subscriptions_of(server).groups)


async def test_other_variables_are_another_group(server: Server) -> None:
    async with server.socket() as socket:
        for number, types in enumerate((["asset.registered"], ["asset.retired"], None)):
            wanted = None if types is None else {"types": types}
            await socket.subscribe(EVENTS, str(number), after=server.cursor(0), filter=wanted)
        await all_live(server, 3, groups=3)
        await server.register("pump-1")
        told = {(await socket.receive())["id"] for _ in range(2)}

    assert told == {"0", "2"}


async def test_identities_share_what_they_may_see_alike_and_nothing_else(
    shared_database_url: str,
) -> None:
    folded = [each for each in projections() if not isinstance(each, Policy)]
    ledger = f"broadcast-{next(_ledgers)}"
    async with (
        serving(shared_database_url, projections=folded, ledger=ledger, api_keys=True) as server,
        AsyncExitStack() as stack,
    ):
        await server.register("mine", "theirs", commission=True)
        sockets = []
        for name, role, assets in (
            ("one", Role.VIEWER, None),
            ("two", Role.VIEWER, None),
            ("part", Role.VIEWER, ["mine"]),
        ):
            text, _ = await create_key(
                server.ledger,
                name=name,
                roles=[role],
                locations=None,
                assets=assets,
                expires_at=None,
                created_by="user:test",
                now=datetime.now(UTC),
            )
            socket = await stack.enter_async_context(
                server.socket({"authorization": f"Bearer {text}"})
            )
            wanted = {"types": ["asset.setpoint_desired"]}
            await socket.subscribe(EVENTS, filter=wanted, after=server.cursor(0))
            sockets.append(socket)
        await all_live(server, 3, groups=2)
        for value in (2e-4, 3e-4):
            await server.command(DesireSetpoint("theirs", "flow", value))
            await server.command(DesireSetpoint("mine", "flow", value))
        streams = []
        for socket, count in zip(sockets, (4, 4, 2), strict=True):
            told = [(await socket.next())["events"]["event"] for _ in range(count)]
            streams.append([event["stream"] for event in told])

    everything = ["asset:theirs", "asset:mine"] * 2
    assert streams == [everything, everything, ["asset:mine"] * 2]


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ("subscription($a: Cursor) { events(after: $a) { cursor } }", "a"),
        ("subscription($a: Cursor) { ... { x: events(after: $a) { cursor } } }", "a"),
        (
            "subscription($a: Cursor) { ...F } fragment F on Subscription "
            "{ ...G } fragment G on Subscription { events(after: $a) { cursor } }",
            "a",
        ),
        ("subscription { events { cursor } }", None),
        ('subscription { events(after: "x") { cursor } }', None),
        # Whatever else hangs on it may make results differ.
        ("subscription($a: Cursor) { events(after: $a) { other(is: [{b: $a}]) } }", None),
        ("subscription($a: Cursor) { events(after: $a) { cursor @include(if: $a) } }", None),
        ("subscription($a: Cursor) { events(filter: {types: [$a]}) { cursor } }", None),
    ],
)
def test_cursor_alone_tells_no_groups_apart(document: str, name: str | None) -> None:
    node = parse(document)
    definition = node.definitions[0]
    assert isinstance(definition, OperationDefinitionNode)

    assert cursor_variable(node, definition) == name


async def test_cursor_in_the_document_is_where_its_client_starts(server: Server) -> None:
    await record(server, 6)
    document = f'subscription {{ events(after: "{server.cursor(2)}") {{ event {{ position }} }} }}'
    async with server.socket() as first, server.socket() as second:
        await first.subscribe(document)
        told = await positions(first, 4)
        await all_live(server, 1)
        await second.subscribe(document)
        late = await positions(second, 4)
        await all_live(server, 2)
        await record(server, 2)
        told += await positions(first, 2)
        late += await positions(second, 2)

    assert told == late == list(range(3, 9))


# --- each at his own pace -----------------------------------------------------------------


async def follow(
    server: Server, after: int, last: int, rng: random.Random, *, transport: str
) -> list[int]:
    """Follow from position `after` to `last`, with pauses, and now and then a new connection."""
    told: list[int] = []
    while after < last:
        leaves_after = rng.randint(5, 80)
        if transport == "ws":
            async with server.socket(messages_max=rng.choice((1, 4, None))) as socket:
                await socket.subscribe(POSITIONS, after=server.cursor(after))
                for _ in range(leaves_after):
                    told += await positions(socket, 1)
                    if told[-1] == last:
                        break
                    if rng.random() < 0.1:
                        await asyncio.sleep(rng.random() * 0.05)
        else:
            async with streaming(server, POSITIONS, last=server.cursor(after)) as stream:
                for _ in range(leaves_after):
                    told.append((await stream.next())["data"]["events"]["event"]["position"])
                    if told[-1] == last:
                        break
        after = told[-1]
    return told


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whoever_comes_and_goes_is_told_of_each_event_once_and_in_order(
    server: Server, seed: int
) -> None:
    rng = random.Random(seed)
    last = 400
    await record(server, 100, at_once=50)

    async def write() -> None:
        while (head := await server.ledger.head()) < last:
            count = min(rng.randint(1, 12), last - head)
            await record(server, count, at_once=count)
            await asyncio.sleep(rng.random() * 0.02)

    starts = [rng.randint(0, 100) for _ in range(12)]
    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        followers = [
            group.create_task(
                follow(
                    server,
                    start,
                    last,
                    random.Random(seed * 100 + n),
                    transport="sse" if n % 4 == 0 else "ws",
                )
            )
            for n, start in enumerate(starts)
        ]

    for start, follower in zip(starts, followers, strict=True):
        assert follower.result() == list(range(start + 1, last + 1))


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_change_counts_once_whenever_its_client_comes(
    shared_database_url: str, seed: int
) -> None:
    rng = random.Random(seed)
    folded = [each for each in projections() if not isinstance(each, Policy)]
    ledger = f"broadcast-{next(_ledgers)}"
    async with serving(shared_database_url, projections=folded, ledger=ledger) as server:
        await server.register("pump-1", commission=True)
        begin = await server.ledger.head()
        orders = 60

        async def write() -> None:
            for number in range(orders):
                await handle(
                    server.ledger,
                    RequestWorkOrder(f"WO-{number}", "pump-1", None, "Look", None, Priority.NORMAL),
                    actor="user:test",
                    occurred_at=server.clock.now,
                    event_id=lambda _: uuid.uuid4(),
                )
                await asyncio.sleep(rng.random() * 0.04)

        async def listen(rng: random.Random) -> tuple[int, list[str]]:
            cursor, events, seen = server.cursor(begin), 0, list[str]()
            while events < orders:
                async with server.socket(messages_max=1) as socket:
                    await socket.subscribe(WORK_ORDERS, after=cursor)
                    for _ in range(rng.randint(1, 6)):
                        message = (await socket.next())["workOrders"]
                        cursor, events = message["cursor"], events + message["events"]
                        seen += [order["workOrderId"] for order in message["workOrders"]]
                        if events >= orders:
                            break
                        await asyncio.sleep(rng.random() * 0.03)
            return events, seen

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            listeners = [group.create_task(listen(random.Random(seed * 100 + n))) for n in range(8)]

    for listener in listeners:
        events, seen = listener.result()
        assert events == orders
        assert seen == [f"WO-{number}" for number in range(orders)]


async def test_clients_that_never_read_are_bounded_and_resume(server: Server) -> None:
    slow_sockets, events, title = 50, 120, "x" * 8_000
    async with AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(server.socket(messages_max=1))
            for _ in range(slow_sockets)
        ]
        reader = await stack.enter_async_context(server.socket())
        for socket in (*slow, reader):
            await socket.subscribe(EVENTS, after=server.cursor(0))
        await all_live(server, slow_sockets + 1)
        recording = asyncio.create_task(record(server, events, title=title, at_once=4))
        told = await positions(reader, events)
        await recording
        unsent = server.application.graphql.unsent_bytes()
        counts = subscriptions_of(server).counts
        kept, evicted = counts.kept_bytes, counts.evicted
        again = [await positions(socket, events) for socket in slow[:10]]
        # One that was cut off resumes where it stopped reading.
        some = await positions(slow[10], 7)
        async with server.socket() as resumed:
            await resumed.subscribe(EVENTS, after=server.cursor(some[-1]))
            some += await positions(resumed, events - 7)

    everything = list(range(1, events + 1))
    assert told == some == everything
    assert again == [everything] * 10
    assert evicted >= slow_sockets
    # Far less than the 48 MB that were told: what is unsent of each, and one batch beyond it.
    assert unsent <= slow_sockets * (UNSENT_BYTES_MAX + 5 * 10_000)
    assert kept <= KEPT_BYTES_MAX


async def test_streams_that_are_never_read_are_bounded_and_resume(server: Server) -> None:
    slow_streams, events, title = 10, 120, "x" * 8_000
    async with AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(streaming(server, POSITIONS_AND_FACTS))
            for _ in range(slow_streams)
        ]
        await all_live(server, slow_streams)
        await record(server, events, title=title, at_once=4)
        await until(lambda: subscriptions_of(server).counts.evicted >= slow_streams)
        unsent = server.application.graphql.unsent_bytes()
        told = [
            [(await stream.next())["data"]["events"]["event"]["position"] for _ in range(events)]
            for stream in slow
        ]

    assert told == [list(range(1, events + 1))] * slow_streams
    assert unsent <= slow_streams * 2 * (UNSENT_BYTES_MAX + 5 * 10_000)


POSITIONS_AND_FACTS = "subscription { events { cursor event { position fact } } }"


async def test_socket_that_takes_nothing_does_not_hold_up_the_end(server: Server) -> None:
    async with server.socket(messages_max=1) as stuck, server.socket() as other:
        await stuck.subscribe(EVENTS, after=server.cursor(0))
        await all_live(server, 1)
        await record(server, 120, title="x" * 8_000, at_once=4)
        await until(lambda: subscriptions_of(server).counts.evicted >= 1)
        async with asyncio.timeout(WAIT_S):
            await server.application.graphql.sockets.drain(0.3)
        code, reason = await other.closed()

    assert code == 1001
    assert "resume" in (reason or "")


async def test_socket_that_neither_reads_nor_answers_is_let_go(server: Server) -> None:
    sockets = server.application.graphql.sockets
    async with server.socket(messages_max=1) as stuck:
        await stuck.subscribe(EVENTS, after=server.cursor(0))
        await all_live(server, 1)
        (group,) = subscriptions_of(server).groups
        (subscriber,) = group.subscribers
        assert isinstance(subscriber.line, FrameLine)
        protocol = subscriber.line.protocol
        await record(server, 120, title="x" * 8_000, at_once=4)
        await until(lambda: subscriptions_of(server).counts.evicted >= 1)
        assert protocol.unsent_bytes > 0
        protocol.keepalive_timeout()
        await until(lambda: len(sockets) == 0)
        assert not subscriptions_of(server).groups


async def test_completed_operation_leaves_its_group_and_its_id_is_free(server: Server) -> None:
    async with server.socket() as socket:
        for id in ("a", "b"):
            await socket.subscribe(POSITIONS, id, after=server.cursor(0))
        await all_live(server, 2)
        await socket.send({"id": "a", "type": "complete"})
        await socket.subscribe("{ log { position } }", "a")
        assert await socket.next("a") == {"log": {"position": 0}}
        assert await socket.receive() == {"id": "a", "type": "complete"}
        await all_live(server, 1)
        await record(server, 1)
        assert await positions(socket, 1, "b") == [1]


async def test_metrics_tell_of_groups(server: Server) -> None:
    async with server.socket() as socket:
        for id in ("a", "b"):
            await socket.subscribe(POSITIONS, id, after=server.cursor(0))
        await all_live(server, 2)
        await record(server, 3)
        for _ in range(6):
            await socket.receive()
        text = (await server.http.get("/metrics")).text

    for line in (
        "heddle_subscription_groups 1.0",
        'heddle_subscribers{state="live"} 2.0',
        'heddle_subscribers{state="behind"} 0.0',
        "heddle_subscription_group_subscribers_max 2.0",
        "heddle_subscription_messages_total 3.0",
        "heddle_subscription_deliveries_total 6.0",
        "heddle_subscription_evictions_total 0.0",
        "heddle_subscription_unsent_bytes 0.0",
    ):
        assert line in text
