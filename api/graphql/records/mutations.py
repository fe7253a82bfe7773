"""Mutations of records: corrections and signatures. Nothing is ever edited."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import orjson
import strawberry
from opentelemetry import trace

from api.access.rights import Right
from api.access.step_up import StepUp
from api.graphql.commands import (
    CommandInput,
    CommandSuccess,
    answer,
    occurred_at_of,
)
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.declared import MUTATIONS
from api.graphql.errors import Failure
from api.graphql.fields import mutation
from api.graphql.records import enums as _enums  # noqa: F401 (describes Meaning)
from api.graphql.scalars import Json, Position
from api.tracing import traceparent_of
from domain.catalogue import decider_of_command_type, decider_of_stream
from domain.errors import InvalidInput, NotAllowed, Unavailable
from domain.events import UnreadableEvent, decode_fact
from domain.records import CorrectRecord, Meaning
from domain.signatures import SignRecord
from eventlog.commands import Handled
from eventlog.corrections import find_event, handle_correction, unknown_event
from eventlog.ledger import IdempotencyKey
from eventlog.signatures import sign_record, unknown_record


@strawberry.input(description="What an event says, as the log keeps it.")
class EventContent:
    """An event's type and fact."""

    type: str = strawberry.field(description="Stored name, such as `part.scrapped`.")
    schema_version: int = strawberry.field(
        default=1, description="Version of the type's schema that `fact` is written in."
    )
    fact: Json = strawberry.field(description="Its fields: an object, as `events` shows them.")


@strawberry.input(description="Say that an event was wrong, and what is true instead.")
class CorrectRecordInput(CommandInput):
    """Input of `correctRecord`."""

    stream: str = strawberry.field(
        description="The event's stream, such as `part:SN-1042`; `expectedVersion` is its."
    )
    corrected_event_id: UUID = strawberry.field(description="Id of the event that is wrong.")
    reason: str = strawberry.field(description="Why it is wrong, at most 2,000 characters.")
    replacement: EventContent | None = strawberry.field(
        default=None, description="What is true instead; null: nothing happened."
    )
    occurred_at: datetime | None = strawberry.field(
        default=None, description="When it was true; null: the time given so far was right."
    )


@strawberry.type(description="The correction is recorded; the event stays where it is.")
class CorrectRecordSuccess(CommandSuccess):
    """Success of `correctRecord`."""


CorrectRecordResult = Annotated[
    CorrectRecordSuccess | Failure,
    strawberry.union("CorrectRecordResult", description="What became of `correctRecord`."),
]


@strawberry.input(description="Sign an event after 21 CFR Part 11.")
class SignRecordInput(CommandInput):
    """Input of `signRecord`."""

    stream: str = strawberry.field(description="The event's stream, such as `document:DRW-7`.")
    position: Position = strawberry.field(description="The event's position in the log.")
    signer_name: str = strawberry.field(
        description="The signer's printed name, at most 200 characters."
    )
    meaning: Meaning = strawberry.field(description="What the signature says.")
    authentication: str = strawberry.field(
        description="Proof of a fresh authentication by two components, given for this signature: "
        "a token of the identity provider with `auth_time` at most 5 minutes ago, two factors in "
        "`amr`, and as its `nonce` the hex SHA-256 of stream, position and meaning, with line "
        "feeds between them. It is checked and never recorded."
    )
    document_sha256: str | None = strawberry.field(
        default=None,
        description="Hex SHA-256 of the document that the signer has seen, where he signs its "
        "release and wants to be held to it.",
    )


@strawberry.type(description="The event is signed.")
class SignRecordSuccess(CommandSuccess):
    """Success of `signRecord`."""


SignRecordResult = Annotated[
    SignRecordSuccess | Failure,
    strawberry.union("SignRecordResult", description="What became of `signRecord`."),
]


@strawberry.type
class RecordMutations:
    """Root fields."""

    @mutation(
        right=Right.COMMAND,
        description="Say that an event was wrong, and what is true instead. It takes the right "
        "that one of the commands on such an object takes.",
    )
    async def correct_record(
        self,
        info: OperationInfo,
        input: Annotated[
            CorrectRecordInput, strawberry.argument(description="Which event, and what is true.")
        ],
    ) -> CorrectRecordResult:
        """Handle `CorrectRecord`."""
        context = info.context

        async def act(key: IdempotencyKey) -> tuple[Handled, str]:
            return await _correct(context, input, key), input.stream

        return await answer(context, "correctRecord", input, CorrectRecordSuccess, act)

    @mutation(
        right=Right.COMMAND,
        description="Sign an event as it stands. Nobody signs for another, and each signature "
        "takes a fresh authentication by two components.",
    )
    async def sign_record(
        self,
        info: OperationInfo,
        input: Annotated[
            SignRecordInput, strawberry.argument(description="Which event, and with what meaning.")
        ],
    ) -> SignRecordResult:
        """Handle `SignRecord`."""
        context = info.context

        async def act(key: IdempotencyKey) -> tuple[Handled, str]:
            return await _sign(context, input, key), input.stream

        return await answer(context, "signRecord", input, SignRecordSuccess, act)


async def _correct(
    context: OperationContext, given: CorrectRecordInput, key: IdempotencyKey
) -> Handled:
    sight = await context.sight()
    event = await find_event(context.ledger, given.corrected_event_id)
    if await sight.elsewhere({given.stream, *([event.stream] if event else ())}):
        raise unknown_event(given.corrected_event_id)
    _check_right(context, given.stream)
    services = context.services
    occurred_at = given.occurred_at
    if occurred_at is not None:
        occurred_at = occurred_at_of(occurred_at, services.now())
    return await handle_correction(
        services.ledger,
        CorrectRecord(
            given.stream, given.corrected_event_id, given.reason, _fact(given.replacement)
        ),
        actor=context.actor,
        event_id=services.new_event_id(),
        occurred_at=occurred_at,
        idempotency=key,
        expected_version=given.expected_version,
        traceparent=traceparent_of(trace.get_current_span()),
        dry_run=given.dry_run,
    )


def _check_right(context: OperationContext, stream: str) -> None:
    """Refuse (``access.denied``) who may send no command on such an object."""
    decider = decider_of_stream(stream)
    if decider is None:
        return  # nothing decides about it, and the correction will be refused for that
    taken = {
        made.declared.right
        for made in MUTATIONS.values()
        if decider_of_command_type(made.declared.command) is decider
    }
    if not taken & context.identity.rights:
        raise NotAllowed(
            "access.denied",
            f"{context.actor} may send no command on {stream!r}, and so correct nothing of it",
            hint="ask whoever gives out roles",
            value=stream,
        )


def _fact(given: EventContent | None) -> object:
    """Return the event that `given` spells.

    Raises
    ------
    InvalidInput
        ``correction.malformed_replacement``
    """
    if given is None:
        return None
    try:
        return decode_fact(given.type, given.schema_version, orjson.dumps(given.fact))
    except UnreadableEvent as error:
        raise InvalidInput(
            "correction.malformed_replacement",
            f"the replacement is no {given.type!r:.80}: {error.message}",
            hint="give type, schemaVersion and fact as `events` shows those of its kind",
            value=given.type[:80],
        ) from error


async def _sign(context: OperationContext, given: SignRecordInput, key: IdempotencyKey) -> Handled:
    services = context.services
    if services.authenticator.is_open:
        raise Unavailable(
            "signature.no_authority",
            "this server knows nobody who vouches for a fresh authentication",
            hint="configure the identity provider that signers authenticate with",
        )
    step_up = StepUp(services.authenticator, context.peer)
    authentication = await step_up.authentication(given.authentication)
    command = SignRecord(
        given.stream,
        given.position,
        given.signer_name,
        given.meaning,
        authentication,
        given.document_sha256,
    )
    if await (await context.sight()).elsewhere({given.stream}):
        raise unknown_record(command)
    return await sign_record(
        services.ledger,
        command,
        step_up,
        actor=context.actor,
        now=services.now(),
        event_id=services.new_event_id,
        idempotency=key,
        expected_version=given.expected_version,
        traceparent=traceparent_of(trace.get_current_span()),
        dry_run=given.dry_run,
    )
