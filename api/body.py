"""Reading a request's body without ever holding more of it, or waiting longer, than is allowed."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from domain.errors import InvalidInput

BODY_S_MAX: Final = 30.0
"""A body has to arrive within so long, or whoever sends it drop by drop would hold us for ever."""


async def read_body(request: Request, bytes_max: int, seconds_max: float = BODY_S_MAX) -> bytes:
    """Return the body of `request`.

    Raises
    ------
    InvalidInput
        as `receive_body`
    """
    declared = request.headers.get("content-length", "")
    return await receive_body(request.receive, declared, bytes_max, seconds_max)


async def receive_body(
    receive: Receive, declared: str, bytes_max: int, seconds_max: float = BODY_S_MAX
) -> bytes:
    """Return the body that `receive` brings.

    Parameters
    ----------
    declared : the header ``content-length``; empty without one

    Raises
    ------
    InvalidInput
        ``body.too_large`` as soon as it is known to exceed `bytes_max`, or ``body.too_slow``
    ClientDisconnect
        the client went away
    """
    if declared.isdigit() and int(declared[:20]) > bytes_max:
        raise _too_large(int(declared[:20]), bytes_max)
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds_max):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(size, bytes_max)
                chunks.append(chunk)
                more = message.get("more_body", False)
    except TimeoutError:
        raise _too_slow(size, seconds_max) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def check_content_type(request: Request, wanted: str) -> None:
    """Raise `InvalidInput` (``body.content_type``) unless the body is of the `wanted` type."""
    check_media_type(request.headers.get("content-type", ""), wanted)


def check_media_type(content_type: str, wanted: str) -> None:
    """Raise `InvalidInput` (``body.content_type``) unless `content_type` is the `wanted` one."""
    given = content_type.partition(";")[0].strip().lower()
    if given != wanted:
        raise InvalidInput(
            "body.content_type",
            f"the content type is {given or 'missing'!r:.80}, not {wanted!r}",
            hint=f"send Content-Type: {wanted}",
            value=given[:80],
            limit=wanted,
        )


def _too_large(size: int, bytes_max: int) -> InvalidInput:
    return InvalidInput(
        "body.too_large",
        f"the body takes {size} bytes or more, over the limit of {bytes_max}",
        hint="send less at once",
        value=size,
        limit=bytes_max,
    )


def _too_slow(size: int, seconds_max: float) -> InvalidInput:
    return InvalidInput(
        "body.too_slow",
        f"only {size} bytes of the body arrived within {seconds_max:g} s",
        hint="send the body without pauses, or less at once",
        value=size,
        limit=seconds_max,
    )
