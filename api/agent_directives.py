"""What of the log an edge agent is told, and in which words: events become signed directives.

A set-point that is desired and a version of a model that is promoted or retired are told as they
are recorded. What was desired before an agent's first stream and has not been answered since is
told when that stream begins (`Directives.unanswered`).
"""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import Final

import orjson

from api.access.identity import Identity
from api.services import Services
from domain.asset import (
    SetpointDeclined,
    SetpointDesired,
    SetpointReported,
    asset_stream,
)
from domain.directives import (
    Directive,
    ModelDirective,
    ModelRetirement,
    SetpointDirective,
    encode_directive,
    signed_text,
)
from domain.errors import NotFound
from domain.opinions.model import ModelPromoted, ModelRetired, ModelTrained, model_stream
from domain.opinions.setpoint_proposal import (
    SetpointApproved,
    SetpointProposed,
    setpoint_proposal_stream,
)
from domain.records import CORRECTED, RecordCorrected
from eventlog.envelope import RecordedEvent
from eventlog.objects import load_object
from eventlog.reading import (
    EventFilter,
    PayloadOf,
    read_event,
    read_page_backwards,
    read_stream,
)
from eventlog.transparency.signing import CheckpointPublisher

DESIRED: Final = "asset.setpoint_desired"
REPORTED: Final = "asset.setpoint_reported"
DECLINED: Final = "asset.setpoint_declined"
APPROVED: Final = "setpoint_proposal.approved"
PROPOSED: Final = "setpoint_proposal.proposed"
PROMOTED: Final = "model.promoted"
RETIRED: Final = "model.retired"
TRAINED: Final = "model.trained"

MODEL_VALID: Final = timedelta(days=365)
MODEL_EVENTS_MAX: Final = 2_000
ANSWERS_MAX: Final = 10_000
"""Events about set-points that are looked through for those that nobody has answered."""
PAGE_MAX: Final = 500


class Directives:
    """Makes the directives of one server's log."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def unanswered(self, assets: frozenset[str], up_to: int) -> list[RecordedEvent]:
        """Return what is desired of the set-points of `assets` up to a position, in order.

        Of each set-point the last desire, unless something was reported or declined since, or the
        desire was corrected: who still wants it desires it anew. Of the events about set-points
        the last `ANSWERS_MAX` count.
        """
        if not assets:
            return []
        wanted = EventFilter(
            types=(DESIRED, REPORTED, DECLINED, CORRECTED),
            streams=tuple(asset_stream(asset) for asset in sorted(assets)),
        )
        found: list[RecordedEvent] = []
        settled: set[tuple[str, str]] = set()
        corrected: set[int] = set()
        before, looked_at = up_to + 1, 0
        while before > 1 and looked_at < ANSWERS_MAX:
            page = await read_page_backwards(
                self._services.ledger,
                before,
                limit=PAGE_MAX,
                wanted=wanted,
                payloads=PayloadOf.FACTS,
            )
            for event in page:
                looked_at += 1
                if event.erased:
                    continue
                match event.fact:
                    case RecordCorrected(corrected_position=position):
                        corrected.add(position)
                    case SetpointDesired(asset_id=asset, setpoint=setpoint):
                        if (asset, setpoint) not in settled and event.position not in corrected:
                            found.append(event)
                        settled.add((asset, setpoint))
                    case (
                        SetpointReported(asset_id=asset, setpoint=setpoint)
                        | SetpointDeclined(asset_id=asset, setpoint=setpoint)
                    ):
                        settled.add((asset, setpoint))
            before = page.scanned_to
        return found[::-1]

    async def of(self, agent: str, event: RecordedEvent, identity: Identity) -> Directive | None:
        """Return what `event` tells `agent`, or None: nothing, or nothing that is its to know."""
        if event.erased:
            return None
        match event.fact:
            case SetpointDesired() as desired:
                sight = await self._services.sights.of(identity)
                if not sight.sees_asset(desired.asset_id):
                    return None
                return await self._setpoint_directive(agent, event, desired)
            case ModelPromoted():
                return await self._promotion(agent, event)
            case ModelRetired():
                # Of a version in whose place another one serves, the promotion is told: it is
                # recorded right behind. Told late, this is what was told at once.
                following = await read_event(self._services.ledger, event.position + 1)
                if following is not None and (following.type, following.stream) == (
                    PROMOTED,
                    event.stream,
                ):
                    return None
                return self._retirement(agent, event)
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

    async def standing_of(self, agent: str, model: str) -> ModelDirective | ModelRetirement:
        """Return the directive by which a version of `model` serves, or none does any more.

        Raises
        ------
        NotFound
            ``model.none_serves``: none ever did
        """
        serving = await self._serves(model)
        retired: dict[str, RecordedEvent] = {}
        for event in await self._model_events(model, backwards=True):
            if event.erased:
                continue
            match event.fact:
                case ModelPromoted(version=version) if version == serving:
                    return await self._promotion(agent, event)
                case ModelPromoted(version=version) if serving is None and version in retired:
                    return self._retirement(agent, retired[version])
                case ModelRetired(version=version):
                    retired.setdefault(version, event)
        raise NotFound(
            "model.none_serves",
            f"no version of model {model!r} serves",
            hint="promote one, or check the name",
            value=model,
        )

    async def _serves(self, model: str) -> str | None:
        state = (await load_object(self._services.ledger, model_stream(model))).state
        serving: str | None = state.serving
        return serving

    async def _promotion(self, agent: str, event: RecordedEvent) -> ModelDirective:
        promoted = event.fact
        assert isinstance(promoted, ModelPromoted), "its type says so"
        trained = await self.trained(promoted.model_id, promoted.version)
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

    def _retirement(self, agent: str, event: RecordedEvent) -> ModelRetirement:
        retired = event.fact
        assert isinstance(retired, ModelRetired), "its type says so"
        return ModelRetirement(
            ledger=self._services.ledger.name,
            position=event.position,
            agent=agent,
            issued_at=event.recorded_at,
            expires_at=event.recorded_at + MODEL_VALID,
            model_id=retired.model_id,
            version=retired.version,
            reason=retired.reason,
        )

    async def trained(self, model: str, version: str) -> ModelTrained:
        """Return how a version of a model was made.

        Raises
        ------
        NotFound
            ``model.unknown_version``
        """
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

    async def signed(self, directive: Directive, publisher: CheckpointPublisher) -> bytes:
        """Return the JSON of `directive` with the ledger's signature over it."""
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
