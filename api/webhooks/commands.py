"""Commands on webhooks: decided on their facts, recorded once a key.

Webhooks are no objects of the thread: nothing about them is corrected, or told as of earlier.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from domain.errors import Conflict
from domain.records import RecordCorrected, RecordSigned
from domain.webhooks import WebhookCommand, WebhookState, decide, fold, webhook_stream
from eventlog.commands import Handled, check_version, recalled
from eventlog.envelope import new_fact
from eventlog.ledger import NO_STREAM, IdempotencyKey, Ledger
from eventlog.reading import read_whole_stream

DECISIONS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class LoadedWebhook:
    """A webhook as its facts make it, its stream's version, and who created it."""

    state: WebhookState
    version: int
    created_by: str


async def load_webhook(ledger: Ledger, webhook_id: str) -> LoadedWebhook:
    """Return the webhook of this id, also where nobody has created it."""
    facts: list[Any] = []
    version, created_by = NO_STREAM, ""
    async for event in read_whole_stream(ledger, webhook_stream(webhook_id)):
        version = event.version
        created_by = created_by or event.actor
        if not isinstance(event.fact, RecordCorrected | RecordSigned):
            facts.append(event.fact)
    return LoadedWebhook(fold(facts), version, created_by)


async def handle_webhook(
    ledger: Ledger,
    command: WebhookCommand,
    *,
    actor: str,
    now: datetime,
    event_id: Callable[[], uuid.UUID],
    idempotency: IdempotencyKey | None = None,
    expected_version: int | None = None,
    traceparent: str | None = None,
    dry_run: bool = False,
) -> Handled:
    """Decide `command` on its webhook as it stands, and record what follows.

    Raises
    ------
    HeddleError
        as `domain.webhooks.decide` and `Ledger.append`
    """
    stream = webhook_stream(command.webhook_id)
    if idempotency is not None:
        earlier = await ledger.recall(idempotency)
        if earlier is not None:
            return recalled(earlier)
    for remaining in reversed(range(DECISIONS_MAX)):
        loaded = await load_webhook(ledger, command.webhook_id)
        state, version = loaded.state, loaded.version
        check_version(stream, version, expected_version)
        events = decide(command, state)
        if dry_run or not events:
            return Handled(events, version, await ledger.head())
        facts = [
            new_fact(
                stream,
                event,
                event_id=event_id(),
                occurred_at=now,
                actor=actor,
                traceparent=traceparent,
            )
            for event in events
        ]
        try:
            appended = await ledger.append(
                facts, expected={stream: version}, idempotency=idempotency
            )
        except Conflict as conflict:
            lost_race = conflict.code == "stream.version_conflict"
            if not lost_race or expected_version is not None or remaining == 0:
                raise
            continue
        if appended.duplicate:
            return recalled(appended)
        return Handled(events, appended.placed[-1].version, appended.position)
    raise AssertionError("the loop returns or raises")
