"""A group: the subscribers of one subscription, which is executed once for all of them.

Who has been told of everything gets what the group's execution finds, as soon as it does. Who is
behind (he resumes, or takes more slowly than things happen) reads the log for himself up to where
the group stands, and joins it there; meanwhile the group keeps its last messages, so that it does
not run away from him. Nobody is waited for, and nobody is told of an event twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from api.graphql.changes import cursor_at
from api.graphql.context import OperationContext
from api.graphql.errors import current_trace_id, masked
from api.graphql.events.subscriptions import RETRIES_MAX
from api.graphql.messages import Batch, Message, message_of
from api.graphql.subscribers import Counts, Subscriber
from domain.errors import HeddleError, Unavailable
from eventlog.database import CONNECTION_LOST
from eventlog.following.tail import RETRY_DELAY_S, RETRY_DELAY_S_MAX

if TYPE_CHECKING:
    from api.graphql.operations import Operation, Payload

logger = logging.getLogger("heddle.graphql")

TURNS_AT_ONCE_MAX: Final = 4
"""Subscribers of a group that read the log for themselves at the same time."""

TURN_S_MAX: Final = 0.5
"""For so long; then it is another's turn."""

BUSY_S_MAX: Final = 0.005
"""For so long results are made before the event loop gets its turn."""

PENDING_MESSAGES_MAX: Final = 64
PENDING_BYTES_MAX: Final = 64 * 1024
"""Of what a group has made and not written yet; one message may go beyond."""

KEPT_MESSAGES_MAX: Final = 1_000
KEPT_BYTES_MAX: Final = 256 * 1024
KEPT_BYTES_OF_ALL_MAX: Final = 64 * 1024 * 1024
"""Of messages that groups keep for whoever is about to join."""

PIECE_BYTES_MAX: Final = 32 * 1024
"""Of kept messages that are written at once."""

WRITES_AT_ONCE_MAX: Final = 500
"""Subscribers that are written to before the event loop gets its turn."""

REST_S_MAX: Final = 0.05
"""A group rests for as long as it wrote, and gathers meanwhile; but not for longer."""

RESUMABLE: Final = frozenset({"log.unavailable", "projection.behind", "projection.not_running"})
"""Codes of errors whose value is the cursor to resume from."""


class Group:
    """Those who asked for the same and may see the same.

    Parameters
    ----------
    results : executes a subscription
    """

    def __init__(
        self, results: Callable[[Operation], AsyncGenerator[Payload, None]], counts: Counts
    ) -> None:
        self._results = results
        self._counts = counts
        self._members: set[Subscriber] = set()
        self._live: dict[Subscriber, None] = {}
        self._turns = asyncio.Semaphore(TURNS_AT_ONCE_MAX)
        self._execution: asyncio.Task[None] | None = None
        self._end = 0
        self._kept: deque[Message] = deque()
        self._kept_bytes = 0
        self._kept_from = 0
        self._pending: list[Message] = []
        self._pending_after = 0
        self._pending_bytes = 0
        self._is_writing = False
        self._rests_until_s = 0.0
        self._written = asyncio.Event()
        self._written.set()

    def __len__(self) -> int:
        """Return how many subscribers there are."""
        return len(self._members)

    @property
    def subscribers(self) -> frozenset[Subscriber]:
        """All of them."""
        return frozenset(self._members)

    @property
    def live(self) -> int:
        """How many of them get what the group executes."""
        return len(self._live)

    async def serve(self, subscriber: Subscriber) -> Payload | None:
        """Tell `subscriber` what happens until his subscription ends.

        Return the response without data that ended it; None where it completed. Raises what broke
        it off.
        """
        self._members.add(subscriber)
        subscriber.leave = self._drop
        try:
            while True:
                await subscriber.line.room()
                if subscriber.ended:
                    break
                if not self._join(subscriber):
                    async with self._turns:
                        await self._turn(subscriber)
                elif subscriber.dropped is not None:
                    await subscriber.dropped
        finally:
            self._members.discard(subscriber)
            self._drop(subscriber)
        if isinstance(subscriber.outcome, Exception):
            raise _resumable(subscriber.outcome, subscriber)
        return subscriber.outcome

    # --- a subscriber by himself ----------------------------------------------------------

    async def _turn(self, subscriber: Subscriber) -> None:
        """Have `subscriber` read on towards where the group stands, or else the log ends."""
        up_to = await self._log_end(subscriber) if self._execution is None else self._end
        if subscriber.after is not None and subscriber.after >= up_to:
            subscriber.is_current = True
            return
        context = _context(subscriber, up_to)
        loop = asyncio.get_running_loop()
        started_s = yielded_s = loop.time()
        async with aclosing(self._executed(subscriber.operation, context)) as results:
            async for result in results:
                if subscriber.ended:
                    return
                if not isinstance(result, Message):
                    subscriber.end(result)
                    return
                subscriber.after = result.last
                self._counts.delivered += 1
                if not subscriber.line.write(Batch((result,), result.first - 1)):
                    return
                now_s = loop.time()
                if now_s - started_s > TURN_S_MAX:
                    return
                if now_s - yielded_s > BUSY_S_MAX:
                    await asyncio.sleep(0)
                    yielded_s = loop.time()
        if context.told is None:
            subscriber.end(None)
            return
        subscriber.after = max(up_to, context.told.last)
        subscriber.is_current = True

    async def _log_end(self, subscriber: Subscriber) -> int:
        """Return where the log ends; wait a while for a log that cannot be read."""
        tail = subscriber.operation.context.services.tail
        failures = 0
        while True:
            try:
                return await tail.ledger.head()
            except CONNECTION_LOST as error:
                if subscriber.after is None:
                    return tail.position  # he is told by what he asked for
                failures += 1
                if failures > RETRIES_MAX:
                    raise _resumable(
                        Unavailable(
                            "log.unavailable",
                            f"ledger {tail.ledger.name!r} cannot be read",
                            hint="subscribe again after the cursor in `value`; nothing is lost",
                        ),
                        subscriber,
                    ) from error
            await asyncio.sleep(min(RETRY_DELAY_S * 2.0**failures, RETRY_DELAY_S_MAX))

    def _join(self, subscriber: Subscriber) -> bool:
        """Have the group tell `subscriber` from now on; return whether he gained by it.

        He is live then, or got a piece of what was kept and has no room for the rest.
        """
        if subscriber.after is None:
            return False
        if self._execution is None:
            if not subscriber.is_current:
                return False
            self._start(subscriber)
        while subscriber.after < self._end:
            piece = self._kept_piece(subscriber.after)
            if piece is None:
                return False
            subscriber.after = piece.last
            self._counts.delivered += len(piece.messages)
            if not subscriber.line.write(piece):
                return True
        subscriber.is_live = True
        subscriber.dropped = asyncio.get_running_loop().create_future()
        self._live[subscriber] = None
        return True

    def _kept_piece(self, after: int) -> Batch | None:
        """Return kept messages that go on after the position `after`; None where some are gone."""
        if after < self._kept_from:
            return None
        piece: list[Message] = []
        size_bytes = 0
        for message in self._kept:
            if message.last <= after:
                continue
            if message.first <= after:
                return None
            piece.append(message)
            size_bytes += len(message.payload)
            if size_bytes >= PIECE_BYTES_MAX:
                break
        return Batch(piece, after) if piece else None

    def _drop(self, subscriber: Subscriber) -> None:
        """Go on without `subscriber`; without anybody, end."""
        if not subscriber.is_live:
            return
        self._live.pop(subscriber, None)
        subscriber.is_live = False
        subscriber.is_current = False
        if subscriber.dropped is not None and not subscriber.dropped.done():
            subscriber.dropped.set_result(None)
        subscriber.dropped = None
        if not self._live:
            self._stop()

    # --- the group's execution ------------------------------------------------------------

    def _start(self, subscriber: Subscriber) -> None:
        assert subscriber.after is not None, "the group starts where somebody stands"
        self._end = self._kept_from = self._pending_after = subscriber.after
        context = _context(subscriber, None)
        self._execution = asyncio.get_running_loop().create_task(
            self._execute(subscriber.operation, context), name="subscription"
        )

    def _stop(self) -> None:
        if self._execution is not None:
            self._execution.cancel()
            self._execution = None
        self._pending = []
        self._pending_bytes = 0
        self._forget_kept()
        self._written.set()

    async def _execute(self, operation: Operation, context: OperationContext) -> None:
        """Tell everybody live what happens, until it ends or nobody is left."""
        outcome: Payload | Exception | None = None
        loop = asyncio.get_running_loop()
        yielded_s = loop.time()
        try:
            async with aclosing(self._executed(operation, context)) as results:
                async for result in results:
                    if not isinstance(result, Message):
                        outcome = result
                        break
                    self._publish(result)
                    if not self._written.is_set():
                        await self._written.wait()
                        yielded_s = loop.time()
                    elif loop.time() - yielded_s > BUSY_S_MAX:
                        await asyncio.sleep(0)
                        yielded_s = loop.time()
        except HeddleError as error:
            outcome = error
        except Exception:
            trace_id = current_trace_id()
            logger.exception("graphql: a shared subscription failed, trace %s", trace_id)
            message, extensions = masked(trace_id)
            outcome = {"errors": [{"message": message, "extensions": extensions}]}
        while self._pending or self._is_writing:
            self._written.clear()
            await self._written.wait()
        self._execution = None
        for subscriber in list(self._live):
            if _is_database_away(outcome):
                self._drop(subscriber)  # he tries again for himself, and has patience
            else:
                subscriber.end(outcome)

    async def _executed(
        self, operation: Operation, context: OperationContext
    ) -> AsyncGenerator[Message | Payload, None]:
        """Yield what `operation` tells in `context`, and last the response without data, if any."""
        async with aclosing(self._results(replace(operation, context=context))) as payloads:
            async for payload in payloads:
                if "data" not in payload:
                    yield payload
                    return
                told = context.told
                assert told is not None, "a subscription says what it tells of"
                self._counts.executed += 1
                yield message_of(payload, first=told.first, last=told.last, lasts=told.lasts)

    def _publish(self, message: Message) -> None:
        self._end = message.last
        self._keep(message)
        self._pending.append(message)
        self._pending_bytes += len(message.payload)
        if len(self._pending) >= PENDING_MESSAGES_MAX or self._pending_bytes >= PENDING_BYTES_MAX:
            self._written.clear()
        if not self._is_writing:
            self._write_soon()

    def _keep(self, message: Message) -> None:
        """Keep `message` for whoever is about to join: what lasts, within bounds."""
        if len(self._members) == len(self._live) or not message.lasts:
            self._forget_kept()
            return
        self._kept.append(message)
        self._change_kept(len(message.payload))
        while self._kept and (
            len(self._kept) > KEPT_MESSAGES_MAX
            or self._kept_bytes > KEPT_BYTES_MAX
            or self._counts.kept_bytes > KEPT_BYTES_OF_ALL_MAX
        ):
            oldest = self._kept.popleft()
            self._change_kept(-len(oldest.payload))
            self._kept_from = oldest.last

    def _forget_kept(self) -> None:
        self._kept.clear()
        self._change_kept(-self._kept_bytes)
        self._kept_from = self._end

    def _change_kept(self, size_bytes: int) -> None:
        self._kept_bytes += size_bytes
        self._counts.kept_bytes += size_bytes

    # --- writing --------------------------------------------------------------------------

    def _write_soon(self) -> None:
        self._is_writing = True
        loop = asyncio.get_running_loop()
        rest_s = self._rests_until_s - loop.time()
        if rest_s > 0:
            loop.call_later(rest_s, self._write)
        else:
            loop.call_soon(self._write)

    def _write(self) -> None:
        """Write all that is pending to everybody live."""
        messages, self._pending, self._pending_bytes = self._pending, [], 0
        if messages:
            batch = Batch(messages, self._pending_after)
            self._pending_after = batch.last
            self._write_to(self._execution, batch, list(self._live), 0, 0.0)
        else:
            self._is_writing = False
            self._written.set()

    def _write_to(
        self,
        execution: asyncio.Task[None] | None,
        batch: Batch,
        subscribers: list[Subscriber],
        done: int,
        spent_s: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        if execution is not self._execution:
            subscribers = []  # everybody left meanwhile, and whoever is here now began anew
        for subscriber in subscribers[done : done + WRITES_AT_ONCE_MAX]:
            if not subscriber.is_live:
                continue
            if subscriber.after != batch.after:
                self._write_rest(batch, subscriber)
                continue
            subscriber.after = batch.last
            self._counts.delivered += len(batch.messages)
            if not subscriber.line.write(batch):
                self._evict(subscriber)
        spent_s += loop.time() - started_s
        done += WRITES_AT_ONCE_MAX
        if done < len(subscribers):
            loop.call_soon(self._write_to, execution, batch, subscribers, done, spent_s)
            return
        self._rests_until_s = loop.time() + min(spent_s, REST_S_MAX)
        if self._pending:
            self._write_soon()
        else:
            self._is_writing = False
        self._written.set()

    def _write_rest(self, batch: Batch, subscriber: Subscriber) -> None:
        """Write what `subscriber`, who had been told of more when he joined, does not know yet."""
        after = subscriber.after
        assert after is not None, "who is live stands somewhere"
        rest = [message for message in batch.messages if message.last > after]
        if not rest:
            return
        if rest[0].first <= after:
            self._drop(subscriber)  # half of it is new to him: he reads that half for himself
            return
        subscriber.after = batch.last
        self._counts.delivered += len(rest)
        if not subscriber.line.write(Batch(rest, after)):
            self._evict(subscriber)

    def _evict(self, subscriber: Subscriber) -> None:
        """Leave it to `subscriber` to go on once he has taken what was written to him."""
        if subscriber.line.is_open:
            self._counts.evicted += 1
        self._drop(subscriber)


def _context(subscriber: Subscriber, up_to: int | None) -> OperationContext:
    """Return a context in which the subscription goes on where `subscriber` stands."""
    given = subscriber.operation.context
    after = given.resume_after
    if subscriber.after is not None:
        after = cursor_at(given, subscriber.after)
    return OperationContext(
        given.services, given.identity, given.document, given.peer, resume_after=after, up_to=up_to
    )


def _resumable(error: Exception, subscriber: Subscriber) -> Exception:
    """Return `error` with the cursor from which this subscriber resumes, where it says one."""
    if not isinstance(error, Unavailable) or error.code not in RESUMABLE:
        return error
    if subscriber.after is None:
        return error
    return Unavailable(
        error.code,
        error.message,
        hint=error.hint,
        value=cursor_at(subscriber.operation.context, subscriber.after),
    )


def _is_database_away(outcome: Payload | Exception | None) -> bool:
    if not isinstance(outcome, dict):
        return False
    errors = outcome.get("errors", ())
    return any(e.get("extensions", {}).get("code") == "database.unavailable" for e in errors)
