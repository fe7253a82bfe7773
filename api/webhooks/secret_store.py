"""Secrets of webhooks: sealed, and beside the log, which only names them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from api.settings import ServerSettings
from api.webhooks.sealing import Sealing
from domain.errors import Unavailable
from eventlog.ledger import Ledger
from projections.webhooks import WebhookRow


@dataclass(frozen=True)
class SecretStore:
    """The secrets of a ledger's webhooks, sealed as `settings` say."""

    ledger: Ledger
    settings: ServerSettings

    @cached_property
    def sealing(self) -> Sealing:
        """What seals them; a server without webhooks needs no key."""
        return Sealing.of(self.settings)

    async def keep(self, webhook_id: str, secret_id: str, secret: bytes, now: datetime) -> None:
        """Keep a secret; it counts once the log names it."""
        await self.ledger.pool.execute(
            "insert into webhook_secret (ledger_id, webhook_id, secret_id, sealed, created_at) "
            "values ($1, $2, $3, $4, $5)",
            self.ledger.ledger_id,
            webhook_id,
            secret_id,
            self.sealing.seal(secret, self.ledger.name, webhook_id, secret_id),
            now,
        )

    async def drop(self, webhook_id: str, secret_ids: Sequence[str]) -> None:
        """Be rid of secrets of a webhook."""
        await self.ledger.pool.execute(
            "delete from webhook_secret where ledger_id = $1 and webhook_id = $2 "
            "and secret_id = any($3)",
            self.ledger.ledger_id,
            webhook_id,
            list(secret_ids),
        )

    async def valid(self, row: WebhookRow, now: datetime) -> list[bytes]:
        """Return what deliveries of a webhook are signed with now, the newest first.

        Raises
        ------
        Unavailable
            ``webhook.secret_missing``: nothing leaves unsigned; ``webhook.secret_unreadable``
        """
        webhook_id = row.webhook_id
        wanted = [s.secret_id for s in row.webhook.secrets if s.until is None or now < s.until]
        rows = await self.ledger.pool.fetch(
            "select secret_id, sealed from webhook_secret where ledger_id = $1 "
            "and webhook_id = $2 and secret_id = any($3)",
            self.ledger.ledger_id,
            webhook_id,
            wanted,
        )
        found = {each["secret_id"]: each["sealed"] for each in rows}
        if not found:
            raise Unavailable(
                "webhook.secret_missing",
                f"there is no secret to sign deliveries of {webhook_id!r} with",
                hint="rotate its secret",
            )
        newest, *others = [name for name in wanted if name in found]
        opened = [self.sealing.open(found[newest], self.ledger.name, webhook_id, newest)]
        for name in others:
            # One from before a key was lost hinders no rotation: only its receivers would miss it.
            with contextlib.suppress(Unavailable):
                opened.append(self.sealing.open(found[name], self.ledger.name, webhook_id, name))
        return opened
