"""Who folds: one active worker per projection, by an advisory lock; the others stand by.

A process holds the locks of all its projections on one connection of its own. The lock ends with
that connection, so a process that dies or is cut off is succeeded within about `TRY_INTERVAL_S`.
It keeps two processes from doing the same work; that work is done once does not depend on it: the
checkpoint's row sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

from eventlog.database import (
    CONNECTION_LOST,
    ConnectionLost,
    DriverConnection,
    Pool,
    telling_loss,
)

logger = logging.getLogger("heddle.projections")

TRY_INTERVAL_S: Final = 1.0
"""Between two attempts to get a lock, and two signs of life on the connection."""

ANSWER_TIMEOUT_S: Final = 5.0
RECONNECT_DELAY_S: Final = 0.1
RECONNECT_DELAY_S_MAX: Final = 5.0
_KEEPALIVE: Final = """
    set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3
"""
"""A machine that fell off the network says no farewell: the server finds out in about 11 s."""


def lock_key(*named: object) -> int:
    """Return the key of the advisory lock for what `named` names together."""
    digest = hashlib.blake2b("/".join(map(str, named)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class Claim:
    """A lock that is wanted. `held` while this process has it."""

    def __init__(self, key: int, changed: Callable[[], None]) -> None:
        self.key = key
        self.held = False
        self.not_before_s = 0.0
        self._changed = changed

    def tell(self, *, held: bool) -> None:
        """Note whether the lock is held, and let its owner know when that is news."""
        if held != self.held:
            self.held = held
            self._changed()


class ActiveLocks:
    """The locks of a process, all on one connection.

    `failure` is why there is no connection at present; None while there is one.
    """

    def __init__(self, pool: Pool) -> None:
        self.failure: str | None = None
        self._pool = pool
        self._claims: dict[int, Claim] = {}
        self._given_up: set[int] = set()
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="projection-locks")

    async def close(self) -> None:
        """Let every lock go."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def claim(self, key: int, changed: Callable[[], None]) -> Claim:
        """Return a claim on `key` that is tried for until it is held, and again when it was lost.

        Parameters
        ----------
        changed : called whenever `Claim.held` has changed
        """
        if key in self._claims:
            raise ValueError("this process claims that lock already")
        claim = self._claims[key] = Claim(key, changed)
        self._wake.set()
        return claim

    def let_go(self, claim: Claim, *, for_s: float | None = None) -> None:
        """Give the lock up for at least `for_s`, so that another may have it; None: for ever."""
        if claim.held:
            self._given_up.add(claim.key)
        if for_s is None:
            self._claims.pop(claim.key, None)
        else:
            claim.not_before_s = asyncio.get_running_loop().time() + for_s
        claim.tell(held=False)
        self._wake.set()

    async def _run(self) -> None:
        delay_s = RECONNECT_DELAY_S
        while True:
            try:
                async with self._connected() as connection:
                    self.failure, delay_s = None, RECONNECT_DELAY_S
                    while True:
                        self._wake.clear()
                        await self._turn(connection)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(TRY_INTERVAL_S):
                                await self._wake.wait()
            except CONNECTION_LOST as error:
                self._lost(f"{type(error).__name__}: {error}")
            except Exception as error:
                # Nobody would fold any more if this task ended.
                logger.exception("keeping the locks of projections failed")
                self._lost(f"{type(error).__name__}: {error}")
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RECONNECT_DELAY_S_MAX)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[DriverConnection]:
        connection = await self._pool.connect_apart()
        try:
            connection.add_termination_listener(lambda _: self._lost("the connection ended"))
            with telling_loss(connection):
                await connection.execute(_KEEPALIVE, timeout=ANSWER_TIMEOUT_S)
                yield connection
        finally:
            connection.terminate()
            self._lost("closed")

    async def _turn(self, connection: DriverConnection) -> None:
        """Give up what is not wanted any more, try for what is missing, and see who answers."""
        if connection.is_closed():
            raise ConnectionLost("the connection that held the locks has ended")
        given_up, self._given_up = list(self._given_up), set()
        if given_up:
            await connection.execute(
                "select pg_advisory_unlock(key) from unnest($1::bigint[]) key",
                given_up,
                timeout=ANSWER_TIMEOUT_S,
            )
        now_s = asyncio.get_running_loop().time()
        missing = [
            key
            for key, claim in self._claims.items()
            if not claim.held and claim.not_before_s <= now_s
        ]
        rows = await connection.fetch(
            "select key from unnest($1::bigint[]) key where pg_try_advisory_lock(key)",
            missing,
            timeout=ANSWER_TIMEOUT_S,
        )
        for row in rows:
            claim = self._claims.get(row["key"])
            if claim is None or claim.not_before_s > now_s:
                self._given_up.add(row["key"])  # given up while it was being asked for
                self._wake.set()
            else:
                claim.tell(held=True)

    def _lost(self, why: str) -> None:
        self.failure = why
        self._given_up.clear()
        for claim in self._claims.values():
            claim.tell(held=False)
