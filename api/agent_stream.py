"""``GET /v1/agents/{agent}/commands``: what an edge agent is told to do, as server-sent events.

Query: ``asset`` and ``model`` (repeated): whose set-points and models are wanted. ``Last-Event-ID``
is a position of the log, from which the stream goes on. Without it, it starts with the set-points
that were desired before and that nobody has answered, and goes on with what comes next; ``ready``
comes after the first, so who is cut off before begins again. Each event's id is its position; its
data says ``directive`` (text), ``key`` and ``signature`` over it (`domain.directives`). An agent's
key opens its own stream alone, for its own assets.

``GET /v1/agents/{agent}/models/{model}``: the directive of the version that serves now, or of the
retirement after which none does, and
``…/models/{model}/{version}``: the file of a version, named by its SHA-256 in ``ETag``.

References
----------
HTML Living Standard, section 9.2, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from api.access.frame_scope import AGENT_PREFIX
from api.access.guard import identify
from api.access.identity import Identity
from api.access.requirements import denied
from api.access.rights import Right, Role
from api.access.validity import IdentityWatch
from api.agent_directives import DESIRED, PROMOTED, RETIRED, Directives
from api.problem import problem
from api.services import Services
from api.throttle import Places
from domain.asset import asset_stream
from domain.errors import HeddleError, InvalidInput, NotAllowed, NotFound, Unavailable
from domain.identifiers import check_identifier
from domain.opinions.model import model_stream
from eventlog.database import CONNECTION_LOST
from eventlog.documents import ContentStore
from eventlog.envelope import RecordedEvent
from eventlog.reading import FILTER_VALUES_MAX, EventFilter, PayloadOf
from eventlog.transparency.signing import CheckpointPublisher

STREAMS_MAX: Final = 500
"""Streams of a server that may be open; an agent has one."""
ALIVE_EVERY_S: Final = 5.0
RETRY_MS: Final = 2_000
RETRIES_MAX: Final = 18

logger = logging.getLogger("heddle.agents")


def agent_routes(streams: AgentStreams) -> list[Route]:
    """Return the routes below ``/v1/agents``."""
    return [
        Route("/v1/agents/{agent}/commands", streams.commands, methods=["GET"]),
        Route("/v1/agents/{agent}/models/{model}", streams.serving_model, methods=["GET"]),
        Route("/v1/agents/{agent}/models/{model}/{version}", streams.model_file, methods=["GET"]),
    ]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Whose set-points and models an agent asks for, from which position on.

    `after` is None for an agent that was told nothing yet.
    """

    agent: str
    assets: frozenset[str]
    models: frozenset[str]
    after: int | None

    @property
    def filter(self) -> EventFilter:
        """The events that lead to a directive; found by the index of streams."""
        streams = [asset_stream(asset) for asset in sorted(self.assets)]
        streams += [model_stream(model) for model in sorted(self.models)]
        return EventFilter(types=(DESIRED, PROMOTED, RETIRED), streams=tuple(streams))


class AgentStreams:
    """The endpoints of agents."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._places = Places(STREAMS_MAX)
        self._closing = asyncio.Event()
        self._identities = IdentityWatch(services.authenticator)
        self._directives = Directives(services)
        self._contents = ContentStore(
            settings.documents_url or str(settings.data_dir / "documents")
        )

    def __len__(self) -> int:
        """Return how many streams are open."""
        return self._places.taken

    def close(self) -> None:
        """End every stream: agents connect again and resume."""
        self._closing.set()

    # --- endpoints ------------------------------------------------------------------------

    async def commands(self, request: Request) -> Response:
        """Answer with the stream, or a problem that says why not."""
        try:
            identity = await self._admitted(request)
            wanted = _wanted(request)
            publisher = self._publisher()
            sight = await self._services.sights.of(identity)
            for asset in sorted(wanted.assets):
                if not sight.sees_asset(asset):
                    raise _not_its_asset(identity, asset)
            head = await self._services.ledger.head()
            if wanted.after is not None and wanted.after > head:
                raise InvalidInput(
                    "position.beyond_head",
                    f"the log ends at {head}, before {wanted.after}",
                    hint="the log has lost events, or this is another one: look before you go on",
                    value=wanted.after,
                    limit=head,
                )
            with self._places.place():
                pass  # refuses while that can be told; the stream takes its place when it starts
        except HeddleError as error:
            return problem(error)
        except CONNECTION_LOST:
            return problem(_database_away())
        stream = self._stream(wanted, head, identity, publisher)
        return StreamingResponse(
            stream,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def serving_model(self, request: Request) -> Response:
        """Answer with the signed directive of the version of a model that serves."""
        try:
            await self._admitted(request)
            agent = request.path_params["agent"]
            model = check_identifier("model", request.path_params["model"])
            directive = await self._directives.standing_of(agent, model)
            told = await self._directives.signed(directive, self._publisher())
        except HeddleError as error:
            return problem(error)
        except CONNECTION_LOST:
            return problem(_database_away())
        return Response(told, media_type="application/json", headers=_UNCACHED)

    async def model_file(self, request: Request) -> Response:
        """Answer with the file of a version; whoever gets it compares its hash."""
        try:
            await self._admitted(request)
            model = check_identifier("model", request.path_params["model"])
            version = check_identifier("model", request.path_params["version"])
            sha256 = (await self._directives.trained(model, version)).artefact_sha256
            if not await asyncio.to_thread(self._contents.has, sha256):
                raise NotFound(
                    "model.file_missing",
                    f"the file of {model}@{version} is not among the documents",
                    hint="`heddle model add` puts it there",
                    value=sha256,
                )
        except HeddleError as error:
            return problem(error)
        except CONNECTION_LOST:
            return problem(_database_away())
        return StreamingResponse(
            self._contents.pieces(sha256),
            media_type="application/octet-stream",
            headers={**_UNCACHED, "ETag": f'"{sha256}"'},
        )

    # --- who asks -------------------------------------------------------------------------

    async def _admitted(self, request: Request) -> Identity:
        identity = await identify(self._services, request)
        agent = check_identifier("agent", request.path_params["agent"])
        if Role.AGENT in identity.roles:
            own = identity.actor.removeprefix(AGENT_PREFIX)
            if own not in (agent, identity.actor):
                raise NotAllowed(
                    "access.denied",
                    f"{identity.actor} asked for what is told to agent {agent!r}",
                    hint="an agent's key has the name of the agent",
                    value=agent,
                    limit=own,
                )
        elif Right.ADMINISTER not in identity.rights:
            raise denied("the commands of an agent", Right.ADMINISTER, identity)
        return identity

    def _publisher(self) -> CheckpointPublisher:
        if self._services.checkpoints is None:
            raise Unavailable(
                "agents.no_signer",
                "this server signs nothing, and an agent obeys signed commands alone",
                hint="ask a server that serves the log's checkpoints",
            )
        return self._services.checkpoints

    # --- the stream -----------------------------------------------------------------------

    async def _stream(
        self, wanted: _Wanted, head: int, identity: Identity, publisher: CheckpointPublisher
    ) -> AsyncGenerator[bytes, None]:
        messages = self._messages(wanted, head, identity, publisher)
        ended = asyncio.Event()
        try:
            with (
                self._places.place(),
                self._identities.watching(identity, lambda _: ended.set()),
            ):
                yield b"retry: %d\n" % RETRY_MS
                async with aclosing(_alive(messages, ended, self._closing)) as alive:
                    async for message in alive:
                        yield message
        except HeddleError as error:
            logger.info("the stream of agent %s ends: %s", wanted.agent, error)
        except CONNECTION_LOST:
            logger.info("the stream of agent %s ends: the log cannot be read", wanted.agent)

    async def _messages(
        self, wanted: _Wanted, head: int, identity: Identity, publisher: CheckpointPublisher
    ) -> AsyncGenerator[bytes, None]:
        after = wanted.after
        if after is None:
            # No id yet: an agent that is cut off among these is told all of them again.
            for event in await self._directives.unanswered(wanted.assets, head):
                message = await self._message(wanted, event, identity, publisher)
                if message is not None:
                    yield message
            after = head
        # Where an agent resumes that is told nothing more.
        yield b"id: %d\nevent: ready\ndata:\n\n" % after
        following = self._services.tail.follow(
            after, wanted=wanted.filter, payloads=PayloadOf.FACTS, retries_max=RETRIES_MAX
        )
        async with aclosing(following) as events:
            async for event in events:
                message = await self._message(wanted, event, identity, publisher)
                if message is not None:
                    yield message

    async def _message(
        self,
        wanted: _Wanted,
        event: RecordedEvent,
        identity: Identity,
        publisher: CheckpointPublisher,
    ) -> bytes | None:
        directive = await self._directives.of(wanted.agent, event, identity)
        if directive is None:
            return None
        signed = await self._directives.signed(directive, publisher)
        return b"id: %d\nevent: directive\ndata: %b\n\n" % (event.position, signed)


_UNCACHED: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def _alive(
    messages: AsyncGenerator[bytes, None], *endings: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """Yield `messages` until they end or one of `endings` is set; where none comes, a comment."""
    ending = [asyncio.ensure_future(event.wait()) for event in endings]
    coming = asyncio.ensure_future(anext(messages, None))
    try:
        while True:
            done, _ = await asyncio.wait(
                (coming, *ending), timeout=ALIVE_EVERY_S, return_when=asyncio.FIRST_COMPLETED
            )
            if any(end in done for end in ending):
                return
            if not done:
                yield b":\n\n"
                continue
            message = coming.result()
            if message is None:
                return
            yield message
            coming = asyncio.ensure_future(anext(messages, None))
    finally:
        for task in (*ending, coming):
            task.cancel()
        await asyncio.gather(*ending, coming, return_exceptions=True)
        await messages.aclose()


def _wanted(request: Request) -> _Wanted:
    query: QueryParams = request.query_params
    unknown = sorted(set(query) - {"asset", "model"})
    if unknown:
        raise _malformed(f"{unknown[0]!r:.80} is no parameter", unknown[0][:80])
    assets, models = query.getlist("asset"), query.getlist("model")
    if not 1 <= len(assets) + len(models) <= FILTER_VALUES_MAX:
        raise _malformed(
            f"{len(assets) + len(models)} assets and models; 1 to {FILTER_VALUES_MAX}",
            len(assets) + len(models),
        )
    last = request.headers.get("last-event-id", "")
    if last and not (last.isascii() and last.isdigit() and len(last) <= 18):
        raise _malformed(f"{last!r:.40} is no position", last[:40])
    return _Wanted(
        request.path_params["agent"],
        frozenset(check_identifier("asset", asset) for asset in assets),
        frozenset(check_identifier("model", model) for model in models),
        int(last) if last else None,
    )


def _malformed(what: str, value: Sequence[str] | str | int) -> InvalidInput:
    return InvalidInput(
        "agents.query",
        what,
        hint="GET /v1/agents/edge-1/commands?asset=press-07&model=bearing-wear",
        value=value,
    )


def _not_its_asset(identity: Identity, asset: str) -> NotAllowed:
    return NotAllowed(
        "access.denied",
        f"{identity.actor} does not speak for asset {asset!r}",
        hint="its key names the assets that it speaks for; have one made that names this",
        value=asset,
    )


def _database_away() -> Unavailable:
    return Unavailable("database.unavailable", "the database cannot be reached now")
