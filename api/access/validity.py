"""What lasts longer than a request ends when the identity does in whose name it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final, TypeVar

from api.access.authentication import Authenticator
from api.access.identity import Identity
from api.access.tokens import expired
from domain.errors import Unavailable

CHECKED_EVERY_S: Final = 2.0

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


async def _check(authenticator: Authenticator, identity: Identity) -> None:
    # Where nobody can say so now it goes on: nothing new comes out of a log that is away either.
    with suppress(Unavailable):
        if not await authenticator.still_valid(identity):
            raise expired()
