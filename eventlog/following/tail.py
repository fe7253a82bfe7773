"""The tail of a ledger: reads each new event once and feeds every follower of this process.

New events go into a bounded window in memory. A follower that keeps up is fed from there, its
filter applied here; one that does not is handed over to reading the log at its own pace, and
back once it has caught up. A follower is a cursor and holds no events but the one in hand or,
while it reads the log, one page. So however slow it is, it holds nobody up and no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Final

from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST, ConnectionLost
from eventlog.envelope import RecordedEvent
from eventlog.following.listener import POLL_S, Listener
from eventlog.following.window import Chunk, Window
from eventlog.ledger import Ledger
from eventlog.reading import ALL_EVENTS, POSITION_MAX, EventFilter, Page, PayloadOf, read_page

logger = logging.getLogger("heddle.eventlog")

WINDOW_EVENTS_MAX: Final = 4_096
WINDOW_BYTES_MAX: Final = 32 * 1024 * 1024
CHUNK_EVENTS_MAX: Final = 500
CHUNK_BYTES_MAX: Final = 4 * 1024 * 1024
FOLLOWER_BYTES_MAX: Final = 1024 * 1024
"""Of a page that one follower reads for itself."""

READS_MAX: Final = 4
"""Followers of a ledger that read the log at the same time; others take turns with them."""

RETRY_DELAY_S: Final = 0.05
RETRY_DELAY_S_MAX: Final = 5.0


class _Follower:
    """Where a follower stands, and how to wake it while it waits for more."""

    __slots__ = ("after", "payloads", "up_to", "wanted", "woken")

    def __init__(
        self, after: int, wanted: EventFilter, payloads: PayloadOf, up_to: int = POSITION_MAX
    ) -> None:
        self.after = after
        self.up_to = up_to
        self.wanted = wanted
        self.payloads = payloads
        if payloads is PayloadOf.ALL and not wanted.wants_frames:
            self.payloads = PayloadOf.FACTS
        self.woken: asyncio.Future[Exception | None] | None = None

    def wake(self, error: Exception | None) -> None:
        if self.woken is not None and not self.woken.done():
            # As a result: an exception that nobody is left to take would be complained of.
            self.woken.set_result(error)


class Tail:
    """Knows the head of one ledger and lets any number of followers follow it.

    Parameters
    ----------
    listener : what hears of the database, for the tails of several ledgers together; or the
        database's URL, for a listener of its own
    """

    def __init__(self, ledger: Ledger, listener: Listener | str) -> None:
        self.ledger = ledger
        self._listener = Listener(listener) if isinstance(listener, str) else listener
        self._owns_listener = isinstance(listener, str)
        self._head = self._listener.watch(ledger, self._lost)
        self._window = Window(WINDOW_EVENTS_MAX, WINDOW_BYTES_MAX)
        self._waiting: set[_Follower] = set()
        self._somebody_waits = asyncio.Event()
        self._needs: Counter[PayloadOf] = Counter()
        self._reads = asyncio.Semaphore(READS_MAX)
        self._closed = False
        self._feeder = asyncio.create_task(self._feed(), name=f"tail:{ledger.name}")

    @property
    def position(self) -> int:
        """How long the ledger is, as far as this process has seen."""
        return self._head.position

    async def close(self) -> None:
        """Stop; who still follows gets `Unavailable` (``tail.closed``)."""
        self._closed = True
        self._feeder.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._feeder
        self._fail_waiting(self._closing())
        self._listener.unwatch(self._head)
        if self._owns_listener:
            await self._listener.close()

    async def wait_beyond(self, position: int, timeout_s: float) -> int:
        """Return the head once it is beyond `position`, or as it stands after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._head.wait_beyond(position)
        return self.position

    async def follow(
        self,
        after: int,
        *,
        wanted: EventFilter = ALL_EVENTS,
        page_events: int = 200,
        payloads: PayloadOf = PayloadOf.ALL,
        retries_max: int | None = None,
        up_to: int = POSITION_MAX,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Yield every wanted event beyond `after`, once and in order, for ever or to `up_to`.

        Events may come with payloads that only other followers asked for. Close the generator
        (`contextlib.aclosing`) when done with it.

        Parameters
        ----------
        page_events : events of a page when the log is read for this follower alone
        retries_max : give up with one of `CONNECTION_LOST` when that many attempts in a row
            failed after the first; None never gives up. Following again beyond the last event
            that was yielded misses nothing
        up_to : end once everything up to this position was yielded

        Raises
        ------
        Unavailable
            ``tail.closed``
        """
        follower = _Follower(after, wanted, payloads, up_to)
        self._needs[follower.payloads] += 1
        failures = 0
        try:
            while not self._closed:
                if follower.after >= up_to:
                    return
                chunk = self._window.beyond(follower.after)
                if chunk is not None and chunk.payloads.covers(follower.payloads):
                    for event in chunk.wanted(wanted, follower.after):
                        if event.position > up_to:
                            return
                        follower.after = event.position
                        yield event
                    if chunk.held:
                        follower.after = chunk.last
                    if follower.after < self._window.end:
                        await asyncio.sleep(0)  # others want their turn
                    continue
                try:
                    if chunk is None and follower.after >= self._window.start:
                        await self._wait(follower)
                        page = None
                    else:
                        page = await self._read(follower, page_events)
                except CONNECTION_LOST:
                    failures += 1
                    if retries_max is not None and failures > retries_max:
                        raise
                    await asyncio.sleep(min(RETRY_DELAY_S * 2.0**failures, RETRY_DELAY_S_MAX))
                    continue
                failures = 0
                if page is not None:
                    for event in page:
                        if event.position > up_to:
                            return
                        follower.after = event.position
                        yield event
                    follower.after = page.scanned_to
            raise self._closing()
        finally:
            self._needs[follower.payloads] -= 1
            if not self._needs.total():
                self._window.move(self._window.end)

    # --- a follower that is behind --------------------------------------------------------

    async def _read(self, follower: _Follower, page_events: int) -> Page:
        async with self._reads:
            page = await read_page(
                self.ledger,
                follower.after,
                limit=page_events,
                wanted=follower.wanted,
                payloads=follower.payloads,
                bytes_max=FOLLOWER_BYTES_MAX,
            )
        if page.scanned_to == follower.after:
            await asyncio.sleep(POLL_S)  # the log is shorter than it was: somebody took from it
        return page

    # --- followers that keep up -----------------------------------------------------------

    async def _wait(self, follower: _Follower) -> None:
        """Return when there may be something for `follower`."""
        if self._listener.failure is not None:
            raise ConnectionLost(str(self._listener.failure))
        follower.woken = asyncio.get_running_loop().create_future()
        self._waiting.add(follower)
        self._somebody_waits.set()
        try:
            error = await follower.woken
        finally:
            self._waiting.discard(follower)
        if error is not None:
            raise error

    async def _feed(self) -> None:
        """Read on while somebody waits for it."""
        while True:
            await self._somebody_waits.wait()
            if not self._waiting:
                self._somebody_waits.clear()
                continue
            try:
                self._place_window()
                await self._head.wait_beyond(self._window.end)
                if self._waiting:
                    await self._read_on()
            except CONNECTION_LOST as error:
                self._fail_waiting(error)
                await asyncio.sleep(RETRY_DELAY_S)
            except Exception as error:
                # What one follower would be told when it read the log is told to all.
                logger.exception("the tail of %s cannot go on", self.ledger.name)
                self._fail_waiting(error)
                await asyncio.sleep(POLL_S)

    def _place_window(self) -> None:
        """Have the window begin where it is of use, and send away whoever is before it."""
        window, head = self._window, self.position
        if window.start == window.end:
            window.move(min(head, *(follower.after for follower in self._waiting)))
        if head - window.end > window.events_max:
            window.move(head)
        for follower in tuple(self._waiting):
            if follower.after < window.start:
                self._wake(follower)

    async def _read_on(self) -> None:
        payloads = max(+self._needs, key=_BREADTH.index, default=PayloadOf.NONE)
        page = await read_page(
            self.ledger,
            self._window.end,
            limit=CHUNK_EVENTS_MAX,
            payloads=payloads,
            bytes_max=CHUNK_BYTES_MAX,
        )
        if not page:
            await asyncio.sleep(POLL_S)  # the log is shorter than it was: somebody took from it
            return
        chunk = Chunk(page, payloads)
        self._window.add(chunk)
        for follower in tuple(self._waiting):
            self._offer(chunk, follower)

    def _offer(self, chunk: Chunk, follower: _Follower) -> None:
        """Wake `follower` if `chunk` has something for it or is its last, else take it along."""
        if (
            chunk.last >= follower.up_to
            or not chunk.payloads.covers(follower.payloads)
            or any(True for _ in chunk.wanted(follower.wanted, follower.after))
        ):
            self._wake(follower)
        else:
            follower.after = max(follower.after, chunk.last)

    def _wake(self, follower: _Follower, error: Exception | None = None) -> None:
        self._waiting.discard(follower)
        follower.wake(error)

    def _lost(self) -> None:
        self._fail_waiting(ConnectionLost(str(self._listener.failure)))

    def _fail_waiting(self, error: Exception) -> None:
        for follower in tuple(self._waiting):
            self._wake(follower, error)

    def _closing(self) -> Unavailable:
        return Unavailable("tail.closed", f"ledger {self.ledger.name!r} is not followed any more")


_BREADTH: Final = (PayloadOf.NONE, PayloadOf.FACTS, PayloadOf.ALL)
