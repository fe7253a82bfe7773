"""What every request meets first: whether it may come in, and what every response carries.

GraphQL goes to its endpoint straight from here, everything else through Starlette.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.graphql.errors import current_trace_id
from api.graphql.http import REPORT_COST_HEADER
from api.headers import SECURITY_HEADERS
from api.problem import problem
from api.settings import ServerSettings
from domain.errors import HeddleError, InvalidInput

logger = logging.getLogger("heddle.api")

GRAPHQL_PATH: Final = "/graphql"
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
CORS_HEADERS: Final = (
    "authorization",
    "content-type",
    "last-event-id",
    "traceparent",
    "x-heddle-actor",
    REPORT_COST_HEADER,
)
CORS_MAX_AGE_S: Final = 600
POLICY_VIOLATION: Final = 1008
TOLD: Final = "heddle.told"
"""Marks the scope of a request whose failure was answered and logged; Starlette raises it still."""


class ServesGraphQL(Protocol):
    """The endpoint behind ``/graphql``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one socket."""


class Gateway:
    """The ASGI application.

    Parameters
    ----------
    app : serves whatever is not GraphQL
    graphql : serves what is
    """

    def __init__(self, app: ASGIApp, graphql: ServesGraphQL, settings: ServerSettings) -> None:
        self._app = app
        self._graphql = graphql
        self._origins = frozenset(settings.cors_origins)
        self._hosts = _allowed_hosts(settings)
        self.draining = False
        self._cors: ASGIApp | None = None
        if settings.cors_origins:
            self._cors = CORSMiddleware(
                self._serve,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=CORS_HEADERS,
                expose_headers=("retry-after",),
                max_age=CORS_MAX_AGE_S,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket."""
        host = origin = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
        if self._hosts is not None and not _names_one_of(self._hosts, host or b""):
            await self._turn_away(scope, receive, send, _misdirected(host or b""))
        elif scope["type"] == "websocket":
            if origin is None or self._may_connect(origin, host or b""):
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        elif self._cors is not None and origin is not None:
            await self._cors(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == GRAPHQL_PATH:
            await self._graphql(scope, receive, send)
            return
        if self.draining and scope["path"] == "/readyz":
            response = Response(orjson.dumps({"status": "draining"}), 503, None, "application/json")
            await response(scope, receive, hardened(send))
            return
        try:
            await self._app(scope, receive, hardened(send))
        except Exception:
            if TOLD not in scope:
                raise

    async def _turn_away(
        self, scope: Scope, receive: Receive, send: Send, error: HeddleError
    ) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            await problem(error)(scope, receive, hardened(send))

    def _may_connect(self, origin: bytes, host: bytes) -> bool:
        """Return whether a page of `origin` may open a socket: browsers ask nobody before."""
        given = origin.decode("latin-1")
        return given in self._origins or urlsplit(given).netloc == host.decode("latin-1")


def hardened(send: Send) -> Send:
    """Return `send` with the headers that a response lacks of those that each should carry."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            given = {name.lower() for name, _ in headers}
            is_script = any(n.lower() == b"content-type" and b"javascript" in v for n, v in headers)
            for name, value in SECURITY_HEADERS:
                # A worker is bound by the policy that its own script came with.
                if name not in given and not (is_script and name == b"content-security-policy"):
                    headers.append((name, value))
            message = {**message, "headers": headers}
        await send(message)

    return sending


async def tell_http_error(_request: Request, error: Exception) -> Response:
    """Answer what no route serves with a problem."""
    assert isinstance(error, HTTPException)
    code, hint = _WORDS.get(error.status_code, ("http.error", ""))
    body = {
        "type": f"urn:heddle:error:{code}",
        "title": error.detail,
        "status": error.status_code,
        "code": code,
        "hint": hint,
    }
    return Response(
        orjson.dumps(body), error.status_code, error.headers, "application/problem+json"
    )


async def tell_failure(request: Request, error: Exception) -> Response:
    """Answer what nobody expected with a trace id; the log has the cause under it."""
    trace_id = current_trace_id()
    request.scope[TOLD] = True
    logger.error("%s failed, trace %s", request.url.path, trace_id, exc_info=error)
    body = {
        "type": "urn:heddle:error:internal",
        "title": "internal error",
        "status": 500,
        "code": "internal",
        "hint": "tell your operator the trace id; the server's log has the cause",
        "traceId": trace_id,
    }
    return Response(orjson.dumps(body), 500, None, "application/problem+json")


EXCEPTION_HANDLERS: Final = {HTTPException: tell_http_error, Exception: tell_failure}

_WORDS: Final = {
    404: ("path.unknown", "see docs/api.md for what is served where"),
    405: ("method.not_allowed", "the header Allow names the methods"),
}


def _allowed_hosts(settings: ServerSettings) -> frozenset[str] | None:
    """Return the names that requests may be for; None: any.

    A server that only this machine reaches is asked by local names. Any other one comes from a page
    that had its own name lead here, to be let in as if it were ours (DNS rebinding).
    """
    if settings.allowed_hosts:
        return frozenset(name.lower() for name in settings.allowed_hosts)
    return LOOPBACK_HOSTS if settings.host in ("127.0.0.1", "localhost", "::1") else None


@lru_cache(maxsize=64)
def _names_one_of(hosts: frozenset[str], host: bytes) -> bool:
    name = host[:300].decode("latin-1").lower()
    before, colon, port = name.rpartition(":")
    return (before if colon and port.isdigit() else name) in hosts


def _misdirected(host: bytes) -> HeddleError:
    return InvalidInput(
        "host.misdirected",
        f"nothing is served here under the name {host[:80].decode('latin-1')!r}",
        hint="ask by a local name, or name the host in HEDDLE_ALLOWED_HOSTS",
        value=host[:80].decode("latin-1"),
    )
