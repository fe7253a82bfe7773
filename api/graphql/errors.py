"""Errors over GraphQL: the one table from the error tree to the members of result unions.

A mutation returns an expected failure as a member of its union. A query raises it, and it
becomes an entry of ``errors`` with its code, hint, value and limit in ``extensions``. What
nobody expected is masked, and logged once under the trace id that the client is told.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import strawberry
from graphql import GraphQLError, GraphQLSyntaxError
from opentelemetry import trace

from api.graphql.scalars import Json
from domain.errors import (
    CommandRejected,
    Conflict,
    HeddleError,
    InvalidInput,
    NotAllowed,
    NotFound,
    Unavailable,
)
from eventlog.database import CONNECTION_LOST

logger = logging.getLogger("heddle.graphql")

MESSAGE_LENGTH_MAX: Final = 1_000
"""A message may quote what was sent, which may be long."""


@strawberry.interface(description="An expected failure: what went wrong, and what to do.")
class Error:
    """What every failure of a mutation says."""

    code: str = strawberry.field(description="Dotted name of the failure, stable for ever.")
    message: str = strawberry.field(
        description="One sentence for people, with the offending value and the limit it broke."
    )
    hint: str = strawberry.field(description="What the caller can do about it; may be empty.")
    path: list[str] = strawberry.field(
        description="Where the fault lies in the arguments, such as `input`, `value`."
    )
    value: Json | None = strawberry.field(description="The offending value, if there is one.")
    limit: Json | None = strawberry.field(
        description="The limit that was broken, in SI units, if there is one."
    )


@strawberry.type(description="The input breaks a stated rule. Change it and try again.")
class ValidationError(Error):
    """`domain.errors.InvalidInput`."""


@strawberry.type(description="Nothing answers to a name in the input.")
class NotFoundError(Error):
    """`domain.errors.NotFound`."""


@strawberry.type(description="The state of the object does not allow the command.")
class RejectedError(Error):
    """`domain.errors.CommandRejected`."""


@strawberry.type(
    description="Somebody else was first (read again and decide anew), or the idempotency key "
    "was used for another request."
)
class ConflictError(Error):
    """`domain.errors.Conflict`."""


@strawberry.type(
    description="Not now. Send the same request with the same idempotency key again later; it is "
    "carried out at most once."
)
class UnavailableError(Error):
    """`domain.errors.Unavailable`."""


@strawberry.type(
    description="Whoever asks may not do this, or has just lost the right to do anything."
)
class NotAllowedError(Error):
    """`domain.errors.NotAllowed`."""


Failure = (
    ValidationError
    | ConflictError
    | NotFoundError
    | NotAllowedError
    | RejectedError
    | UnavailableError
)
"""Members of every result union, beside its success."""

MEMBERS: Final[Mapping[type[HeddleError], type[Failure]]] = {
    InvalidInput: ValidationError,
    NotAllowed: NotAllowedError,
    NotFound: NotFoundError,
    CommandRejected: RejectedError,
    Conflict: ConflictError,
    Unavailable: UnavailableError,
}

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "alert": ("alertId",),
    "asset": ("assetId",),
    "asset_type": ("assetType",),
    "command.in_future": ("occurredAt",),
    "command.out_of_order": ("occurredAt",),
    "event.text_malformed": ("title", "reason", "note"),
    "event.value_not_finite": ("value",),
    "idempotency_key": ("idempotencyKey",),
    "setpoint": ("setpoint",),
    "setpoint.out_of_bounds": ("value",),
    "stream.version_conflict": ("expectedVersion",),
    "text": ("title", "reason", "note"),
    "unit": ("unit",),
}
"""Of a code, or of what stands before its dot: the input field that is at fault."""


def member_of(error: BaseException, fields: Sequence[str]) -> Failure | None:
    """Return `error` as a member of a result union; None when nobody expected it.

    Parameters
    ----------
    fields : names of the input's fields
    """
    failure = expected(error)
    member = next((told for kind, told in MEMBERS.items() if isinstance(failure, kind)), None)
    if failure is None or member is None:
        return None
    candidates = _FIELDS.get(failure.code) or _FIELDS.get(failure.code.partition(".")[0], ())
    at_fault = next((name for name in candidates if name in fields), None)
    return member(
        code=failure.code,
        message=failure.message,
        hint=failure.hint,
        path=["input"] if at_fault is None else ["input", at_fault],
        value=Json(failure.value),
        limit=Json(failure.limit),
    )


def expected(error: BaseException | None) -> HeddleError | None:
    """Return the failure that `error` is to a client, or None when nobody expected it."""
    if isinstance(error, HeddleError):
        return error
    if isinstance(error, CONNECTION_LOST):
        return Unavailable(
            "database.unavailable",
            "the database cannot be reached",
            hint="send the same request again later",
        )
    return None


def told(error: GraphQLError) -> GraphQLError:
    """Return `error` as a client may see it."""
    cause = _cause(error)
    extensions: dict[str, Any]
    message = error.message
    if isinstance(cause, GraphQLError):
        syntax = isinstance(cause, GraphQLSyntaxError)
        extensions = {"code": "graphql.syntax" if syntax else "graphql.invalid"}
        extensions |= cause.extensions or {}
    else:
        failure = expected(cause)
        if failure is None:
            trace_id = current_trace_id()
            logger.error(
                "graphql: %s failed, trace %s", _spelled(error.path), trace_id, exc_info=cause
            )
            message, extensions = masked(trace_id)
        else:
            extensions = extensions_of(failure)
            message = message if failure is cause else failure.message
    if len(message) > MESSAGE_LENGTH_MAX:
        message = message[:MESSAGE_LENGTH_MAX] + " …"
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )


def extensions_of(error: HeddleError) -> dict[str, Any]:
    """Return what of `error` goes beside its message."""
    return {
        "code": error.code,
        "hint": error.hint,
        "value": error.value,
        "limit": error.limit,
    }


def masked(trace_id: str) -> tuple[str, dict[str, Any]]:
    """Return message and extensions of a failure whose cause is nobody else's business."""
    return "internal error", {
        "code": "internal",
        "hint": "tell your operator the trace id; the server's log has the cause",
        "traceId": trace_id,
    }


def current_trace_id() -> str:
    """Return the id of the current trace, or a fresh one where nothing is traced."""
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else secrets.token_hex(16)


def _cause(error: GraphQLError) -> BaseException:
    """Return what first went wrong: arguments wrap the errors of their scalars, twice at times."""
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _spelled(path: Sequence[str | int] | None) -> str:
    return ".".join(str(part) for part in path or ("request",))
