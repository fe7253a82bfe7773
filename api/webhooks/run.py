"""One webhook at work: it plans deliveries from the log, and sends them lane by lane.

Deliveries of one lane go out one by one, each after the one before is settled; lanes go side by
side, bounded. What is in memory is what waits in the database: it is read again at each start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from api.access.identity import Identity
from api.access.sight import Sight
from api.graphql.context import OperationContext
from api.graphql.operations import Operation, Operations
from api.services import Services
from api.webhooks import store
from api.webhooks.documents import DocumentFails, planned, prepared
from api.webhooks.egress import Answer, CallFailed, Egress
from api.webhooks.metrics import WebhookMetrics
from api.webhooks.planning import (
    BODY_BYTES_MAX,
    PIECE_POSITIONS_MAX,
    Message,
    fingerprint,
    made_anew,
    messages,
    new_delivery,
)
from api.webhooks.principals import identity_of
from api.webhooks.secret_store import SecretStore
from api.webhooks.sending import EndpointGone, RetryRules, attempt, outcome_of
from api.webhooks.store import Delivery, DeliveryState, Outcome, utc_now
from domain.errors import InvalidInput, NotAllowed, Unavailable
from eventlog.database import CONNECTION_LOST
from projections.webhooks import WebhookRow

logger = logging.getLogger("heddle.webhooks")

PENDING_MAX: Final = 500
"""Deliveries of one webhook that wait; the log is not read further until there is room."""

BODIES_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of bodies that are kept in memory until they are sent; others are read again."""

BATCH_MAX: Final = 100
"""Deliveries that are kept in one transaction."""

PLANS_AT_ONCE_MAX: Final = 4
"""Webhooks of a process that read the log at the same time; others take turns with them."""

PLANNING_SHARE_MAX: Final = 0.1
"""Share of the time that a webhook spends planning once it has caught up."""

PLAN_INTERVAL_S_MAX: Final = 1.0

PROGRESS_EVERY_S: Final = 5.0
"""How often it is written down how far the log is told while it tells nothing."""

CHECKED_EVERY_S: Final = 2.0
"""How often it is looked at whether the webhook may still see and do what it does."""

IDLE_S: Final = 5.0
RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 30.0
PASSING_STATUSES: Final = frozenset({429, 502, 503, 504})
"""What an address answers while it is away or overrun, whatever it is sent."""


@dataclass(frozen=True)
class Parts:
    """What every run of a process shares."""

    services: Services
    operations: Operations
    egress: Egress
    secrets: SecretStore
    rules: RetryRules
    metrics: WebhookMetrics
    generator: random.Random = field(default_factory=random.SystemRandom)
    plans: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PLANS_AT_ONCE_MAX))


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a webhook delivers no more."""

    code: str
    reason: str


class _Stopped(Exception):
    """Raised inside a run to end it."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.stop = Stop(code, reason)


class _Superseded(Exception):
    """Somebody else plans for this webhook, or it is replayed."""


class WebhookRun:
    """One webhook, served until it is cancelled or has to stop."""

    def __init__(self, parts: Parts, row: WebhookRow) -> None:
        self.row = row
        self.told_to = 0
        self.stop: Stop | None = None
        self._parts = parts
        self._ledger = parts.services.ledger
        self._plan_failure: str | None = None
        self._send_failure: str | None = None
        self._lanes: dict[str, deque[Delivery]] = {}
        self._held: set[int] = set()
        self._bodies: dict[int, bytes] = {}
        self._bodies_bytes = 0
        self._room = asyncio.Event()
        self._recovered = asyncio.Event()
        self._slots = asyncio.Semaphore(parts.services.settings.webhook_parallel_max)
        self._prepared: tuple[float, Operation] | None = None
        self._sight: tuple[Sight, Identity, bytes] | None = None
        self._quiet_until = datetime.min.replace(tzinfo=UTC)
        self._keys: tuple[float, list[bytes]] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._durable_to = 0
        self._written_at = 0.0

    @property
    def failure(self) -> str | None:
        """Why it does not get on at present; None while it does."""
        return self._plan_failure or self._send_failure

    @property
    def pending(self) -> int:
        """How many deliveries wait in memory."""
        return len(self._held)

    @property
    def lag(self) -> int:
        """Events of the log that are not told in deliveries yet."""
        return max(0, self._parts.services.tail.position - self.told_to)

    async def run(self) -> None:
        """Serve the webhook until it has to stop: `stop` says why then."""
        self._ended = asyncio.get_running_loop().create_future()
        planner = asyncio.create_task(self._plan(), name=f"webhook:{self.row.webhook_id}")
        self._tasks.add(planner)
        try:
            await asyncio.wait({planner, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if planner.done():
                planner.result()  # raises what nobody expected
        finally:
            if not self._ended.done():
                self._ended.set_result(None)
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._durable_to < self.told_to:
                with contextlib.suppress(_Superseded, *CONNECTION_LOST):
                    await self._write_progress()

    async def reload(self) -> None:
        """Take in what waits in the database and is not in memory: what somebody revived, say."""
        for delivery in await store.pending(self._ledger, self.row, PENDING_MAX):
            self._add(delivery)

    # --- planning -------------------------------------------------------------------------

    async def _plan(self) -> None:
        """Plan from where the webhook stands, for as long as it may."""
        delay_s = RETRY_S
        while True:
            try:
                self.told_to = self._durable_to = await store.begin_run(self._ledger, self.row)
                await self.reload()
                while True:
                    await self._plan_on()
                    self._plan_failure, delay_s = None, RETRY_S
            except _Stopped as stopped:
                self._end(stopped.stop)
                return
            except (NotAllowed, DocumentFails, InvalidInput) as error:
                self._end(Stop(error.code, error.message))
                return
            except (_Superseded, Unavailable, *CONNECTION_LOST) as error:
                self._plan_failure = self._told_failure(f"{type(error).__name__}: {error}")
            except Exception as error:
                logger.exception("webhook %s: planning failed", self.row.webhook_id)
                self._plan_failure = self._told_failure(f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._parts.generator.uniform(0.5, 1.0) * delay_s)
            delay_s = min(2 * delay_s, RETRY_S_MAX)

    async def _plan_on(self) -> None:
        """Plan one piece of the log, once there is one and room for it."""
        tail = self._parts.services.tail
        if self.pending >= PENDING_MAX:
            self._room.clear()
            await self._waits(self._room, CHECKED_EVERY_S)
            await self._operation()
            return
        head = tail.position
        if self.told_to >= head:
            head = await tail.wait_beyond(self.told_to, IDLE_S)
            await self._write_progress_at_times()
        up_to = min(head, self.told_to + PIECE_POSITIONS_MAX)
        operation, _ = await self._operation()
        if self.told_to >= head:
            return
        pace = planned(operation)
        began = time.monotonic()
        async with self._parts.plans:
            if not operation.context.identity.sees_everything:
                # What came into sight a moment ago may be told of in this very piece.
                await self._parts.services.sights.wait_for(up_to)
            operation, sight = await self._operation()
            complete = await self._plan_piece(operation, up_to, pace.root, sight)
        if complete:
            self.told_to = up_to
            await self._write_progress_at_times()
        if up_to >= tail.position:
            # The longer it takes, because there are many, the less often: what comes meanwhile
            # goes together.
            took_s = time.monotonic() - began
            slowed_s = min(took_s / PLANNING_SHARE_MAX, PLAN_INTERVAL_S_MAX)
            await asyncio.sleep(max(pace.interval_s, slowed_s) - took_s)

    async def _plan_piece(self, operation: Operation, up_to: int, root: str, sight: bytes) -> bool:
        """Plan up to a position; return False where there was no room for all of it."""
        batch: list[Message] = []
        found = messages(self._parts.operations, operation, self.told_to, up_to)
        complete = True
        async with contextlib.aclosing(found):
            async for message in found:
                batch.append(message)
                if len(batch) >= BATCH_MAX:
                    await self._keep(batch, root, sight)
                    batch = []
                if self.pending + len(batch) >= PENDING_MAX:
                    complete = False
                    break
        if batch:
            await self._keep(batch, root, sight)
        return complete

    async def _keep(self, batch: list[Message], root: str, sight: bytes) -> None:
        """Keep the deliveries of `batch`, and how far they go, and have them sent."""
        headers = await store.headers_of(self._ledger, [m.told.last for m in batch])
        after, deliveries = self.told_to, []
        for message in batch:
            header = headers[message.told.last]
            deliveries.append(new_delivery(message, after, header, root, sight))
            after = message.told.last
        kept = await store.plan(self._ledger, self.row, self._durable_to, deliveries, utc_now())
        if kept is None:
            raise _Superseded("the webhook's progress is not where it was")
        self.told_to = self._durable_to = after
        self._written_at = time.monotonic()
        self._parts.metrics.planned(self.row.webhook_id, len(kept))
        for delivery, made in zip(kept, deliveries, strict=True):
            if made.sight and self._bodies_bytes + len(made.body) <= BODIES_BYTES_MAX:
                self._bodies[delivery.delivery_id] = made.body
                self._bodies_bytes += len(made.body)
            self._add(delivery)

    async def _write_progress_at_times(self) -> None:
        if (
            self._durable_to < self.told_to
            and time.monotonic() - self._written_at >= PROGRESS_EVERY_S
        ):
            await self._write_progress()

    async def _write_progress(self) -> None:
        moved = await store.move_on(self._ledger, self.row, self._durable_to, self.told_to)
        if not moved:
            raise _Superseded("the webhook's progress is not where it was")
        self._durable_to, self._written_at = self.told_to, time.monotonic()

    async def _operation(self) -> tuple[Operation, bytes]:
        """Return the webhook's operation with a context of its own, and what it may tell of now.

        Who it acts as, and whether he may ask for it, is as of a moment ago.

        Raises
        ------
        NotAllowed
            its key was revoked, say
        DocumentFails
            as `planning.prepared`
        """
        services, settings = self._parts.services, self.row.settings
        if self._prepared is None or time.monotonic() - self._prepared[0] >= CHECKED_EVERY_S:
            identity = await identity_of(services, settings.acts_as_key)
            made = await prepared(self._parts.operations, settings, identity)
            self._prepared = (time.monotonic(), made)
        made = self._prepared[1]
        identity = made.context.identity
        sight = await services.sights.of(identity)
        if self._sight is None or self._sight[0] is not sight or self._sight[1] != identity:
            self._sight = (sight, identity, fingerprint(sight, identity))
        context = OperationContext(services, identity, made.prepared.document)
        return replace(made, context=context), self._sight[2]

    # --- sending --------------------------------------------------------------------------

    def _add(self, delivery: Delivery) -> None:
        if delivery.delivery_id in self._held or (self._ended is not None and self._ended.done()):
            return
        self._held.add(delivery.delivery_id)
        lane = self._lanes.get(delivery.lane)
        if lane is not None:
            lane.append(delivery)
            return
        self._lanes[delivery.lane] = deque((delivery,))
        self._start(self._send_lane(delivery.lane))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_lane(self, name: str) -> None:
        """Send what waits in a lane, one after the other, until nothing does."""
        lane = self._lanes[name]
        while lane:
            delivery = lane[0]
            try:
                await self._until_due(delivery)
                async with self._slots:
                    settled = await self._send(delivery)
            except _Stopped as stopped:
                self._end(stopped.stop)
                return
            except (NotAllowed, DocumentFails) as error:
                self._end(Stop(error.code, error.message))
                return
            except (Unavailable, *CONNECTION_LOST) as error:
                self._send_failure = self._told_failure(f"{type(error).__name__}: {error}")
                await asyncio.sleep(self._parts.generator.uniform(0.5, 1.0) * RETRY_S)
                continue
            except Exception as error:
                logger.exception("webhook %s: sending failed", self.row.webhook_id)
                self._send_failure = self._told_failure(f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_S_MAX)
                continue
            if settled:
                lane.popleft()
                self._held.discard(delivery.delivery_id)
                self._room.set()
        del self._lanes[name]

    async def _until_due(self, delivery: Delivery) -> None:
        """Wait until a delivery is due.

        One that failed because the address was away is due once the address is back, whenever
        that is; none while the address asks to be left alone.
        """
        is_back = False
        while True:
            due = self._quiet_until
            if delivery.next_try_at is not None and not is_back:
                due = max(due, delivery.next_try_at)
            waits_s = (due - utc_now()).total_seconds()
            if waits_s <= 0:
                return
            if delivery.next_try_at is not None and waits_for_address(delivery) and not is_back:
                is_back = await self._waits(self._recovered, waits_s)
            else:
                await asyncio.sleep(min(waits_s, IDLE_S))

    async def _send(self, delivery: Delivery) -> bool:
        """Try a delivery once; return whether it is settled."""
        operation, sight = await self._operation()
        body = self._bodies.pop(delivery.delivery_id, None)
        self._bodies_bytes -= len(body or b"")
        if delivery.sight != sight:
            body = await self._anew(delivery, operation, sight)
            if body is None:
                return True
        elif body is None:
            body = await store.body_of(self._ledger, delivery.delivery_id)
            if body is None:
                return True  # the webhook is replayed, or is no more
        keys = await self._secrets()
        now = utc_now()
        result: Answer | CallFailed
        try:
            result = await attempt(
                self._parts.egress,
                self.row.settings,
                delivery,
                body,
                keys,
                self._ledger.name,
                now,
            )
        except CallFailed as failed:
            result = failed
        try:
            outcome = outcome_of(
                result, delivery, self._parts.rules, utc_now(), self._parts.generator
            )
        except EndpointGone:
            reason = f"{self.row.settings.url} answered 410 Gone: it wants no deliveries any more"
            raise _Stopped("webhook.endpoint_gone", reason) from None
        return await self._settled(delivery, outcome)

    async def _settled(self, delivery: Delivery, outcome: Outcome) -> bool:
        known = await store.settle(self._ledger, delivery, outcome)
        self._parts.metrics.attempted(self.row.webhook_id, outcome)
        if outcome.state is DeliveryState.DELIVERED:
            self._send_failure = None
            recovered, self._recovered = self._recovered, asyncio.Event()
            recovered.set()
        elif outcome.failure is not None:
            if outcome.quiet_until is not None:
                self._quiet_until = max(self._quiet_until, outcome.quiet_until)
            self._send_failure = self._told_failure(f"{outcome.failure_code}: {outcome.failure}")
        return not known or outcome.state is not DeliveryState.PENDING

    async def _anew(self, delivery: Delivery, operation: Operation, sight: bytes) -> bytes | None:
        """Return what a delivery may say now; None where that settles it: nothing, or too much."""
        body = await made_anew(
            self._parts.operations, operation, delivery.after_position, delivery.position
        )
        code, why, state = "", "", DeliveryState.WITHDRAWN
        if body is None:
            code, why = "webhook.out_of_sight", "nothing of it is in sight any more"
        elif len(body) > BODY_BYTES_MAX:
            state, code = DeliveryState.DEAD, "webhook.too_large"
            why = f"the result has {len(body)} bytes, more than {BODY_BYTES_MAX}"
        if body is None or code:
            outcome = Outcome(state, utc_now(), 0.0, failure_code=code, failure=why)
            await self._settled(delivery, outcome)
            return None
        await store.refresh(self._ledger, delivery, body, sight)
        return body

    async def _secrets(self) -> list[bytes]:
        """Return what deliveries are signed with, as of a moment ago.

        Raises
        ------
        Unavailable
            as `SecretStore.valid`
        """
        kept = self._keys
        if kept is not None and time.monotonic() - kept[0] < CHECKED_EVERY_S:
            return kept[1]
        found = await self._parts.secrets.valid(self.row, utc_now())
        self._keys = (time.monotonic(), found)
        return found

    # --- the rest -------------------------------------------------------------------------

    async def _waits(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for `event`, at most so long; return whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
                return True
        return False

    def _end(self, stop: Stop) -> None:
        self.stop = self.stop or stop
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _told_failure(self, failure: str) -> str:
        """Return `failure`, logged unless the webhook has failed before."""
        if self.failure is None:
            logger.warning("webhook %s: %s", self.row.webhook_id, failure)
        return failure


def waits_for_address(delivery: Delivery) -> bool:
    """Return whether a delivery failed for what ends once the address is back."""
    if delivery.failure_code == "webhook.refused":
        return delivery.status_code in PASSING_STATUSES
    return delivery.failure_code in ("webhook.unreachable", "webhook.timeout")
