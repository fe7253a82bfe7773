"""Frames, commands and the stream of commands over HTTP(S): API key, client certificate, bounds."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import msgspec
import orjson
from opentelemetry import propagate, trace

from domain.errors import InvalidInput
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, encode_batch
from edge_agent.outbox.records import AgentCommand, PendingFrame
from edge_agent.settings import Settings
from edge_agent.uplink.transport import (
    BatchAnswer,
    CommandResult,
    RequestFailed,
    RequestMalformed,
    StreamMessage,
    Wanted,
)

FRAMES_PATH: Final = "/v1/frames"
GRAPHQL_PATH: Final = "/graphql"
LOOPBACK_HOSTS: Final = ("127.0.0.1", "::1", "localhost")
BATCH_HEADER_BYTES: Final = len(encode_batch(()))
RESPONSE_BYTES_MAX: Final = 4 * 1024 * 1024
RETRY_AFTER_S_MAX: Final = 3600.0
FETCH_S_MAX: Final = 600.0
STREAM_MESSAGE_BYTES_MAX: Final = 256 * 1024
STREAM_SILENCE_S_MAX: Final = 20.0
"""The server gives a sign of life more often; after this the stream is taken for dead."""
PASSING_CODES: Final = frozenset(
    {
        "access.denied",
        "asset.unknown",
        "command.in_future",
        "ledger.unavailable",
        "model.unknown_version",
    }
)
"""Refusals of a command that pass by themselves, once somebody has registered what it names, or
once a clock that goes ahead has been set right and its time has come."""

_BATCH: Final = """
mutation AgentBatch($items: [CommandItem!]!) {
  batch(input: {items: $items}) {
    items { index outcome { __typename ... on Error { code message } } }
  }
}
"""

_log = logging.getLogger("heddle.edge.uplink")
_tracer = trace.get_tracer("heddle.edge")


@asynccontextmanager
async def open_http_transport(settings: Settings) -> AsyncGenerator[HttpTransport, None]:
    """Yield the way to the server of `settings`.

    Raises
    ------
    InvalidInput
        ``settings.certificate_unusable``
    """
    # No timeouts here: each request is bounded as a whole.
    async with httpx.AsyncClient(
        base_url=settings.server_url,
        timeout=None,
        headers=_credentials(settings),
        verify=tls_context(settings) if settings.server_url.startswith("https:") else True,
    ) as client:
        yield HttpTransport(client, settings)


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return how the agent trusts the server and shows itself to it.

    Raises
    ------
    InvalidInput
        ``settings.certificate_unusable``
    """
    try:
        context = ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
        if settings.certificate_file is not None:
            context.load_cert_chain(
                settings.certificate_file, settings.key_file, settings.key_password
            )
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            "settings.certificate_unusable",
            f"the certificate or key of the agent cannot be used: {error}",
            hint="see HEDDLE_AGENT_CA_FILE, HEDDLE_AGENT_CERTIFICATE_FILE, HEDDLE_AGENT_KEY_FILE",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _credentials(settings: Settings) -> dict[str, str]:
    """Return the header by which the server knows the agent."""
    if settings.api_key is None:
        return {}
    url = httpx.URL(settings.server_url)
    if url.scheme == "http" and url.host not in LOOPBACK_HOSTS:
        _log.warning("the API key goes to %s in the clear: use https", settings.server_url)
    return {"authorization": f"Bearer {settings.api_key}"}


class HttpTransport:
    """Sends over one client, whose base URL is the server."""

    def __init__(self, client: httpx.AsyncClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    @property
    def address(self) -> str:
        """The server's URL."""
        return self._settings.server_url

    @property
    def frames_bytes_overhead(self) -> int:
        """Bytes of a batch that are no frame."""
        return BATCH_HEADER_BYTES

    async def send_frames(self, frames: Sequence[PendingFrame]) -> BatchAnswer:
        """Send `frames` in one request and return what became of each."""
        body = encode_batch(BatchItem(frame.event_id, frame.encoded) for frame in frames)
        attributes = {"heddle.frame_count": len(frames), "heddle.body_bytes": len(body)}
        with _tracer.start_as_current_span("heddle.edge.send", attributes=attributes):
            raw = await self._post(FRAMES_PATH, body, BATCH_MEDIA_TYPE)
        return _answer(raw, frames)

    async def send_commands(self, commands: Sequence[AgentCommand]) -> list[CommandResult]:
        """Send `commands` as one batch of mutations and return what became of each."""
        items = [
            {command.mutation: {"idempotencyKey": command.idempotency_key, **command.input}}
            for command in commands
        ]
        body = orjson.dumps({"query": _BATCH, "variables": {"items": items}})
        attributes = {"heddle.command_count": len(commands)}
        with _tracer.start_as_current_span("heddle.edge.send_commands", attributes=attributes):
            raw = await self._post(GRAPHQL_PATH, body, "application/json")
        return _outcomes(raw, len(commands))

    async def receive_directives(self, wanted: Wanted) -> AsyncIterator[StreamMessage]:
        """Yield the messages of the server's stream for an agent."""
        headers = {"accept": "text/event-stream", "accept-encoding": "identity"}
        if wanted.after is not None:
            headers["last-event-id"] = str(wanted.after)
        query = {"asset": sorted(wanted.assets), "model": sorted(wanted.models)}
        request = self._client.build_request(
            "GET", f"/v1/agents/{wanted.agent}/commands", params=query, headers=headers
        )
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                response = await self._client.send(request, stream=True)
            async with _closing(response):
                if response.status_code != httpx.codes.OK:
                    async with asyncio.timeout(self._settings.request_timeout_s):
                        _check_status(response, await _bounded_body(response, RESPONSE_BYTES_MAX))
                async for message in _messages(response):
                    yield message
        except TimeoutError as error:
            raise RequestFailed("uplink.timeout", "the stream gave no sign of life") from error
        except httpx.HTTPError as error:
            raise RequestFailed("uplink.unreachable", f"{type(error).__name__}: {error}") from error

    async def fetch(self, path: str, bytes_max: int) -> bytes:
        """Return what the server has under `path`."""
        request = self._client.stream("GET", path)
        return await _answered(request, FETCH_S_MAX, bytes_max)

    async def _post(self, path: str, body: bytes, media_type: str) -> bytes:
        headers = {
            "content-type": media_type,
            "accept": "application/json",
            "accept-encoding": "identity",
        }
        propagate.inject(headers)
        request = self._client.stream("POST", path, content=body, headers=headers)
        return await _answered(request, self._settings.request_timeout_s, RESPONSE_BYTES_MAX)


async def _answered(
    request: AbstractAsyncContextManager[httpx.Response], timeout_s: float, bytes_max: int
) -> bytes:
    """Return the whole body that answers `request`, which has to be a success."""
    try:
        async with asyncio.timeout(timeout_s), request as response:
            raw = await _bounded_body(response, bytes_max)
    except TimeoutError as error:
        raise RequestFailed("uplink.timeout", f"no answer within {timeout_s:g} s") from error
    except httpx.HTTPError as error:
        raise RequestFailed("uplink.unreachable", f"{type(error).__name__}: {error}") from error
    _check_status(response, raw)
    return raw


@asynccontextmanager
async def _closing(response: httpx.Response) -> AsyncGenerator[None, None]:
    """Close `response` in the end."""
    try:
        yield
    finally:
        await response.aclose()


async def _bounded_body(response: httpx.Response, bytes_max: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > bytes_max:
            raise RequestFailed(
                "uplink.answer_too_large", f"the answer takes more than {bytes_max} bytes"
            )
    return bytes(body)


def _check_status(response: httpx.Response, raw: bytes) -> None:
    """Raise `RequestFailed` unless the answer is about what was sent."""
    status = response.status_code
    if status == httpx.codes.OK:
        return
    told = f"HTTP {status} {raw[:200].decode(errors='replace')!r}"
    raise RequestFailed(
        f"uplink.http_{status}",
        told,
        retry_after_s=retry_after_s(response.headers.get("retry-after", "")),
        too_large=status == httpx.codes.REQUEST_ENTITY_TOO_LARGE,
    )


def retry_after_s(text: str) -> float:
    """Return the pause a Retry-After header asks for, bounded; 0 when it asks for none."""
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    wait_s = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, wait_s), RETRY_AFTER_S_MAX)


def _answer(raw: bytes, frames: Sequence[PendingFrame]) -> BatchAnswer:
    """Return the answer in `raw` if it is one to `frames`; otherwise nothing is believed of it."""
    try:
        answer = msgspec.json.decode(raw, type=BatchAnswer)
    except msgspec.DecodeError as error:
        told = f"the answer is not one to a batch of frames: {error}"
        raise RequestFailed("uplink.unreadable_answer", told) from error
    for index, result in enumerate(answer.results):
        expected = frames[index].sequence if index < len(frames) else None
        if result.index != index or (result.sequence not in (None, expected)):
            told = f"result {index} speaks of index {result.index}, sequence {result.sequence}"
            raise RequestFailed("uplink.unreadable_answer", told)
    return answer


def _outcomes(raw: bytes, count: int) -> list[CommandResult]:
    """Return what became of each of `count` commands, if the answer is one to them."""
    try:
        answer: dict[str, Any] = orjson.loads(raw)
        if answer.get("errors"):
            first = answer["errors"][0]
            code = first.get("extensions", {}).get("code", "")
            told = f"{code}: {first.get('message')}"[:500]
            # Without a code it is nobody's fault here: an internal error, which may pass.
            raise (RequestMalformed if code else RequestFailed)("uplink.refused", told)
        items = answer["data"]["batch"]["items"]
        if [item["index"] for item in items] != list(range(count)):
            raise RequestFailed("uplink.unreadable_answer", "the answer is to other commands")
        return [_outcome(item["outcome"]) for item in items]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        told = f"the answer is not one to a batch of commands: {error!r:.200}"
        raise RequestFailed("uplink.unreadable_answer", told) from error


def _outcome(outcome: dict[str, Any]) -> CommandResult:
    code = outcome.get("code", "")
    return CommandResult(
        code,
        outcome.get("message", ""),
        outcome["__typename"] == "UnavailableError" or code in PASSING_CODES,
    )


# --- server-sent events -------------------------------------------------------------------


async def _messages(response: httpx.Response) -> AsyncIterator[StreamMessage]:
    """Yield the events of a stream of server-sent events; a comment is a sign of life."""
    fields: dict[str, list[str]] = {}
    async for line in _lines(response):
        if line.startswith(":"):
            yield StreamMessage(None, "")
        elif line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif fields:
            told = fields.get("id", [""])[-1]
            data = "\n".join(fields.get("data", []))
            position = int(told) if told.isascii() and told.isdigit() else None
            if data or position is not None:
                yield StreamMessage(position, data)
            fields = {}


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Yield lines, none longer than a message may be, waiting for none longer than silence may.

    Raises
    ------
    TimeoutError
    RequestFailed
        ``uplink.answer_too_large``
    """
    rest = b""
    pieces = response.aiter_bytes()
    while True:
        async with asyncio.timeout(STREAM_SILENCE_S_MAX):
            piece = await anext(pieces, None)
        if piece is None:
            return
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > STREAM_MESSAGE_BYTES_MAX:
            raise RequestFailed(
                "uplink.answer_too_large",
                f"a message takes more than {STREAM_MESSAGE_BYTES_MAX} bytes",
            )
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
