"""Webhooks as their facts left them: one row each, also of those that are no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Final

import asyncpg

from domain.webhooks import (
    WEBHOOK_TYPES,
    ContentMode,
    Secret,
    Uncreated,
    Webhook,
    WebhookCreated,
    WebhookReplayed,
    WebhookSettings,
    WebhookStatus,
    evolve,
)
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf

LISTED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """A webhook, and what the log says about it.

    Parameters
    ----------
    run : position of the event since which it delivers from `webhook.after_position` on
    version, position : of its stream, and of its last event
    """

    webhook: Webhook
    run: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    version: int
    position: int

    @property
    def webhook_id(self) -> str:
        """Its natural key."""
        return self.webhook.webhook_id

    @property
    def settings(self) -> WebhookSettings:
        """Where it goes and what it tells."""
        return self.webhook.settings

    @property
    def status(self) -> WebhookStatus:
        """Whether it delivers."""
        return self.webhook.status


# --- fold ---------------------------------------------------------------------------------


class WebhookProjection:
    """Folds webhooks into one row each."""

    name: ClassVar[str] = "webhooks"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = WEBHOOK_TYPES
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("webhook",)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        told = [event for event in events if event.type in WEBHOOK_TYPES and not event.erased]
        if not told:
            return
        rows = await connection.fetch(
            f"select {_COLUMNS} from webhook where ledger_id = $1 and webhook_id = any($2)",
            ledger.ledger_id,
            sorted({event.fact.webhook_id for event in told}),
        )
        held = {row["webhook_id"]: _row(row) for row in rows}
        changed = dict[str, WebhookRow]()
        for event in told:
            webhook_id = event.fact.webhook_id
            row = _after(held.get(webhook_id), event)
            if row is not None:
                held[webhook_id] = changed[webhook_id] = row
        for webhook_id in sorted(changed):
            await connection.execute(_WRITE, ledger.ledger_id, *_values(changed[webhook_id]))


def _after(row: WebhookRow | None, event: RecordedEvent) -> WebhookRow | None:
    """Return the row that `event` makes of `row`; None of a webhook that nobody created."""
    fact = event.fact
    if row is None and not isinstance(fact, WebhookCreated):
        return None
    webhook = evolve(Uncreated() if row is None else row.webhook, fact)
    assert isinstance(webhook, Webhook), "it was created"
    if row is None or isinstance(fact, WebhookCreated):
        return WebhookRow(
            webhook,
            event.position,
            event.recorded_at,
            event.actor,
            event.recorded_at,
            event.version,
            event.position,
        )
    return replace(
        row,
        webhook=webhook,
        run=event.position if isinstance(fact, WebhookReplayed) else row.run,
        updated_at=event.recorded_at,
        version=event.version,
        position=event.position,
    )


def _values(row: WebhookRow) -> tuple[object, ...]:
    webhook, settings = row.webhook, row.settings
    return (
        row.webhook_id,
        settings.title,
        settings.url,
        settings.document,
        settings.operation_name,
        settings.variables,
        settings.mode.value,
        settings.acts_as_key,
        row.status.value,
        webhook.stop_code,
        webhook.stop_reason,
        [secret.secret_id for secret in webhook.secrets],
        [secret.until for secret in webhook.secrets],
        webhook.after_position,
        row.run,
        row.created_at,
        row.created_by,
        row.updated_at,
        row.version,
        row.position,
    )


_NAMES: Final = (
    "webhook_id",
    "title",
    "url",
    "document",
    "operation_name",
    "variables",
    "mode",
    "acts_as_key",
    "status",
    "stop_code",
    "stop_reason",
    "secret_ids",
    "secret_until",
    "after_position",
    "run",
    "created_at",
    "created_by",
    "updated_at",
    "version",
    "position",
)
_COLUMNS: Final = ", ".join(_NAMES)
_WRITE: Final = f"""
    insert into webhook (ledger_id, {_COLUMNS})
    values ({", ".join(f"${n}" for n in range(1, len(_NAMES) + 2))})
    on conflict (ledger_id, webhook_id) do update set
        {", ".join(f"{name} = excluded.{name}" for name in _NAMES)}
"""


def _row(row: asyncpg.Record) -> WebhookRow:
    settings = WebhookSettings(
        title=row["title"],
        url=row["url"],
        document=row["document"],
        operation_name=row["operation_name"],
        variables=row["variables"],
        mode=ContentMode(row["mode"]),
        acts_as_key=row["acts_as_key"],
    )
    webhook = Webhook(
        webhook_id=row["webhook_id"],
        settings=settings,
        status=WebhookStatus(row["status"]),
        secrets=tuple(
            Secret(secret_id, until)
            for secret_id, until in zip(row["secret_ids"], row["secret_until"], strict=True)
        ),
        after_position=row["after_position"],
        stop_code=row["stop_code"],
        stop_reason=row["stop_reason"],
    )
    return WebhookRow(
        webhook,
        row["run"],
        row["created_at"],
        row["created_by"],
        row["updated_at"],
        row["version"],
        row["position"],
    )


# --- queries ------------------------------------------------------------------------------


async def find_webhook(ledger: Ledger, webhook_id: str) -> WebhookRow | None:
    """Return the webhook of this id, deleted or not."""
    row = await ledger.pool.fetchrow(
        f"select {_COLUMNS} from webhook where ledger_id = $1 and webhook_id = $2",
        ledger.ledger_id,
        webhook_id,
    )
    return None if row is None else _row(row)


async def list_webhooks(
    ledger: Ledger,
    *,
    after: str = "",
    limit: int = LISTED_MAX,
    statuses: Sequence[WebhookStatus] = (),
    created_by: str | None = None,
) -> list[WebhookRow]:
    """Return webhooks in the order of their ids, beyond the id `after`.

    Parameters
    ----------
    statuses : of these; empty: all but those that are deleted
    created_by : those of this actor alone; None: everybody's
    """
    wanted = tuple(statuses) or tuple(s for s in WebhookStatus if s is not WebhookStatus.DELETED)
    rows = await ledger.pool.fetch(
        f"""
        select {_COLUMNS} from webhook
        where ledger_id = $1 and webhook_id > $2 and status = any($3)
            and ($4::text is null or created_by = $4)
        order by webhook_id limit $5
        """,
        ledger.ledger_id,
        after,
        [status.value for status in wanted],
        created_by,
        limit,
    )
    return [_row(row) for row in rows]
