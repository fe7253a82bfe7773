"""Commands over GraphQL: what every mutation takes, how it is carried out, what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self, TypeVar

import orjson
import strawberry
from opentelemetry import trace

from api.graphql.context import OperationContext
from api.graphql.errors import Failure, member_of
from api.graphql.scalars import Position
from api.tracing import traceparent_of
from domain.catalogue import decider_of_command
from domain.errors import HeddleError, InvalidInput
from domain.events import format_time
from eventlog.commands import Handled, handle
from eventlog.database import CONNECTION_LOST
from eventlog.ledger import IdempotencyKey

FUTURE_MAX: Final = timedelta(minutes=5)
"""By so much the clock of whoever tells what happened may be ahead of ours."""

_NOT_CONTENT: Final = ("idempotency_key", "dry_run")

_STREAM_OF: Final = {
    "asset_id": "asset",
    "component_id": "component",
    "document_id": "document",
    "from_part_id": "part",
    "inspection_id": "inspection",
    "instrument_id": "instrument",
    "into_lot_id": "lot",
    "into_part_id": "part",
    "item_number": "spare-part",
    "location_id": "location",
    "lot_id": "lot",
    "model_id": "model",
    "nonconformance_id": "nonconformance",
    "parent_id": "location",
    "part_id": "part",
    "prediction_id": "prediction",
    "proposal_id": "setpoint-proposal",
    "run_id": "process-run",
    "scenario_id": "scenario",
    "work_order_id": "work-order",
}
"""The category of the streams that a field of a command names."""


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
        description="Carry it out only if the object is still at this version; null: at any.",
    )
    dry_run: bool = strawberry.field(
        default=False, description="Check and decide, but record nothing."
    )

    async def command(self, context: OperationContext) -> Any:
        """Return what is asked for as a command; that may fail as the command itself may."""
        raise NotImplementedError


@strawberry.interface(description="What every mutation that succeeded says.")
class CommandSuccess:
    """`eventlog.commands.Handled`, the input that it answers, and the stream it was asked of."""

    given: strawberry.Private[Any]
    stream: strawberry.Private[str]
    position: Position = strawberry.field(
        description="The log reflects the command from here on: give it to a query as "
        "`minPosition` to read your own write."
    )
    version: Position = strawberry.field(description="The object's version afterwards.")
    duplicate: bool = strawberry.field(
        description="Whether the idempotency key recalled an earlier request, and nothing was "
        "recorded now."
    )
    dry_run: bool = strawberry.field(description="Whether nothing was recorded for it was a trial.")

    @property
    def key(self) -> str:
        """Natural key of the object."""
        return self.stream.partition(":")[2]

    @classmethod
    def of(cls, handled: Handled, given: CommandInput, stream: str) -> Self:
        """Return the success of the command that `given` asked for."""
        return cls(
            position=Position(handled.position),
            version=Position(handled.version),
            duplicate=handled.duplicate,
            dry_run=given.dry_run,
            given=given,
            stream=stream,
        )


SuccessT = TypeVar("SuccessT", bound=CommandSuccess)


async def carry_out(
    context: OperationContext, name: str, given: CommandInput, success: type[SuccessT]
) -> SuccessT | Failure:
    """Handle the command that `given` asks for, and return its success or its failure.

    Parameters
    ----------
    name : of the mutation; an idempotency key of one does not answer for another
    """
    services = context.services

    async def act(key: IdempotencyKey) -> tuple[Handled, str]:
        command = await given.command(context)
        decider = decider_of_command(command)
        stream = decider.subject(command)
        sight = await context.sight()
        told = decider.happened_at(command) or getattr(given, "occurred_at", None)
        handled = await handle(
            services.ledger,
            command,
            actor=context.actor,
            occurred_at=occurred_at_of(told, services.now()),
            event_id=lambda _: services.new_event_id(),
            idempotency=key,
            expected_version=given.expected_version,
            traceparent=traceparent_of(trace.get_current_span()),
            dry_run=given.dry_run,
            unseen=await sight.elsewhere({stream, *_named(command)}),
        )
        return handled, stream

    return await answer(context, name, given, success, act)


async def answer(
    context: OperationContext,
    name: str,
    given: CommandInput,
    success: type[SuccessT],
    act: Callable[[IdempotencyKey], Awaitable[tuple[Handled, str]]],
) -> SuccessT | Failure:
    """Return what became of `given`: `success`, or the member that tells an expected failure.

    Parameters
    ----------
    act : carries it out once under its key; returns what became of it, and the object's stream
    """
    try:
        key = IdempotencyKey.of(given.idempotency_key, _content(name, given))
        _check_texts("input", given)
        handled, stream = await act(key)
    except (HeddleError, *CONNECTION_LOST) as error:
        member = member_of(error, [camel(field.name) for field in fields(given)])
        if member is None:
            raise
        return member
    # What this operation has loaded so far was true before the command.
    context.forget()
    return success.of(handled, given, stream)


def camel(name: str) -> str:
    """Return the Python name `name` as the schema spells it."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def snake(name: str) -> str:
    """Return the name that the schema spells `name` as Python does: the reverse of `camel`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def occurred_at_of(told: datetime | None, now: datetime) -> datetime:
    """Return when the command's events are true: as it was told, or now.

    Raises
    ------
    InvalidInput
        ``command.in_future``
    """
    if told is None:
        return now
    if told > now + FUTURE_MAX:
        raise InvalidInput(
            "command.in_future",
            f"{format_time(told)} lies in the future: it is {format_time(now)}",
            hint="tell what has happened; planned times have fields of their own",
            value=format_time(told),
            limit=format_time(now + FUTURE_MAX),
        )
    return told


def _named(command: Any) -> Iterator[str]:
    """Yield the streams that `command` names."""
    for field in fields(command):
        value = getattr(command, field.name)
        category = _STREAM_OF.get(field.name)
        if category is not None and value is not None:
            yield f"{category}:{value}"
        elif field.name in ("subject", "cause") and value is not None:
            yield value


def _content(mutation: str, given: CommandInput) -> bytes:
    """Return the canonical JSON of what is asked for: the same request gives the same bytes."""
    content = {
        field.name: getattr(given, field.name)
        for field in fields(given)
        if field.name not in _NOT_CONTENT
    }
    if content.get("occurred_at") is None:
        content.pop("occurred_at", None)
    return orjson.dumps({"mutation": mutation, "input": content}, option=orjson.OPT_SORT_KEYS)


def _check_texts(name: str, value: Any) -> None:
    """Refuse what the log would refuse, so that a dry run refuses it too."""
    if isinstance(value, str) and "\0" in value:
        raise InvalidInput(
            "event.text_malformed",
            f"{name} holds a NUL character, which no text in the log may",
            value=value[:80],
        )
    if isinstance(value, list):
        for item in value:
            _check_texts(name, item)
    elif is_dataclass(value):
        for field in fields(value):
            _check_texts(camel(field.name), getattr(value, field.name))
