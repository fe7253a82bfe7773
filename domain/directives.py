"""Directives: what the server tells an edge agent to do, signed so that nobody else can.

A directive is canonical JSON (sorted keys, no spaces) under Ed25519 by the ledger's signing key.
What is signed begins with `CONTEXT` on a line of its own, so that a signature of a directive is
one of nothing else that the key signs, and the other way round. The same directive is the same
bytes whenever it is told; its position in the ledger says whether it was told before.

References
----------
RFC 8032 (2017), Ed25519. C2SP signed-note: the name and id of keys.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final

from domain.errors import InvalidInput
from domain.events import format_time

CONTEXT: Final = "heddle-agent-command-v1"
DIRECTIVE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class SetpointDirective:
    """A set-point that somebody wants, and who.

    Parameters
    ----------
    ledger, position : of the event by which it is desired
    agent : for whom this is
    issued_at, expires_at : when it was recorded, and until when it may be applied
    value : SI
    proposal_id : of the proposal that was approved, or None where it was desired at once
    proposed_by : actor; None where it was desired at once
    approved_by : actor who approved, or desired, it
    """

    ledger: str
    position: int
    agent: str
    issued_at: datetime
    expires_at: datetime
    asset_id: str
    setpoint: str
    value: float
    proposal_id: str | None
    proposed_by: str | None
    approved_by: str


@dataclass(frozen=True, slots=True)
class ModelDirective:
    """A version of a model that serves from now on.

    Parameters
    ----------
    artefact_sha256 : hex, of the file that holds it
    """

    ledger: str
    position: int
    agent: str
    issued_at: datetime
    expires_at: datetime
    model_id: str
    version: str
    purpose: str
    artefact_sha256: str


@dataclass(frozen=True, slots=True)
class ModelRetirement:
    """A version of a model serves no more, and none does in its place."""

    ledger: str
    position: int
    agent: str
    issued_at: datetime
    expires_at: datetime
    model_id: str
    version: str
    reason: str


Directive = SetpointDirective | ModelDirective | ModelRetirement

_KINDS: Final[dict[str, type[Directive]]] = {
    "setpoint": SetpointDirective,
    "model": ModelDirective,
    "model-retirement": ModelRetirement,
}


def encode_directive(directive: Directive) -> str:
    """Return the canonical JSON of `directive`."""
    kind = next(name for name, of_kind in _KINDS.items() if isinstance(directive, of_kind))
    told = {
        name: format_time(value) if isinstance(value, datetime) else value
        for name, value in asdict(directive).items()
    }
    return json.dumps(
        {"kind": kind, **told},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def signed_text(encoded: str) -> str:
    """Return the text over which the signature of an encoded directive is made."""
    return f"{CONTEXT}\n{encoded}\n"


def decode_directive(encoded: str) -> Directive:
    """Return the directive that `encoded` is; its signature was checked before.

    Raises
    ------
    InvalidInput
        ``directive.malformed``: it is none, or is not written canonically
    """
    if len(encoded) > DIRECTIVE_BYTES_MAX:
        raise _malformed(f"it takes more than {DIRECTIVE_BYTES_MAX} characters")
    try:
        told = json.loads(encoded)
        directive = _built(told)
    except (
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise _malformed(str(error)[:200]) from error
    if encode_directive(directive) != encoded:
        raise _malformed("it is not in canonical form")
    return directive


def _built(told: Any) -> Directive:
    kind = _KINDS[told.pop("kind")]
    if told.keys() != {field.name for field in fields(kind)}:
        raise ValueError(f"its fields are {sorted(told)}")
    for field in fields(kind):
        value = told[field.name]
        match field.type:
            case "datetime":
                told[field.name] = _moment(field.name, value)
            case "float":
                told[field.name] = _number(field.name, value)
            case "int":
                _check(field.name, value, isinstance(value, int) and not isinstance(value, bool))
            case "str":
                _check(field.name, value, isinstance(value, str))
            case "str | None":
                _check(field.name, value, value is None or isinstance(value, str))
            case other:
                raise AssertionError(f"{other} is not foreseen")
    return kind(**told)


def _moment(name: str, value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    _check(name, value, moment.tzinfo is not None)
    return moment


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r:.80}")
    return float(value)


def _check(name: str, value: object, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r:.80}")


def _malformed(reason: str) -> InvalidInput:
    return InvalidInput("directive.malformed", f"this is no directive: {reason}")
