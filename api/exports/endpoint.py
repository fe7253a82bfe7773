"""``GET /v1/export/<table>``: a table as a file, streamed as of one position of the log.

Whoever loses the connection asks again with the same `position`, and with `after` the key of the
last row that he is sure of: the rows that follow are the same ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from api.access.guard import identify
from api.access.requirements import denied
from api.access.rights import Right
from api.exports.events import EVENTS
from api.exports.figures import ENERGY, OEE, RELIABILITY
from api.exports.formats import FORMATS, Encoder, Format
from api.exports.parameters import Parameters
from api.exports.readings import READINGS, ROLLUPS
from api.exports.table import Asked, Export, Table
from api.graphql.scalars import POSITION_MAX
from api.problem import problem
from api.services import Services
from domain.errors import HeddleError, InvalidInput, NotFound, Unavailable

PATH: Final = "/v1/export/{table}"
EXPORTS_AT_ONCE_MAX: Final = 4
PLACE_WAIT_S_MAX: Final = 5.0
SEND_S_MAX: Final = 60.0
"""Whoever takes nothing for so long has gone; his place is another's."""

SEND_BYTES: Final = 256 * 1024
COMMON: Final = frozenset({"format", "position"})
TABLES: Final[Mapping[str, Table]] = {
    table.name: table for table in (READINGS, ROLLUPS, EVENTS, RELIABILITY, ENERGY, OEE)
}


def export_routes(services: Services) -> list[Route]:
    """Return the routes of exports."""
    endpoint = ExportEndpoint(services)
    return [Route(PATH, endpoint, methods=["GET"])]


class ExportEndpoint:
    """An ASGI application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._places = asyncio.Semaphore(EXPORTS_AT_ONCE_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            asked, table, written = await self._asked(Request(scope, receive))
            await self._take_place()
        except HeddleError as error:
            await problem(error)(scope, receive, send)
            return
        response = _Response(asked, table, written)
        try:
            await response.send(send)
        except HeddleError as error:
            if response.begun:
                raise  # the connection breaks off: what came is whole rows, but not all of them
            await problem(error)(scope, receive, send)
        finally:
            self._places.release()

    async def _asked(self, request: Request) -> tuple[Asked, Table, Format]:
        identity = await identify(self._services, request)
        if Right.READ not in identity.rights:
            raise denied(request.url.path, Right.READ, identity)
        name = request.path_params["table"]
        table = TABLES.get(name)
        if table is None:
            raise NotFound(
                "export.unknown_table",
                f"there is no table {name!r:.80}",
                hint=f"there are {', '.join(TABLES)}",
                value=name[:80],
            )
        parameters = Parameters(request.query_params.multi_items(), table.parameters | COMMON)
        written = parameters.one_of("format", FORMATS, "arrow")
        ledger = self._services.ledger
        head = await ledger.head()
        position = parameters.whole("position", low=0, high=POSITION_MAX)
        if position is not None and position > head:
            raise InvalidInput(
                "export.beyond_log",
                f"the log ends at {head}, before position {position}",
                value=position,
                limit=head,
            )
        sights = self._services.sights
        sight = await sights.of(identity)
        if not sight.is_whole:
            # Where later events belong is not known yet: they are for whoever goes on from here.
            head = min(head, sights.folded_to())
        asked = Asked(ledger, sight, parameters, head if position is None else min(position, head))
        return asked, table, written

    async def _take_place(self) -> None:
        """Wait for a place among the exports under way.

        Raises
        ------
        Unavailable
            ``export.busy``
        """
        try:
            async with asyncio.timeout(PLACE_WAIT_S_MAX):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable(
                "export.busy",
                f"{EXPORTS_AT_ONCE_MAX} exports are under way already",
                hint="ask again when one of them has ended",
                limit=EXPORTS_AT_ONCE_MAX,
            ) from None


class _Response:
    """One export on its way out."""

    def __init__(self, asked: Asked, table: Table, written: Format) -> None:
        self.begun = False
        self._asked, self._table, self._written = asked, table, written

    async def send(self, send: Send) -> None:
        """Send all of it; what fails before the first byte may still be told."""
        export = await self._table.open(self._asked)
        async with aclosing(_pieces(export, self._written.encoder(export.schema))) as pieces:
            first = await anext(pieces, b"")
            self.begun = True
            await _sent(
                send, {"type": "http.response.start", "status": 200, "headers": self._headers()}
            )
            await _sent(send, {"type": "http.response.body", "body": first, "more_body": True})
            async for piece in pieces:
                await _sent(send, {"type": "http.response.body", "body": piece, "more_body": True})
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})

    def _headers(self) -> list[tuple[bytes, bytes]]:
        name = f"{self._asked.ledger.name}-{self._table.name}.{self._written.name}"
        return [
            (b"content-type", self._written.media_type.encode()),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            (b"heddle-position", str(self._asked.position).encode()),
        ]


async def _pieces(export: Export, encoder: Encoder) -> AsyncGenerator[bytes, None]:
    async with aclosing(export.batches) as batches:
        async for batch in batches:
            encoded = await asyncio.to_thread(encoder.encode, batch)
            for at in range(0, len(encoded), SEND_BYTES):
                yield encoded[at : at + SEND_BYTES]
    ended = await asyncio.to_thread(encoder.end)
    if ended:
        yield ended


async def _sent(send: Send, message: Message) -> None:
    async with asyncio.timeout(SEND_S_MAX):
        await send(message)
