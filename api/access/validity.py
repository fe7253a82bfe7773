"""What lasts longer than a request ends when the identity does in whose name it goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from api.access.authentication import Authenticator
from api.access.identity import Identity
from api.access.tokens import expired
from domain.errors import NotAllowed, Unavailable

logger = logging.getLogger("heddle.access")

CHECKED_EVERY_S: Final = 2.0

End = Callable[[NotAllowed], None]
T = TypeVar("T")


def may_end(identity: Identity) -> bool:
    """Return whether `identity` can end at all: that of an open server never does."""
    return identity.expires_at is not None or identity.key_id is not None


async def while_valid(
    messages: AsyncGenerator[T, None],
    authenticator: Authenticator,
    identity: Identity,
    *,
    every_s: float | None = None,
) -> AsyncGenerator[T, None]:
    """Yield `messages` for as long as `identity` would be let in; then close them.

    Parameters
    ----------
    every_s : so often it is looked at; `CHECKED_EVERY_S` without it

    Raises
    ------
    NotAllowed
        ``access.expired``
    """
    every_s = CHECKED_EVERY_S if every_s is None else every_s
    loop = asyncio.get_running_loop()
    checked_at = loop.time()
    waiting: asyncio.Future[T] | None = None
    try:
        while True:
            waiting = asyncio.ensure_future(anext(messages))
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=max(0.0, checked_at + every_s - loop.time()))
                if loop.time() - checked_at >= every_s:
                    await _check(authenticator, identity)
                    checked_at = loop.time()
            try:
                message = waiting.result()
            except StopAsyncIteration:
                return
            yield message
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await waiting
        await messages.aclose()


class IdentityWatch:
    """Looks every `CHECKED_EVERY_S` whether identities would be let in still, each of them once."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._watched: dict[Identity, dict[End, None]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, identity: Identity, end: End) -> Iterator[None]:
        """Call `end` once `identity` would not be let in any more (``access.expired``)."""
        if not may_end(identity):
            yield
            return
        self._watched.setdefault(identity, {})[end] = None
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        try:
            yield
        finally:
            ends = self._watched.get(identity)
            if ends is not None:
                ends.pop(end, None)
                if not ends:
                    del self._watched[identity]
            if not self._watched and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(CHECKED_EVERY_S)
            for identity in tuple(self._watched):
                if not await self._is_valid(identity):
                    for end in self._watched.pop(identity, ()):
                        end(expired())

    async def _is_valid(self, identity: Identity) -> bool:
        try:
            return await self._authenticator.still_valid(identity)
        except Unavailable:
            # Nobody can say so now: nothing new comes out of a log that is away either.
            return True
        except Exception:
            logger.exception("whether %s may go on cannot be said", identity.actor)
            return False


async def _check(authenticator: Authenticator, identity: Identity) -> None:
    # Where nobody can say so now it goes on: nothing new comes out of a log that is away either.
    with suppress(Unavailable):
        if not await authenticator.still_valid(identity):
            raise expired()
