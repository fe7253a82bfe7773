"""The listener: the one connection on which a process hears that ledgers have grown.

A notification says that somebody appended, and nothing more is taken from it: where a ledger's
head stands is what its row says, looked up after a notification and every `POLL_S` in any case.
So a lost notification costs one poll, and a forged one nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from eventlog.database import CONNECTION_LOST, Connection, ConnectionLost, connected
from eventlog.ledger import CHANNEL, Ledger

logger = logging.getLogger("heddle.eventlog")

POLL_S: Final = 1.0
LOOK_PAUSE_S: Final = 0.002
"""Between two looks, so that the notifications of a busy log cost one look together."""

LOOK_TIMEOUT_S: Final = 10.0
RECONNECT_DELAY_S: Final = 0.1
RECONNECT_DELAY_S_MAX: Final = 5.0


class Head:
    """How long one ledger is, as far as this process has seen."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.position = 0
        self._moved = asyncio.Event()

    async def wait_beyond(self, position: int) -> int:
        """Return the head once it is beyond `position`."""
        while self.position <= position:
            await self._moved.wait()
        return self.position

    def advance(self, position: int) -> None:
        """Wake whoever waits for a head that `position` is beyond."""
        if position > self.position:
            self.position = position
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()


class Listener:
    """Keeps the heads of any number of ledgers of one database up to date.

    `failure` is why it cannot hear at present; None while it can, and before it first tried.
    """

    def __init__(self, database_url: str) -> None:
        self.failure: ConnectionLost | None = None
        self._database_url = database_url
        self._heads: dict[Head, Callable[[], None]] = {}
        self._wake = asyncio.Event()
        self._delay_s = RECONNECT_DELAY_S
        self._task = asyncio.create_task(self._run(), name="log-listener")

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def watch(self, ledger: Ledger, lost: Callable[[], None]) -> Head:
        """Return the head of `ledger`, kept up to date until `unwatch`.

        Parameters
        ----------
        lost : called whenever the database could not be asked; `failure` says why
        """
        head = Head(ledger)
        self._heads[head] = lost
        self._wake.set()
        return head

    def unwatch(self, head: Head) -> None:
        """Leave `head` as it is from now on."""
        self._heads.pop(head, None)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except CONNECTION_LOST as error:
                if self.failure is None:
                    logger.warning("the database is away, nothing is heard of the log: %s", error)
                self._lost(error)
            except Exception as error:
                # Followers would wait for ever if this task ended.
                logger.exception("listening to the log failed")
                self._lost(error)
            await asyncio.sleep(self._delay_s)
            self._delay_s = min(2 * self._delay_s, RECONNECT_DELAY_S_MAX)

    async def _listen(self) -> None:
        async with connected(self._database_url, "heddle listener") as connection:
            connection.add_termination_listener(lambda _: self._wake.set())
            await connection.add_listener(CHANNEL, self._notified)
            while True:
                self._wake.clear()
                await self._look(connection)
                if self.failure is not None:
                    logger.info("listening to the log again")
                self.failure, self._delay_s = None, RECONNECT_DELAY_S
                await asyncio.sleep(LOOK_PAUSE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()

    async def _look(self, connection: Connection) -> None:
        rows = await connection.fetch(
            "select ledger_id, position from ledger where ledger_id = any($1::smallint[])",
            list({head.ledger.ledger_id for head in self._heads}),
            timeout=LOOK_TIMEOUT_S,
        )
        positions: dict[int, int] = {row["ledger_id"]: row["position"] for row in rows}
        for head in tuple(self._heads):
            head.advance(positions.get(head.ledger.ledger_id, 0))

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        name = str(payload).rpartition(":")[0]
        if any(head.ledger.name == name for head in self._heads):
            self._wake.set()

    def _lost(self, error: Exception) -> None:
        self.failure = ConnectionLost(f"{type(error).__name__}: {error}")
        for lost in tuple(self._heads.values()):
            lost()
