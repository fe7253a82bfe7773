"""Commands on webhooks: decided on their facts, recorded once a key.

Webhooks are no objects of the thread: nothing about them is corrected, or told as of earlier.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.records import RecordCorrected, RecordSigned
from domain.webhooks import WebhookCommand, WebhookState, decide, fold, webhook_stream
from eventlog.commands import Decision, Handled, check_version, decide_once
from eventlog.envelope import new_fact
from eventlog.ledger import NO_STREAM, IdempotencyKey, Ledger
from eventlog.reading import read_whole_stream


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

    async def decide_on_it() -> Decision:
        loaded = await load_webhook(ledger, command.webhook_id)
        check_version(stream, loaded.version, expected_version)
        events = decide(command, loaded.state)
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
        return Decision(events, facts, {stream: loaded.version})

    return await decide_once(
        ledger,
        stream,
        decide_on_it,
        idempotency=idempotency,
        expected_version=expected_version,
        dry_run=dry_run,
    )
