"""A poison event: one that its projection cannot fold, told so that somebody can repair it."""

from __future__ import annotations

from domain.errors import HeddleError
from eventlog.envelope import RecordedEvent


class PoisonEvent(HeddleError):
    """`event` could not be folded because of `cause`; its projection stands before it.

    ``projection.poison_event``. The hint says how to repair it.
    """

    def __init__(self, projection: str, event: RecordedEvent, cause: Exception) -> None:
        self.event = event
        self.cause = cause
        known = cause.hint if isinstance(cause, HeddleError) else ""
        super().__init__(
            "projection.poison_event",
            f"{type(cause).__name__}: {_message(cause)}; projection {projection!r} stands before "
            f"{event.ledger}/{event.position}, {event.type} version {event.schema_version} on "
            f"{event.stream}, event {event.event_id}",
            hint=(f"{known}; " if known else "")
            + "upgrade where a newer version of this software folds it; "
            f"`heddle rebuild {projection}` where the rows it met are damaged; "
            f"`heddle erase {event.position}` where nothing can ever fold it",
            value=event.position,
        )


def _message(cause: Exception) -> str:
    if isinstance(cause, HeddleError):
        return f"{cause.code}: {cause.message}"
    return str(cause)
