"""``GET /v1/agents/{agent}/commands``: what an edge agent is told to do, as server-sent events.

Query: ``asset`` and ``model`` (repeated): whose set-points and models are wanted. ``Last-Event-ID``
is a position of the log, from which the stream goes on; without it, it starts with what comes next.
Each event's id is its position; its data says ``directive`` (text), ``key`` and ``signature`` over
it (`domain.directives`). An agent's key opens its own stream alone, for its own assets.

``GET /v1/agents/{agent}/models/{model}``: the directive of the version that serves now, and
``…/models/{model}/{version}``: the file of a version, named by its SHA-256 in ``ETag``.

References
----------
HTML Living Standard, section 9.2, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import orjson
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
from api.problem import problem
from api.services import Services
from api.throttle import Places
from domain.asset import SetpointDesired, asset_stream
from domain.directives import (
    Directive,
    ModelDirective,
    SetpointDirective,
    encode_directive,
    signed_text,
)
from domain.errors import HeddleError, InvalidInput, NotAllowed, NotFound, Unavailable
from domain.identifiers import check_identifier
from domain.opinions.model import ModelPromoted, ModelTrained, model_stream
from domain.opinions.setpoint_proposal import (
    SetpointApproved,
    SetpointProposed,
    setpoint_proposal_stream,
)
from eventlog.database import CONNECTION_LOST
from eventlog.documents import ContentStore
from eventlog.envelope import RecordedEvent
from eventlog.objects import load_object
from eventlog.reading import FILTER_VALUES_MAX, EventFilter, PayloadOf, read_event, read_stream
from eventlog.transparency.signing import CheckpointPublisher

DESIRED: Final = "asset.setpoint_desired"
APPROVED: Final = "setpoint_proposal.approved"
PROPOSED: Final = "setpoint_proposal.proposed"
PROMOTED: Final = "model.promoted"
TRAINED: Final = "model.trained"

STREAMS_MAX: Final = 500
"""Streams of a server that may be open; an agent has one."""
ALIVE_EVERY_S: Final = 5.0
RETRY_MS: Final = 2_000
RETRIES_MAX: Final = 18
MODEL_EVENTS_MAX: Final = 2_000

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
    """Whose set-points and models an agent asks for, from which position on; None: from now."""

    agent: str
    assets: frozenset[str]
    models: frozenset[str]
    after: int | None

    @property
    def filter(self) -> EventFilter:
        """The events that lead to a directive; found by the index of streams."""
        streams = [asset_stream(asset) for asset in sorted(self.assets)]
        streams += [model_stream(model) for model in sorted(self.models)]
        return EventFilter(types=(DESIRED, PROMOTED), streams=tuple(streams))


class AgentStreams:
    """The endpoints of agents."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._places = Places(STREAMS_MAX)
        self._closing = asyncio.Event()
        self._identities = IdentityWatch(services.authenticator)
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
        after = head if wanted.after is None else wanted.after
        stream = self._stream(wanted, after, identity, publisher)
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
            promoted = await self._serving(model)
            directive = await self._model_directive(agent, promoted)
            told = await self._signed(directive, self._publisher())
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
            sha256 = (await self._trained(model, version)).artefact_sha256
            if not await asyncio.to_thread(self._contents.has, sha256):
                raise NotFound(
                    "model.file_missing",
                    f"the file of {model}@{version} is not among the documents",
                    hint=f"heddle documents add the file whose SHA-256 is {sha256}",
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
        self, wanted: _Wanted, after: int, identity: Identity, publisher: CheckpointPublisher
    ) -> AsyncGenerator[bytes, None]:
        messages = self._messages(wanted, after, identity, publisher)
        ended = asyncio.Event()
        try:
            with (
                self._places.place(),
                self._identities.watching(identity, lambda _: ended.set()),
            ):
                # The id at the beginning is where an agent resumes that was told nothing yet.
                yield b"retry: %d\nid: %d\nevent: ready\ndata:\n\n" % (RETRY_MS, after)
                async with aclosing(_alive(messages, ended, self._closing)) as alive:
                    async for message in alive:
                        yield message
        except HeddleError as error:
            logger.info("the stream of agent %s ends: %s", wanted.agent, error)
        except CONNECTION_LOST:
            logger.info("the stream of agent %s ends: the log cannot be read", wanted.agent)

    async def _messages(
        self, wanted: _Wanted, after: int, identity: Identity, publisher: CheckpointPublisher
    ) -> AsyncGenerator[bytes, None]:
        following = self._services.tail.follow(
            after, wanted=wanted.filter, payloads=PayloadOf.FACTS, retries_max=RETRIES_MAX
        )
        async with aclosing(following) as events:
            async for event in events:
                directive = await self._directive(wanted.agent, event, identity)
                if directive is None:
                    continue
                signed = await self._signed(directive, publisher)
                yield b"id: %d\nevent: directive\ndata: %b\n\n" % (event.position, signed)

    async def _directive(
        self, agent: str, event: RecordedEvent, identity: Identity
    ) -> Directive | None:
        if event.erased:
            return None
        match event.fact:
            case SetpointDesired() as desired:
                sight = await self._services.sights.of(identity)
                if not sight.sees_asset(desired.asset_id):
                    return None
                return await self._setpoint_directive(agent, event, desired)
            case ModelPromoted():
                return await self._model_directive(agent, event)
            case _:
                return None

    async def _setpoint_directive(
        self, agent: str, event: RecordedEvent, desired: SetpointDesired
    ) -> SetpointDirective:
        approval = await self._approval_of(event, desired)
        proposal_id, proposed_by = approval or (None, None)
        return SetpointDirective(
            ledger=self._services.ledger.name,
            position=event.position,
            agent=agent,
            issued_at=event.recorded_at,
            expires_at=event.recorded_at
            + timedelta(seconds=self._services.settings.setpoint_valid_s),
            asset_id=desired.asset_id,
            setpoint=desired.setpoint,
            value=desired.value,
            proposal_id=proposal_id,
            proposed_by=proposed_by,
            approved_by=event.actor,
        )

    async def _approval_of(
        self, event: RecordedEvent, desired: SetpointDesired
    ) -> tuple[str, str] | None:
        """Return the proposal and its proposer where an approval is why `event` was recorded.

        Both were recorded together, the approval right before the set-point.
        """
        before = await read_event(self._services.ledger, event.position - 1)
        if (
            before is None
            or before.type != APPROVED
            or before.erased
            or (before.recorded_at, before.actor) != (event.recorded_at, event.actor)
        ):
            return None
        approved = before.fact
        assert isinstance(approved, SetpointApproved), "its type says so"
        stream = setpoint_proposal_stream(approved.proposal_id)
        first = await read_stream(self._services.ledger, stream, limit=1)
        if not first or first[0].type != PROPOSED or first[0].erased:
            return None
        proposed = first[0].fact
        assert isinstance(proposed, SetpointProposed), "its type says so"
        asked = (proposed.asset_id, proposed.setpoint, proposed.value)
        if asked != (desired.asset_id, desired.setpoint, desired.value):
            return None
        return approved.proposal_id, first[0].actor

    # --- models ---------------------------------------------------------------------------

    async def _model_directive(self, agent: str, event: RecordedEvent) -> ModelDirective:
        promoted = event.fact
        assert isinstance(promoted, ModelPromoted), "its type says so"
        trained = await self._trained(promoted.model_id, promoted.version)
        return ModelDirective(
            ledger=self._services.ledger.name,
            position=event.position,
            agent=agent,
            issued_at=event.recorded_at,
            expires_at=event.recorded_at + MODEL_VALID,
            model_id=promoted.model_id,
            version=promoted.version,
            purpose=trained.purpose,
            artefact_sha256=trained.artefact_sha256,
        )

    async def _serving(self, model: str) -> RecordedEvent:
        """Return the event by which the version of `model` was promoted that serves now."""
        version = (await load_object(self._services.ledger, model_stream(model))).state.serving
        for event in await self._model_events(model, backwards=True):
            if event.type == PROMOTED and not event.erased and event.fact.version == version:
                return event
        raise NotFound(
            "model.none_serves",
            f"no version of model {model!r} serves",
            hint="promote one, or check the name",
            value=model,
        )

    async def _trained(self, model: str, version: str) -> ModelTrained:
        for event in await self._model_events(model):
            if event.type == TRAINED and not event.erased and event.fact.version == version:
                trained = event.fact
                assert isinstance(trained, ModelTrained), "its type says so"
                return trained
        raise NotFound(
            "model.unknown_version",
            f"version {version!r} of model {model!r} was not trained",
            hint="check the name",
            value=f"{model}@{version}",
        )

    async def _model_events(self, model: str, *, backwards: bool = False) -> list[RecordedEvent]:
        return await read_stream(
            self._services.ledger,
            model_stream(model),
            limit=MODEL_EVENTS_MAX,
            backwards=backwards,
        )

    async def _signed(self, directive: Directive, publisher: CheckpointPublisher) -> bytes:
        key = await asyncio.to_thread(publisher.signer.keys.current)
        encoded = encode_directive(directive)
        signature = key.sign(signed_text(encoded))
        return orjson.dumps(
            {
                "directive": encoded,
                "key": f"{signature.name}+{signature.key_id.hex()}",
                "signature": base64.b64encode(signature.value).decode(),
            }
        )


MODEL_VALID: Final = timedelta(days=365)
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
