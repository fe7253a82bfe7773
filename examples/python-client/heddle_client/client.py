"""A client of Heddle's API: typed operations, retries that repeat nothing, resumed streams."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

TRIES: Final = 6
WAIT_S_MAX: Final = 30.0
"""Between two tries, unless the server names a longer time."""

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
PROTOCOL: Final = Subprotocol("graphql-transport-ws")
AGAIN: Final = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request may succeed."""

ENDED_FOR_GOOD: Final = frozenset({4400, 4401, 4403, 4406, 4409})
"""Codes of a closed socket that trying again does not mend."""

LAGGING: Final = frozenset({"log.unavailable", "projection.behind", "server.busy"})
"""Codes of errors that end a subscription for now."""

Variables = TypeVar("Variables", bound=msgspec.Struct)
Data = TypeVar("Data", bound=msgspec.Struct)


@dataclass(frozen=True)
class Operation(Generic[Variables, Data]):
    """A document, and the types of what it takes and what it answers."""

    kind: str
    document: str
    variables: type[Variables]
    data: type[Data]


class Refused(Exception):
    """An operation failed; `code` is stable, the message is for people."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        self.errors = errors
        self.code = errors[0].get("extensions", {}).get("code", "") if errors else ""
        super().__init__("; ".join(error["message"] for error in errors))


class Unreachable(Exception):
    """The server could not be reached, or had no room, at any of several tries."""


class Client:
    """A client of one server; use it with `async with`.

    Parameters
    ----------
    url : where the server is, such as ``http://127.0.0.1:8000``
    token : an API key or a token; None where the server is open to this machine
    tries : how often a request is sent at most
    """

    def __init__(self, url: str, token: str | None = None, *, tries: int = TRIES) -> None:
        self._tries = tries
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._socket_url = url.replace("http", "ws", 1) + "/graphql"
        self._http = httpx.AsyncClient(base_url=url, headers=self._headers, timeout=60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def query(self, operation: Operation[Variables, Data], variables: Variables) -> Data:
        """Return what a query answers.

        Raises
        ------
        Refused
            it is not answered, or not in full
        Unreachable
            nobody answered
        """
        payload = await self._sent(operation, msgspec.to_builtins(variables))
        return msgspec.convert(payload["data"], operation.data)

    async def mutate(self, operation: Operation[Variables, Data], variables: Variables) -> Data:
        """Return what a mutation answers; expected failures are members of its result's union.

        It is sent again, with the same idempotency key, after whatever leaves open what became of
        it, and after an ``UnavailableError``: it is carried out once.

        Raises
        ------
        Refused, Unreachable
            as `query`; after `Unreachable` send it again with the same key when you can
        """
        given = msgspec.to_builtins(variables)
        for tried in range(self._tries):
            payload = await self._sent(operation, given)
            results = payload["data"].values()
            if not any(result["__typename"] == "UnavailableError" for result in results):
                break
            await _wait(tried, None)
        return msgspec.convert(payload["data"], operation.data)

    async def subscribe(
        self, operation: Operation[Variables, Data], variables: Variables
    ) -> AsyncIterator[Data]:
        """Yield the messages of a subscription that has `cursor`; goes on where it broke off.

        Keep the cursor of the last message that you have dealt with: a later process goes on
        there with the variable `after`. Between two messages of this iterator none is lost or told
        twice, however often the connection ends.

        Raises
        ------
        Refused
            the server ended it for good
        Unreachable
            there was no connection at so many tries in a row
        """
        given = msgspec.to_builtins(variables)
        failed = 0
        while True:
            try:
                async with connect(
                    self._socket_url,
                    subprotocols=[PROTOCOL],
                    additional_headers=self._headers,
                    max_size=MESSAGE_BYTES_MAX,
                ) as socket:
                    async for data in _messages(socket, operation.document, given):
                        failed = 0
                        given["after"] = next(iter(data.values()))["cursor"]
                        yield msgspec.convert(data, operation.data)
                    return
            except InvalidStatus as error:
                if error.response.status_code not in AGAIN:
                    raise Refused([{"message": str(error)}]) from error
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code in ENDED_FOR_GOOD:
                    raise Refused([{"message": closed.rcvd.reason}]) from closed
            except Refused as refused:
                if refused.code not in LAGGING:
                    raise
            except OSError:
                pass
            failed += 1
            if failed >= self._tries:
                raise Unreachable(f"no connection to {self._socket_url}")
            await _wait(failed - 1, None)

    async def export(self, table: str, **parameters: str) -> bytes:
        """Return an export as an Arrow stream: ``pyarrow.ipc.open_stream(it).read_all()``.

        Parameters
        ----------
        table : such as ``readings``; docs/exports.md has them, and their parameters. Of one that
            Python has for itself the underscore at the end is left out: ``from_``
        """
        given = {name.rstrip("_"): value for name, value in parameters.items()}
        for tried in range(self._tries):
            try:
                response = await self._http.get(f"/v1/export/{table}", params=given)
            except httpx.TransportError:  # also where it broke off: what came is not all
                await _wait(tried, None)
                continue
            if response.status_code == 200:
                return response.content
            if response.status_code not in AGAIN:
                problem = response.json()
                raise Refused([{"message": problem["title"], "extensions": problem}])
            await _wait(tried, response.headers.get("retry-after"))
        raise Unreachable(f"no export of {table} from {self._http.base_url}")

    async def _sent(self, operation: Operation[Any, Any], variables: Any) -> dict[str, Any]:
        body = {"query": operation.document, "variables": variables}
        for tried in range(self._tries):
            try:
                response = await self._http.post("/graphql", json=body)
            except httpx.TransportError:
                await _wait(tried, None)
                continue
            if response.status_code in AGAIN:
                await _wait(tried, response.headers.get("retry-after"))
                continue
            payload: dict[str, Any] = response.json()
            if payload.get("errors"):
                raise Refused(payload["errors"])
            return payload
        raise Unreachable(f"no answer from {self._http.base_url}")


def new_key() -> str:
    """Return an idempotency key: one for each thing that you want done, kept until it is."""
    return str(uuid.uuid4())


async def _messages(
    socket: ClientConnection, document: str, variables: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Yield the data of each result of a subscription over a socket that was just opened."""
    await socket.send('{"type": "connection_init"}')
    payload = {"query": document, "variables": variables}
    async for text in socket:
        message = json.loads(text)
        match message["type"]:
            case "connection_ack":
                await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            case "next":
                told = message["payload"]
                if told.get("errors"):
                    raise Refused(told["errors"])
                yield told["data"]
            case "error":
                raise Refused(message["payload"])
            case "complete":
                return
            case "ping":
                await socket.send('{"type": "pong"}')


async def _wait(tried: int, retry_after: str | None) -> None:
    """Wait before the next try: longer each time, and not all clients at once."""
    seconds = random.uniform(0, min(WAIT_S_MAX, 0.1 * 2**tried))
    if retry_after is not None and retry_after.isdigit():
        seconds += int(retry_after)
    await asyncio.sleep(seconds)
