"""A GraphQL server for tests: a real socket on a real database, and plain clients to it."""

from __future__ import annotations

import asyncio
import itertools
import socket
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import numpy as np
import orjson
import uvicorn
from asyncpg.connection import LoggedQuery
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from api.app import Application, create_app
from api.graphql.relay import encode_cursor
from api.graphql.scalars import Cursor
from api.http_protocol import BoundedHttpProtocol
from api.services import Services
from api.settings import ServerSettings
from api.websocket_protocol import FrameProtocol
from domain.asset import CommissionAsset, RegisterAsset, telemetry_stream
from domain.asset_types import asset_type
from domain.frame_checks import header_for, mark_out_of_range
from domain.frames import Column, FloatArray, Frame, IntArray, build_frame, time_from_ns
from eventlog.commands import Handled, handle
from eventlog.database import create_pool
from eventlog.envelope import new_frame
from eventlog.following.tail import Tail
from eventlog.ledger import Appended, Ledger
from projections.alerts.projection import AlertProjection
from projections.running.runner import Projection, ProjectionRunner
from projections.thread.projection import ThreadProjection
from projections.twins.projection import TwinProjection

LEDGER: Final = "plant-1"
PUMP_TYPE: Final = "skab-pump-loop"
START: Final = datetime(2020, 3, 9, 12, 0, tzinfo=UTC)
WAIT_S: Final = 20.0
DRIVERS_OWN: Final = ("typeinfo_tree", "set_config('jit'", "current_setting('jit')")

MET_BY_CHANCE_MAX: Final = 2
"""So many look-ups of one kind that two branches of a question need may or may not be one
statement: that depends on which branch the database has answered first."""

_sequences = itertools.count(1)


def held_to(few: Sequence[str], many: Sequence[str]) -> None:
    """Assert that `many` objects took the statements that `few` took, none once an object."""
    assert set(many) <= set(few), set(many) - set(few)
    assert len(many) <= len(few) + MET_BY_CHANCE_MAX, "\n".join(many)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += timedelta(seconds=seconds)


def time_ns(moment: datetime) -> int:
    """Return `moment` in ns since 1970 UTC."""
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def frame_of(
    asset_id: str,
    channels: Mapping[str, tuple[str, Sequence[float] | FloatArray]],
    *,
    start: datetime = START,
    step_s: float = 1.0,
    clock: IntArray | None = None,
    agent: str = "gateway-1",
    qualities: Mapping[str, Column] | None = None,
) -> Frame:
    """Return a frame of a pump loop, as ingest would record it.

    Parameters
    ----------
    channels : per name, (unit as delivered, values), all of one length
    clock : times of the values, ns since 1970 UTC; without it `start`, then every `step_s`
    """
    pump = asset_type(PUMP_TYPE)
    header = header_for(
        pump, asset_id, agent, [(name, unit) for name, (unit, _) in channels.items()]
    )
    count = len(next(iter(channels.values()))[1])
    if clock is None:
        clock = time_ns(start) + np.arange(count, dtype=np.int64) * round(step_s * 1e9)
    frame = build_frame(
        header,
        next(_sequences),
        [clock],
        [np.array(values, np.float64) for _, values in channels.values()],
        [(qualities or {}).get(name) for name in channels],
    )
    return mark_out_of_range(frame, pump)


@dataclass
class Server:
    """A running server, and the ways into it."""

    url: str
    services: Services
    clock: Clock
    http: httpx.AsyncClient
    application: Application

    # --- what happens in the plant --------------------------------------------------------

    async def command(self, command: Any, *, actor: str = "user:test") -> Handled:
        """Handle `command` and wait until it is reflected."""
        handled = await handle(
            self.ledger,
            command,
            actor=actor,
            occurred_at=self.clock.now,
            event_id=lambda _: uuid.uuid4(),
        )
        await self.settle()
        return handled

    async def register(self, *asset_ids: str, commission: bool = False) -> None:
        """Register pump loops."""
        for asset_id in asset_ids:
            await self.command(RegisterAsset(asset_id, PUMP_TYPE, f"Pump {asset_id}"))
            if commission:
                await self.command(CommissionAsset(asset_id))

    async def record(self, *frames: Frame) -> Appended:
        """Append `frames` and wait until they are reflected."""
        appended = await self.ledger.append(
            [
                new_frame(
                    telemetry_stream(frame.header.asset),
                    frame,
                    event_id=uuid.uuid4(),
                    occurred_at=time_from_ns(frame.window_end_ns),
                )
                for frame in frames
            ]
        )
        await self.settle()
        return appended

    @property
    def ledger(self) -> Ledger:
        """The log that is served."""
        return self.services.ledger

    def cursor(self, position: int) -> Cursor:
        """Return the cursor after the event at `position`."""
        return encode_cursor("events", self.ledger.name, position)

    async def settle(self) -> int:
        """Wait until every projection has reached the head of the log; return it."""
        head = await self.ledger.head()
        for runner in self.services.runners.values():
            await runner.wait_for(head, WAIT_S)
        return head

    @asynccontextmanager
    async def statements(self) -> AsyncIterator[list[str]]:
        """Yield a list that fills with every SQL statement that is executed meanwhile."""
        await self.settle()
        pool = self.ledger.pool
        executed: list[str] = []

        watching = True

        def note(statement: LoggedQuery) -> None:
            # The driver looks up a type that it meets for the first time on a connection.
            if watching and not any(own in statement.query for own in DRIVERS_OWN):
                executed.append(statement.query)

        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(pool.acquire()) for _ in range(pool.get_max_size())
            ]
            for connection in connections:
                connection.add_query_logger(note)
        yield executed
        watching = False

    # --- clients --------------------------------------------------------------------------

    async def post(
        self, document: str, variables: Mapping[str, Any] | None = None, **headers: str
    ) -> dict[str, Any]:
        """Return the whole answer to `document`."""
        response = await self.http.post(
            "/graphql", json={"query": document, "variables": variables}, headers=headers
        )
        answer: dict[str, Any] = response.json()
        return answer

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the data that answers `document`, which must not fail."""
        answer = await self.post(document, variables)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    async def error(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the one error that answers `document`."""
        answer = await self.post(document, variables)
        (error,) = answer["errors"]
        found: dict[str, Any] = error
        return found

    async def code(self, document: str, **variables: Any) -> str:
        """Return the code of the one error that answers `document`."""
        code: str = (await self.error(document, **variables))["extensions"]["code"]
        return code

    @asynccontextmanager
    async def socket(
        self,
        headers: Mapping[str, str] | None = None,
        *,
        initialise: bool = True,
        messages_max: int | None = None,
    ) -> AsyncIterator[Socket]:
        """Open a WebSocket, acknowledged unless told otherwise.

        Parameters
        ----------
        messages_max : messages that the client takes in before somebody asks for one; None: all
        """
        async with connect(
            self.url.replace("http", "ws", 1) + "/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=headers,
            max_size=None,
            max_queue=messages_max,
            proxy=None,
        ) as connection:
            opened = Socket(connection)
            if initialise:
                await opened.send({"type": "connection_init"})
                assert await opened.receive() == {"type": "connection_ack"}
            try:
                yield opened
            finally:
                if messages_max is not None:
                    # To close in order it would have to take in what it left in the line.
                    connection.transport.abort()


class Socket:
    """A client of graphql-transport-ws."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: object) -> None:
        """Send one message."""
        await self.connection.send(orjson.dumps(message).decode())

    async def receive(self) -> dict[str, Any]:
        """Return the next message, which is text."""
        async with asyncio.timeout(WAIT_S):
            text = await self.connection.recv()
        assert isinstance(text, str), "text frames only"
        message: dict[str, Any] = orjson.loads(text)
        return message

    async def subscribe(self, document: str, id: str = "1", **variables: Any) -> None:
        """Start the operation `id`."""
        payload = {"query": document, "variables": variables}
        await self.send({"id": id, "type": "subscribe", "payload": payload})

    async def next(self, id: str = "1") -> dict[str, Any]:
        """Return the data of the next result of the operation `id`."""
        message = await self.receive()
        assert (message["id"], message["type"]) == (id, "next"), message
        assert "errors" not in message["payload"], message
        data: dict[str, Any] = message["payload"]["data"]
        return data

    async def error(self, id: str = "1") -> dict[str, Any]:
        """Return the one error that ends the operation `id`."""
        message = await self.receive()
        assert (message["id"], message["type"]) == (id, "error"), message
        (error,) = message["payload"]
        found: dict[str, Any] = error
        return found

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait until the server has closed the socket; return the code and the reason."""
        async with asyncio.timeout(WAIT_S):
            await self.connection.wait_closed()
        return self.connection.close_code, self.connection.close_reason


# --- the server ---------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    database_url: str, *, projections: Sequence[Projection] | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """Serve GraphQL on the migrated database at `database_url`, on a free loopback port.

    Parameters
    ----------
    projections : what is folded; by default twins, alerts and the thread
    settings : of `ServerSettings`
    """
    async with AsyncExitStack() as stack:
        clock = Clock()
        services = await stack.enter_async_context(
            _services(database_url, clock, settings, projections)
        )
        application = create_app(services)
        url = await stack.enter_async_context(listening(application))
        client = httpx.AsyncClient(base_url=url, timeout=WAIT_S, trust_env=False)
        http = await stack.enter_async_context(client)
        yield Server(url, services, clock, http, application)


@asynccontextmanager
async def _services(
    database_url: str,
    clock: Clock,
    settings: Mapping[str, Any],
    projections: Sequence[Projection] | None,
) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        pool = await create_pool(database_url)
        stack.push_async_callback(pool.close)
        configured = ServerSettings(**{"webhook_key": bytes(range(32)), **settings})
        ledger = await Ledger.open(pool, configured.ledger)
        stack.push_async_callback(ledger.close)
        tail = Tail(ledger, database_url)
        stack.push_async_callback(tail.close)
        runners: dict[str, ProjectionRunner] = {}
        for projection in projections or (TwinProjection(), AlertProjection(), ThreadProjection()):
            runner = ProjectionRunner(projection, tail)
            stack.push_async_callback(runner.close)
            runners[projection.name] = runner
        yield Services(configured, ledger, tail, runners, now=clock)


@asynccontextmanager
async def listening(application: Application) -> AsyncIterator[str]:
    # asyncio switches Nagle's algorithm off only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        application,
        log_level="error",
        http=BoundedHttpProtocol,
        lifespan="off",
        ws=FrameProtocol,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=1,
    )
    server = _QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


class _QuietServer(uvicorn.Server):
    """uvicorn's server, which says when it listens and leaves signals to pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
