"""Secrets of webhooks, beside the log, which only names them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from eventlog.ledger import Ledger
from projections.webhooks import WebhookRow


async def keep_secret(
    ledger: Ledger, webhook_id: str, secret_id: str, secret: bytes, now: datetime
) -> None:
    """Keep a secret; it counts once the log names it."""
    await ledger.pool.execute(
        "insert into webhook_secret (ledger_id, webhook_id, secret_id, secret, created_at) "
        "values ($1, $2, $3, $4, $5)",
        ledger.ledger_id,
        webhook_id,
        secret_id,
        secret,
        now,
    )


async def drop_secrets(ledger: Ledger, webhook_id: str, secret_ids: Sequence[str] | None) -> None:
    """Be rid of secrets of a webhook; None: of all."""
    await ledger.pool.execute(
        "delete from webhook_secret where ledger_id = $1 and webhook_id = $2 "
        "and ($3::text[] is null or secret_id = any($3))",
        ledger.ledger_id,
        webhook_id,
        None if secret_ids is None else list(secret_ids),
    )


async def valid_secrets(ledger: Ledger, row: WebhookRow, now: datetime) -> list[bytes]:
    """Return what deliveries of a webhook are signed with now, the newest first."""
    wanted = [s.secret_id for s in row.webhook.secrets if s.until is None or now < s.until]
    rows = await ledger.pool.fetch(
        "select secret_id, secret from webhook_secret where ledger_id = $1 and webhook_id = $2 "
        "and secret_id = any($3)",
        ledger.ledger_id,
        row.webhook_id,
        wanted,
    )
    found = {each["secret_id"]: each["secret"] for each in rows}
    return [found[name] for name in wanted if name in found]
