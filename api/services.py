"""What a running server is made of, handed to every endpoint: log, tail, projections, clock."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from api.access.authentication import Authenticator
from api.access.sight import Sights
from api.settings import ServerSettings
from domain.identifiers import uuid7
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.transparency.signing import CheckpointPublisher
from projections.alerts.missing_data import SilenceWatch
from projections.running.runner import ProjectionRunner


def utc_now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def new_event_id() -> uuid.UUID:
    """Return a fresh UUIDv7."""
    return uuid7(int(utc_now().timestamp() * 1000), secrets.token_bytes(10))


@dataclass(frozen=True)
class Services:
    """The parts of a server.

    `runners` holds the projections and policies that this process folds, by name; `checkpoints`
    signs the log's head; `silence` watches for assets that say nothing.
    """

    settings: ServerSettings
    ledger: Ledger
    tail: Tail
    runners: Mapping[str, ProjectionRunner]
    checkpoints: CheckpointPublisher | None = None
    silence: SilenceWatch | None = None
    now: Callable[[], datetime] = utc_now
    new_event_id: Callable[[], uuid.UUID] = new_event_id

    @cached_property
    def authenticator(self) -> Authenticator:
        """Who recognises whoever asks this server."""
        return Authenticator(self.settings, self.ledger)

    @cached_property
    def sights(self) -> Sights:
        """What of the plant each identity sees."""
        return Sights(self.ledger, self.runners)
