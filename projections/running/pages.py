"""Pages of the log that the projections of a process read together, each fetched once.

Positions have no gaps, so a page that one projection has read serves every other one that stands
within it. Only the newest events are kept; a projection that is far behind reads for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Final

from domain.events import FRAME_RECORDED
from eventlog.decoded import DECODED, READINGS_MAX
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import Page, PayloadOf, read_page

EVENTS_KEPT_MAX: Final = 4_000
AHEAD_MAX: Final = 2
"""Pages that are fetched before somebody asks for them."""

FRAMES_AT_ONCE: Final = 16
"""Frames that are decoded before others get their turn on the event loop."""

FACTS_AT_ONCE: Final = 64
"""Facts that are decoded before others get their turn."""

PAYLOAD_BYTES_KEPT_MAX: Final = 32 * 1024 * 1024
"""One page may exceed it: what has been read has to be handed on."""


class SharedPages:
    """The newest events that a projection of this process has read, in order, without gaps."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._kept: deque[RecordedEvent] = deque()
        self._payload_bytes = 0
        self._turn = asyncio.Lock()
        self._coming: dict[int, asyncio.Task[Page]] = {}

    async def read(
        self, after: int, *, up_to: int, limit: int, head: int | None = None
    ) -> Sequence[RecordedEvent]:
        """Return events beyond position `after` up to `up_to` with their payloads.

        At most `limit` events, and no more payload than a page may have; at least one event where
        there is one.

        Parameters
        ----------
        head : where the reader is going; the next page on the way there is fetched meanwhile
        """
        # In turns, so that who comes while a page is being read finds it read.
        async with self._turn:
            held = self._held(after, up_to, limit)
            if held:
                return held
            coming = self._coming.pop(after, None) or self._fetch(after, up_to, limit)
            page = await coming
            self._keep(after, page)
            if page and head is not None and head > page[-1].position:
                self._fetch_ahead(page[-1].position, head, limit)
            await decode_frames(page)
            return [event for event in page[:limit] if event.position <= up_to]

    def _fetch(self, after: int, up_to: int, limit: int) -> asyncio.Task[Page]:
        return asyncio.create_task(
            read_page(self.ledger, after, up_to=up_to, limit=limit, payloads=PayloadOf.ALL)
        )

    def _fetch_ahead(self, after: int, head: int, limit: int) -> None:
        if after in self._coming or self._held(after, head, 1):
            return
        while len(self._coming) >= AHEAD_MAX:
            self._drop(next(iter(self._coming)))
        task = self._coming[after] = self._fetch(after, head, limit)
        # Whoever asks for the page is told; a page that nobody asks for failed nobody.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _drop(self, after: int) -> None:
        self._coming.pop(after).cancel()

    def forget(self) -> None:
        """Keep nothing of what was read: the log may say of an event that it was erased."""
        self._kept.clear()
        self._payload_bytes = 0
        for after in tuple(self._coming):
            self._drop(after)

    def _held(self, after: int, up_to: int, limit: int) -> Sequence[RecordedEvent]:
        if not self._kept or not self._kept[0].position <= after + 1 <= self._kept[-1].position:
            return ()
        start = after + 1 - self._kept[0].position
        end = min(start + limit, up_to + 1 - self._kept[0].position, len(self._kept))
        return [self._kept[n] for n in range(start, end)]

    def _keep(self, after: int, page: Sequence[RecordedEvent]) -> None:
        if self._kept and after < self._kept[0].position - 1:
            return  # of somebody far behind, and nobody else's concern
        if self._kept and after != self._kept[-1].position:
            self._kept.clear()
            self._payload_bytes = 0
        for event in page:
            self._kept.append(event)
            self._payload_bytes += len(event.payload or b"")
        while len(self._kept) > len(page) and (
            len(self._kept) > EVENTS_KEPT_MAX or self._payload_bytes > PAYLOAD_BYTES_KEPT_MAX
        ):
            self._payload_bytes -= len(self._kept.popleft().payload or b"")


async def decoded_pages(
    pages: AsyncGenerator[Page, None], types: Collection[str] | None
) -> AsyncGenerator[Page, None]:
    """Yield `pages`, decoding the next one while the one before is worked on.

    So three are held at a time: in hand, being decoded, being fetched. Whoever works on one waits
    for the server most of the time, and that time is used.

    Parameters
    ----------
    types : facts of these are decoded; None: of all
    """

    async def following() -> Page | None:
        page = await anext(pages, None)
        if page is not None:
            await decode_frames(page)
            await _decode_facts(page, types)
        return page

    coming = asyncio.create_task(following())
    try:
        while (page := await coming) is not None:
            coming = asyncio.create_task(following())
            yield page
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await pages.aclose()


async def _decode_facts(page: Sequence[RecordedEvent], types: Collection[str] | None) -> None:
    """Decode the facts of `types` in `page`; what is wrong with one is told to who asks for it."""
    facts = [
        event
        for event in page
        if (types is None or event.type in types)
        and event.type != FRAME_RECORDED
        and event.payload is not None
    ]
    for first in range(0, len(facts), FACTS_AT_ONCE):
        coming, decoded = iter(facts[first : first + FACTS_AT_ONCE]), False
        while not decoded:
            with contextlib.suppress(Exception):
                for event in coming:
                    _ = event.fact
                decoded = True
        await asyncio.sleep(0)


async def decode_frames(page: Sequence[RecordedEvent]) -> None:
    """Decode the frames of `page` that nobody has decoded yet, as far as they can be kept."""
    encoded: dict[bytes, bytes] = {}
    readings = 0
    for event in page:
        if event.type != FRAME_RECORDED:
            continue
        window = event.window
        if window is None or event.payload is None:
            continue
        readings += window.reading_count
        if readings > READINGS_MAX // 2:
            break
        if DECODED.find(event.payload_sha256) is None:
            encoded[event.payload_sha256] = event.payload
        if len(encoded) == FRAMES_AT_ONCE:
            DECODED.decode_all(encoded)
            encoded = {}
            await asyncio.sleep(0)
    DECODED.decode_all(encoded)
