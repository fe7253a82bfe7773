"""Which webhooks this process serves: all that are active, while no other process does.

Of all processes of a ledger one is at work, by an advisory lock; the others stand by. That nothing
is lost does not depend on it: a delivery waits in the database until somebody settles it, and two
who send it send the same message under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry

from api.graphql.operations import Operations
from api.services import Services
from api.webhooks import store
from api.webhooks.commands import handle_webhook
from api.webhooks.egress import Egress
from api.webhooks.metrics import WebhookMetrics, WebhookState
from api.webhooks.run import PENDING_MAX, Parts, Stop, WebhookRun
from api.webhooks.secret_store import SecretStore
from api.webhooks.sending import RetryRules
from api.webhooks.store import utc_now
from api.webhooks.trial import new_egress
from domain.errors import HeddleError
from domain.webhooks import StopWebhook, WebhookStatus
from eventlog.database import CONNECTION_LOST
from projections.running.active import ActiveLocks, lock_key
from projections.webhooks import WebhookRow, list_webhooks

logger = logging.getLogger("heddle.webhooks")

ACTOR: Final = "service:webhooks"
LOOK_S: Final = 0.5
"""How often it is looked at which webhooks there are."""

SWEEP_S: Final = 5.0
"""How often it is looked at what waits without anybody knowing: what was revived, say."""

PRUNE_S: Final = 60.0


class WebhookDispatcher:
    """Serves the webhooks of one ledger while this process is the one that does.

    `failure` is why it does not at present; None while it does, or stands by.
    """

    def __init__(
        self, services: Services, operations: Operations, registry: CollectorRegistry
    ) -> None:
        self.failure: str | None = None
        self._services = services
        self._operations = operations
        self._metrics = WebhookMetrics(registry)
        registry.register(WebhookState(lambda: [run for run, _ in self._runs.values()]))
        self._runs: dict[str, tuple[WebhookRun, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    @property
    def runs(self) -> Iterable[WebhookRun]:
        """What is at work."""
        return [run for run, _ in self._runs.values()]

    @contextlib.asynccontextmanager
    async def running(self, egress: Egress | None = None) -> AsyncIterator[None]:
        """Serve webhooks for the length of the block."""
        calls = egress or new_egress(self._services)
        locks = ActiveLocks(self._services.ledger.pool)
        task = asyncio.create_task(self._run(calls, locks), name="webhooks")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await locks.close()
            if egress is None:
                await calls.close()

    async def _run(self, egress: Egress, locks: ActiveLocks) -> None:
        services = self._services
        parts = Parts(
            services,
            self._operations,
            egress,
            SecretStore(services.ledger, services.settings),
            RetryRules.of(services.settings),
            self._metrics,
        )
        claim = locks.claim(lock_key("webhooks", services.ledger.ledger_id), self._changed.set)
        loop = asyncio.get_running_loop()
        swept_at = pruned_at = loop.time()
        try:
            while True:
                self._changed.clear()
                try:
                    if claim.held:
                        await self._look(parts)
                        if loop.time() - swept_at >= SWEEP_S:
                            await self._sweep()
                            swept_at = loop.time()
                        if loop.time() - pruned_at >= PRUNE_S:
                            await self._prune()
                            pruned_at = loop.time()
                    else:
                        await self._end(list(self._runs))
                    self.failure = None
                except (HeddleError, *CONNECTION_LOST) as error:
                    self._tell(f"{type(error).__name__}: {error}")
                except Exception as error:
                    logger.exception("serving webhooks failed")
                    self._tell(f"{type(error).__name__}: {error}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._changed.wait()
        finally:
            await self._end(list(self._runs))

    async def _look(self, parts: Parts) -> None:
        """Serve what is active as it stands now, and nothing else."""
        rows = await list_webhooks(self._services.ledger, statuses=[WebhookStatus.ACTIVE])
        wanted = {row.webhook_id: row for row in rows}
        for webhook_id, (run, task) in list(self._runs.items()):
            row = wanted.get(webhook_id)
            if task.done():
                await self._stopped(run, task)
                await self._end([webhook_id])
                wanted.pop(webhook_id, None)  # as it stands after that: next time
            elif row is None or (row.webhook, row.run) != (run.row.webhook, run.row.run):
                await self._end([webhook_id])
        for webhook_id, row in wanted.items():
            if webhook_id not in self._runs:
                self._start(parts, row)

    def _start(self, parts: Parts, row: WebhookRow) -> None:
        run = WebhookRun(parts, row)
        task = asyncio.create_task(run.run(), name=f"webhook-run:{row.webhook_id}")
        task.add_done_callback(lambda _: self._changed.set())
        self._runs[row.webhook_id] = (run, task)

    async def _stopped(self, run: WebhookRun, task: asyncio.Task[None]) -> None:
        """Have the log say why a webhook stopped; one that failed is started anew."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("webhook %s failed", run.row.webhook_id, exc_info=error)
        stop: Stop | None = run.stop
        if stop is None:
            return
        logger.warning("webhook %s stops: %s: %s", run.row.webhook_id, stop.code, stop.reason)
        await handle_webhook(
            self._services.ledger,
            StopWebhook(run.row.webhook_id, stop.code, stop.reason),
            actor=ACTOR,
            now=utc_now(),
            event_id=self._services.new_event_id,
        )

    async def _end(self, webhook_ids: list[str]) -> None:
        tasks = [self._runs.pop(webhook_id)[1] for webhook_id in webhook_ids]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep(self) -> None:
        """Have each webhook take in what waits for it without its knowing."""
        backlogs = await store.backlogs(self._services.ledger, list(self._runs))
        for webhook_id, backlog in backlogs.items():
            run = self._runs[webhook_id][0]
            if run.pending < min(backlog.pending, PENDING_MAX):
                await run.reload()

    async def _prune(self) -> None:
        kept = timedelta(seconds=self._services.settings.webhook_kept_s)
        await store.prune(self._services.ledger, kept, utc_now())

    def _tell(self, failure: str) -> None:
        if self.failure is None:
            logger.warning("webhooks are not served: %s", failure)
        self.failure = failure
