"""The tail: one listener per process that tells every follower how long the log has become.

A follower keeps its own cursor and reads pages from the log; the tail only wakes it. So a slow
follower holds nothing up and nothing in memory, and a lost notification costs one poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

import asyncpg

from eventlog.database import COMMAND_TIMEOUT_S, CONNECT_TIMEOUT_S, CONNECTION_LOST
from eventlog.envelope import RecordedEvent
from eventlog.ledger import CHANNEL, Ledger
from eventlog.reading import ALL_EVENTS, EventFilter, PayloadOf, read_page

logger = logging.getLogger("heddle.eventlog")

POLL_S: Final = 1.0
RECONNECT_DELAY_S_MAX: Final = 5.0


class Tail:
    """Knows the head of one ledger and wakes whoever waits for it to move."""

    def __init__(self, ledger: Ledger, database_url: str) -> None:
        self.ledger = ledger
        self.position = 0
        self._database_url = database_url
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._listen(), name=f"tail:{ledger.name}")

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def wait_beyond(self, position: int, timeout_s: float) -> int:
        """Return the head once it is beyond `position`, or as it stands after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.position <= position:
                    await self._moved.wait()
        return self.position

    async def follow(
        self,
        after: int,
        *,
        wanted: EventFilter = ALL_EVENTS,
        page_events: int = 200,
        payloads: PayloadOf = PayloadOf.ALL,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Yield every wanted event beyond `after`, once and in order, for ever."""
        while True:
            head = await self.wait_beyond(after, timeout_s=60.0)
            page = await read_page(
                self.ledger,
                after,
                up_to=max(head, after),
                limit=page_events,
                wanted=wanted,
                payloads=payloads,
            )
            for event in page:
                yield event
            # A page shorter than the limit may have been cut by its bytes; an empty one was not.
            after = page[-1].position if page else max(head, after)

    def _advance(self, position: int) -> None:
        if position > self.position:
            self.position = position
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        name, _, position = str(payload).rpartition(":")
        if name == self.ledger.name:
            self._advance(int(position))

    async def _listen(self) -> None:
        delay_s, away = 0.1, False
        while True:
            try:
                connection = await asyncpg.connect(
                    self._database_url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
                )
                try:
                    await connection.add_listener(CHANNEL, self._notified)
                    if away:
                        logger.info("tail of %s: listening again", self.ledger.name)
                    delay_s, away = 0.1, False
                    while True:
                        self._advance(await self._head(connection))
                        await asyncio.sleep(POLL_S)
                finally:
                    connection.terminate()
            except CONNECTION_LOST as error:
                if not away:
                    logger.warning("tail of %s: the database is away: %s", self.ledger.name, error)
                away = True
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RECONNECT_DELAY_S_MAX)

    async def _head(self, connection: asyncpg.Connection[asyncpg.Record]) -> int:
        position: int = await connection.fetchval(
            "select position from ledger where ledger_id = $1", self.ledger.ledger_id
        )
        return position
