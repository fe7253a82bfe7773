"""An append: what a caller asks of the ledger, and what he is answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from domain.errors import InvalidInput
from eventlog.envelope import NewEvent

KEY_LENGTH_MAX: Final = 200

NO_STREAM: Final = 0
"""Expected version of a stream that must not exist yet."""


class Placed(NamedTuple):
    """Where an event stands in the log."""

    position: int
    version: int
    recorded_at: datetime


class Appended(NamedTuple):
    """The outcome of an append. `duplicate`: it was recorded before, and this is where."""

    placed: tuple[Placed, ...]
    duplicate: bool

    @property
    def position(self) -> int:
        """Position of the last event."""
        return self.placed[-1].position


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's own name for an append, and the SHA-256 of what it asked for."""

    key: str
    content_sha256: bytes

    @classmethod
    def of(cls, key: str, content: bytes) -> IdempotencyKey:
        """Return the key for a request whose meaning is `content`."""
        if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isprintable():
            raise InvalidInput(
                "idempotency_key.malformed",
                f"the idempotency key has {len(key)} characters or unprintable ones",
                hint=f"1 to {KEY_LENGTH_MAX} printable characters",
                value=key[:KEY_LENGTH_MAX],
                limit=KEY_LENGTH_MAX,
            )
        return cls(key, hashlib.sha256(content).digest())


@dataclass(slots=True)
class Append:
    """A caller's request: what to record, under which conditions, and its outcome to be."""

    events: Sequence[NewEvent]
    expected: Mapping[str, int]
    idempotency: IdempotencyKey | None
    payload_bytes: int
    outcome: asyncio.Future[Appended]

    def settle(self, result: Appended | BaseException) -> None:
        """Hand `result` to the caller, unless he has gone."""
        if self.outcome.done():
            return  # its caller has gone
        if isinstance(result, BaseException):
            self.outcome.set_exception(result)
        else:
            self.outcome.set_result(result)
