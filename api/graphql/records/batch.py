"""`batch`: many commands in one request, carried out in order, each with its own outcome.

For integrations that bring a shift's worth of facts: an item that is refused takes no other with
it, and the whole request may be sent again, for each item has an idempotency key of its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import strawberry

from api.access.rights import Right
from api.graphql.commands import CommandInput, CommandSuccess, carry_out, snake
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.declared import MUTATIONS
from api.graphql.errors import Failure, member_of
from api.graphql.fields import mutation
from api.graphql.scalars import Position
from domain.errors import InvalidInput, NotAllowed

ITEMS_MAX: Final = 200


@strawberry.type(description="An item's command is carried out.")
class BatchItemSuccess(CommandSuccess):
    """Success of one item."""


BatchOutcome = Annotated[
    BatchItemSuccess | Failure,
    strawberry.union("BatchOutcome", description="What became of one item of `batch`."),
]


@strawberry.type(description="An item of a batch, and what became of it.")
class BatchItem:
    """One item's outcome."""

    index: int = strawberry.field(description="Its place in the request, from 0.")
    mutation: str = strawberry.field(description="Name of the mutation that it asks for.")
    idempotency_key: str = strawberry.field(description="The key that it was sent with.")
    outcome: BatchOutcome = strawberry.field(description="Its success or its failure.")


@strawberry.type(description="What became of every item, in the order of the request.")
class BatchResult:
    """Answer of `batch`."""

    items: list[BatchItem] = strawberry.field(description="One for each item that was sent.")
    succeeded: int = strawberry.field(description="How many were carried out.")
    position: Position = strawberry.field(
        description="The log reflects all that were carried out from here on; 0 if none was."
    )


def command_item() -> type:
    """Return the input of one item: a field for every declared command, of which one is given."""
    namespace: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for name, made in MUTATIONS.items():
        field = snake(name)
        namespace["__annotations__"][field] = made.input | None
        namespace[field] = strawberry.field(
            default=strawberry.UNSET, description=made.declared.description
        )
    return strawberry.input(
        type("CommandItem", (), namespace),
        one_of=True,
        description="One command: exactly one of these.",
    )


def batch_mutations() -> type:
    """Return the root field `batch`, over all commands that were declared."""
    namespace: dict[str, Any] = {
        "__annotations__": {"items": list[command_item()]},  # type: ignore[misc]
        "__module__": __name__,
        "items": strawberry.field(description=f"1 to {ITEMS_MAX} commands."),
    }
    input_type = strawberry.input(
        type("BatchInput", (), namespace), description="Commands to be carried out in order."
    )

    async def batch(self: Any, info: Any, input: Any) -> Any:  # noqa: ARG001
        return await carry_out_all(info.context, input.items)

    batch.__annotations__ = {
        "info": OperationInfo,
        "input": Annotated[input_type, strawberry.argument(description="What is asked for.")],
        "return": BatchResult,
    }
    field = mutation(
        description="Carry out many commands in order, each with its own outcome: one that is "
        "refused takes no other with it. It is no transaction. Sent again, what was carried out "
        "is recalled by its idempotency key.",
        right=Right.COMMAND,
    )(batch)
    return strawberry.type(type("BatchMutations", (), {"batch": field}))


async def carry_out_all(context: OperationContext, items: list[Any]) -> BatchResult:
    """Carry out `items` in order.

    Raises
    ------
    InvalidInput
        ``batch.size``
    """
    if not 1 <= len(items) <= ITEMS_MAX:
        raise InvalidInput(
            "batch.size",
            f"a batch has 1 to {ITEMS_MAX} commands, not {len(items)}",
            hint="send several batches",
            value=len(items),
            limit=ITEMS_MAX,
        )
    told = []
    position = succeeded = 0
    for index, item in enumerate(items):
        name, given = _given(item)
        outcome = await _carry_out(context, name, given)
        if isinstance(outcome, BatchItemSuccess):
            succeeded += 1
            if not given.dry_run:
                position = max(position, outcome.position)
        told.append(
            BatchItem(
                index=index, mutation=name, idempotency_key=given.idempotency_key, outcome=outcome
            )
        )
    return BatchResult(items=told, succeeded=succeeded, position=Position(position))


async def _carry_out(
    context: OperationContext, name: str, given: CommandInput
) -> BatchItemSuccess | Failure:
    right = MUTATIONS[name].declared.right
    if right not in context.identity.rights:
        denied = NotAllowed(
            "access.denied",
            f"{context.actor} may not {right.value}, which {name} takes",
            hint="ask whoever gives out roles",
            value=name,
        )
        member = member_of(denied, ())
        assert member is not None
        return member
    return await carry_out(context, name, given, BatchItemSuccess)


def _given(item: Any) -> tuple[str, CommandInput]:
    """Return (mutation, input) of the one field that is set; GraphQL has seen to it being one."""
    for name in MUTATIONS:
        given = getattr(item, snake(name))
        if given is not strawberry.UNSET and given is not None:
            return name, given
    raise AssertionError("exactly one field of an item is set")
