"""Mutations made from commands: a declaration says which, everything else follows from its class.

A command of `domain` is a frozen dataclass. Its input has the same fields in the words of
`api.graphql.command_words`, its result is a union of its success and every expected failure, and
the mutation carries it out as `api.graphql.commands` does. So a command that is declared cannot
differ from the one that the domain decides.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import (
    Annotated,
    Any,
    Final,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import strawberry
from strawberry.tools import create_type

from api.access.rights import Right
from api.graphql.command_words import words_of
from api.graphql.commands import CommandInput, CommandSuccess, carry_out, snake
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.errors import Failure
from api.graphql.fields import mutation
from api.graphql.scalars import BigInt, Position

LIST_LENGTH_MAX: Final = 1_000
"""Records in one list of an input; what a command takes may be less, and its decider says so."""

_BEYOND_INT: Final = frozenset({"reading_count", "seed", "size_bytes"})
_TOLD_BY_COMMAND: Final = frozenset({"calibrated_at", "completed_at", "inspected_at", "retired_at"})
"""Fields that say when a command's event is true; such a command takes no `occurredAt`."""


@dataclass(frozen=True)
class Answer:
    """The object that the success of a command shows.

    Parameters
    ----------
    name : of the field, such as ``part``
    type : its type in the schema
    find : (context, success) to the object as it stands
    projections : what has to reflect the command before it is looked for
    """

    name: str
    type: type
    find: Callable[[OperationContext, Any], Awaitable[Any]]
    projections: tuple[str, ...] = ()


def answer_by_key(
    name: str, type: type, find: Callable[..., Awaitable[Any]], *projections: str
) -> Answer:
    """Return the answer that shows the object which `find`, (context, key), finds."""

    async def find_again(context: OperationContext, success: Any) -> Any:
        return await find(context, success.key)

    return Answer(name, type, find_again, projections)


@dataclass(frozen=True)
class Declared:
    """A command that clients may send.

    Parameters
    ----------
    command : its class
    right : what it takes to send it
    description : one sentence, of the mutation and its input
    done : one sentence, of its success
    input : its input where that is not simply the command's fields
    """

    command: type
    right: Right
    description: str
    done: str
    input: type[CommandInput] | None = None

    @property
    def name(self) -> str:
        """Name of the mutation, such as ``receiveLot``."""
        name = self.command.__name__
        return name[0].lower() + name[1:]


@dataclass(frozen=True)
class Mutation:
    """A declared command with its input, as the schema has it."""

    declared: Declared
    input: type[CommandInput]


MUTATIONS: Final[dict[str, Mutation]] = {}
"""Every mutation that is made of a command, by its name."""


def mutations(name: str, *declared: Declared, answer: Answer | None = None) -> type:
    """Return a type of root fields called `name`, one a command of `declared`."""
    made = []
    successes = _successes(answer)
    for one in declared:
        input_type = one.input or input_of(one)
        MUTATIONS[one.name] = Mutation(one, input_type)
        made.append(_field(one, input_type, _success(one, successes)))
    return create_type(name, made)


# --- inputs -------------------------------------------------------------------------------


@strawberry.input
class TimedCommandInput(CommandInput):
    """What a command takes that does not say itself when its event is true."""

    occurred_at: datetime | None = strawberry.field(
        default=None,
        description="When it happened; null: now. Not in the future, and not before what is "
        "known of the object unless `late` says so.",
    )


def input_of(declared: Declared) -> type[CommandInput]:
    """Return the input of a command: its fields, and what every command takes."""
    command = declared.command
    base = CommandInput if _says_when(command) else TimedCommandInput

    async def as_command(self: Any, _context: OperationContext) -> Any:
        return _built(command, self)

    namespace = _namespace(command)
    namespace["command"] = as_command
    made = type(f"{command.__name__}Input", (base,), namespace)
    return cast("type[CommandInput]", strawberry.input(made, description=declared.description))


@cache
def record_input(record: type) -> type:
    """Return the input type of a record inside a command."""
    description = (record.__doc__ or "").partition("\n")[0]
    made = type(f"{record.__name__}Input", (), _namespace(record))
    return strawberry.input(made, description=description)


def _says_when(command: type) -> bool:
    return any(field.name in _TOLD_BY_COMMAND for field in fields(command))


def _namespace(record: type) -> dict[str, Any]:
    hints = get_type_hints(record)
    namespace: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for field in fields(record):
        description = words_of(record.__name__, field.name)
        annotation = _annotation(field.name, hints[field.name])
        namespace["__annotations__"][field.name] = annotation
        namespace[field.name] = strawberry.field(
            description=description, **_default(field, annotation)
        )
    return namespace


def _annotation(name: str, hint: Any) -> Any:
    """Return the schema's type of a field `name` of the type `hint`."""
    match hint:
        case _ if get_origin(hint) in (Union, types.UnionType):
            (inner,) = [part for part in get_args(hint) if part is not type(None)]
            return _annotation(name, inner) | None
        case _ if get_origin(hint) is tuple:
            return list[_annotation("", get_args(hint)[0])]  # type: ignore[misc]
        case _ if is_dataclass(hint):
            return record_input(cast("type", hint))
        case _ if hint is int:
            return Position if name.endswith("_position") else _whole_number(name)
        case _ if hint is str and name.endswith("_id"):
            return strawberry.ID
        case _ if isinstance(hint, type) and issubclass(hint, Enum):
            if not hasattr(hint, "__strawberry_definition__"):
                raise LookupError(f"say with described_enum what {hint.__name__} means")
    return hint


def _whole_number(name: str) -> Any:
    return BigInt if name in _BEYOND_INT else int


def _default(field: Field[Any], annotation: Any) -> dict[str, Any]:
    if get_origin(annotation) is list:
        return {} if field.default is MISSING else {"default_factory": list}
    if field.default is not MISSING:
        return {"default": field.default}
    return {"default": None} if type(None) in get_args(annotation) else {}


def _built(record: type, given: Any) -> Any:
    """Return the command, or the record of one, that an input spells."""
    hints = get_type_hints(record)
    return record(
        **{
            field.name: _value(hints[field.name], getattr(given, field.name))
            for field in fields(record)
        }
    )


def _value(hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(_value(inner, item) for item in value)
    if is_dataclass(hint):
        return _built(cast("type", hint), value)
    if isinstance(value, str) and not isinstance(value, Enum):
        return str(value)
    return value


# --- results ------------------------------------------------------------------------------


def _successes(answer: Answer | None) -> type[CommandSuccess]:
    """Return what the successes of commands on one kind of object have in common."""
    if answer is None:
        return CommandSuccess
    namespace = {
        "__annotations__": {},
        "__module__": __name__,
        answer.name: _answering(answer),
    }
    made = type(f"{answer.type.__name__}CommandSuccess", (CommandSuccess,), namespace)
    return strawberry.interface(
        made, description="What every mutation of such an object that succeeded says."
    )


def _success(declared: Declared, successes: type[CommandSuccess]) -> type[CommandSuccess]:
    namespace: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    made = type(f"{declared.command.__name__}Success", (successes,), namespace)
    return strawberry.type(made, description=declared.done)


def _answering(answer: Answer) -> Any:
    async def resolve(self: Any, info: Any) -> Any:
        if not self.dry_run:
            await info.context.wait_for(self.position, *answer.projections)
        return await answer.find(info.context, self)

    resolve.__annotations__ = {"info": OperationInfo, "return": answer.type | None}
    return strawberry.field(
        resolver=resolve,
        description="The object afterwards, or as it stands after a dry run. It waits until the "
        "command is reflected; should that take longer than 5 s it is null, with the error "
        "`projection.behind` beside it: the command was recorded all the same.",
    )


def _field(declared: Declared, input_type: type, success: type[CommandSuccess]) -> Any:
    result = Annotated[
        Union[success, Failure],  # type: ignore[valid-type]  # noqa: UP007
        strawberry.union(
            f"{declared.command.__name__}Result",
            description=f"What became of `{declared.name}`.",
        ),
    ]

    async def resolve(self: Any, info: Any, input: Any) -> Any:  # noqa: ARG001
        return await carry_out(info.context, declared.name, input, success)

    resolve.__name__ = snake(declared.name)
    resolve.__annotations__ = {
        "info": OperationInfo,
        "input": Annotated[input_type, strawberry.argument(description="What is asked for.")],
        "return": result,
    }
    return mutation(description=declared.description, right=declared.right)(resolve)
