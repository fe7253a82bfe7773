"""The runner: follows the log for a projection, and keeps rows and checkpoint together.

Events are folded in batches. A batch and its checkpoint are one transaction that holds the
checkpoint's row, so a second process folding the same projection waits and then sees that the
work is done. An event that cannot be folded stops its projection alone, visibly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import ClassVar, Final, Protocol

from opentelemetry import trace

from domain.errors import Unavailable
from eventlog.database import CONNECTION_LOST, Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_page
from eventlog.tail import Tail

logger = logging.getLogger("heddle.projections")
tracer = trace.get_tracer("heddle.projections")

BATCH_EVENTS_MAX: Final = 1_000
EVENTS_AT_ONCE: Final = 16
"""Frames that a fold works on before others get their turn on the event loop."""

IDLE_WAIT_S: Final = 30.0
RETRY_DELAY_S: Final = 1.0
FAILED_RETRY_DELAY_S: Final = 30.0


class Projection(Protocol):
    """A read model: how a batch of events changes its rows.

    Attributes
    ----------
    name, version : identify the rows; a fold that would give other rows needs a new version
    types : stored types it folds; None for all
    payloads : of which events it needs the payload
    """

    name: ClassVar[str]
    version: ClassVar[int]
    types: ClassVar[tuple[str, ...] | None]
    payloads: ClassVar[PayloadOf]

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`, in order, inside the caller's transaction."""


class ProjectionRunner:
    """Keeps one projection of one ledger at the head of the log."""

    def __init__(self, projection: Projection, tail: Tail) -> None:
        self.projection = projection
        self.position = 0
        self.failure: str | None = None
        self._tail = tail
        self._ledger = tail.ledger
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"projection:{projection.name}")

    @property
    def lag(self) -> int:
        """Events of the log that are not folded yet."""
        return max(0, self._tail.position - self.position)

    async def close(self) -> None:
        """Stop after the batch in hand; the next start goes on from its checkpoint."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def wait_for(self, position: int, timeout_s: float) -> None:
        """Return once everything up to `position` is folded.

        Raises
        ------
        Unavailable
            ``projection.behind`` when that takes longer than `timeout_s`
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.position < position:
                    await self._moved.wait()
        except TimeoutError:
            raise Unavailable(
                "projection.behind",
                f"projection {self.projection.name!r} is at {self.position}, not yet at {position}",
                hint="ask again, or without minPosition",
                value=position,
                limit=self.position,
            ) from None

    async def _run(self) -> None:
        while True:
            try:
                self._advance(await self._checkpoint())
                while True:
                    head = await self._tail.wait_beyond(self.position, IDLE_WAIT_S)
                    while self.position < head:
                        self._advance(await self._fold_next(head))
                        self._recovered()
                    self._recovered()  # somebody else may have folded what we could not
            except (*CONNECTION_LOST, Unavailable) as error:
                await self._failed(f"{type(error).__name__}: {error}", RETRY_DELAY_S)
            except Exception as error:
                # A poison event: everybody else goes on, this projection says why it cannot.
                logger.exception("projection %s stopped", self.projection.name)
                await self._failed(f"{type(error).__name__}: {error}", FAILED_RETRY_DELAY_S)

    async def _failed(self, failure: str, delay_s: float) -> None:
        if failure != self.failure:
            logger.error(
                "projection %s stopped at %d: %s", self.projection.name, self.position, failure
            )
        self.failure = failure
        await asyncio.sleep(delay_s)

    def _recovered(self) -> None:
        if self.failure is not None:
            logger.info("projection %s goes on", self.projection.name)
            self.failure = None

    def _advance(self, position: int) -> None:
        self.position = position
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _checkpoint(self) -> int:
        await self._ledger.pool.execute(
            "insert into projection_checkpoint (ledger_id, projection, version, position) "
            "values ($1, $2, $3, 0) on conflict do nothing",
            *self._key,
        )
        position: int = await self._ledger.pool.fetchval(
            "select position from projection_checkpoint "
            "where ledger_id = $1 and projection = $2 and version = $3",
            *self._key,
        )
        return position

    async def _fold_next(self, head: int) -> int:
        """Fold the next batch beyond our position, up to `head`; return where we stand then."""
        up_to = min(head, self.position + BATCH_EVENTS_MAX)
        page = await read_page(
            self._ledger,
            self.position,
            up_to=up_to,
            limit=BATCH_EVENTS_MAX,
            payloads=self.projection.payloads,
        )
        reached = page[-1].position if page else up_to
        types = self.projection.types
        events = [event for event in page if types is None or event.type in types]
        with tracer.start_as_current_span(
            f"fold {self.projection.name}", attributes={"heddle.events": len(events)}
        ):
            async with self._ledger.pool.acquire() as connection, connection.transaction():
                stored: int = await connection.fetchval(
                    "select position from projection_checkpoint "
                    "where ledger_id = $1 and projection = $2 and version = $3 for update",
                    *self._key,
                )
                if stored != self.position:
                    return stored  # another process folded it
                if events:
                    await self.projection.fold(connection, self._ledger, events)
                await connection.execute(
                    "update projection_checkpoint set position = $4 "
                    "where ledger_id = $1 and projection = $2 and version = $3",
                    *self._key,
                    reached,
                )
        return reached

    @property
    def _key(self) -> tuple[int, str, int]:
        return self._ledger.ledger_id, self.projection.name, self.projection.version
