"""Commands over GraphQL: what every mutation takes, how it is carried out, what it answers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, Self, TypeVar

import orjson
import strawberry
from opentelemetry import trace

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.errors import Failure, member_of
from api.graphql.scalars import Position
from api.tracing import traceparent_of
from domain.asset import AssetCommand
from domain.errors import HeddleError, InvalidInput
from eventlog.commands import Handled, handle
from eventlog.database import CONNECTION_LOST
from eventlog.ledger import IdempotencyKey

_NOT_CONTENT: Final = ("idempotency_key", "dry_run")


@strawberry.input
class CommandInput:
    """What every mutation takes."""

    idempotency_key: str = strawberry.field(
        description="Your own name for this request, 1 to 200 printable characters, such as a "
        "UUID. The same key with the same input is carried out once, however often it is sent; "
        "with another input it is refused."
    )
    expected_version: Position | None = strawberry.field(
        default=None,
        description="Carry it out only if the asset is still at this version; null: at any.",
    )
    dry_run: bool = strawberry.field(
        default=False, description="Check and decide, but record nothing."
    )

    async def command(self, context: OperationContext) -> AssetCommand:
        """Return what is asked for as a command; that may fail as the command itself may."""
        raise NotImplementedError


@strawberry.interface(description="What every mutation that succeeded says.")
class CommandSuccess:
    """`eventlog.commands.Handled`, and the input that it answers."""

    given: strawberry.Private[Any]
    position: Position = strawberry.field(
        description="The log reflects the command from here on: give it to a query as "
        "`minPosition` to read your own write."
    )
    version: Position = strawberry.field(description="The asset's version afterwards.")
    duplicate: bool = strawberry.field(
        description="Whether the idempotency key recalled an earlier request, and nothing was "
        "recorded now."
    )
    dry_run: bool = strawberry.field(description="Whether nothing was recorded for it was a trial.")

    @classmethod
    def of(cls, handled: Handled, given: CommandInput) -> Self:
        """Return the success of the command that `given` asked for."""
        return cls(
            position=Position(handled.position),
            version=Position(handled.version),
            duplicate=handled.duplicate,
            dry_run=given.dry_run,
            given=given,
        )


SuccessT = TypeVar("SuccessT", bound=CommandSuccess)


async def carry_out(
    info: OperationInfo, given: CommandInput, success: type[SuccessT]
) -> SuccessT | Failure:
    """Handle the command that `given` asks for, and return its success or its failure."""
    context, services = info.context, info.context.services
    try:
        key = IdempotencyKey.of(given.idempotency_key, _content(info.field_name, given))
        _check_texts(given)
        handled = await handle(
            services.ledger,
            await given.command(context),
            actor=context.actor,
            occurred_at=services.now(),
            event_id=lambda _: services.new_event_id(),
            idempotency=key,
            expected_version=given.expected_version,
            traceparent=traceparent_of(trace.get_current_span()),
            dry_run=given.dry_run,
        )
    except (HeddleError, *CONNECTION_LOST) as error:
        member = member_of(error, [_camel(field.name) for field in fields(given)])
        if member is None:
            raise
        return member
    # What this operation has loaded so far was true before the command.
    context.forget()
    return success.of(handled, given)


def _content(mutation: str, given: CommandInput) -> bytes:
    """Return the canonical JSON of what is asked for: the same request gives the same bytes."""
    content = {
        field.name: getattr(given, field.name)
        for field in fields(given)
        if field.name not in _NOT_CONTENT
    }
    return orjson.dumps({"mutation": mutation, "input": content}, option=orjson.OPT_SORT_KEYS)


def _check_texts(given: CommandInput) -> None:
    """Refuse what the log would refuse, so that a dry run refuses it too."""
    for field in fields(given):
        value = getattr(given, field.name)
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(
                "event.text_malformed",
                f"{_camel(field.name)} holds a NUL character, which no text in the log may",
                value=value[:80],
            )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
