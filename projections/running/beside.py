"""Folding beside: a projection's tables made anew from the log, next to the live ones.

Used to rebuild them (`projections.running.rebuild`) and to check them
(`projections.running.content`). The fold is the projection's own; it is given a connection on which
its tables' names mean the copies. Only one process at a time works beside a projection, by an
advisory lock; what a killed one left is removed by the next.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.errors import Conflict, InvalidInput, Unavailable
from domain.events import FRAME_RECORDED, UnreadableEvent, event_types
from eventlog.database import CONNECTION_LOST, DriverConnection, Pool, telling_loss
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, before_unknown, read_pages
from projections.running.active import lock_key
from projections.running.checkpoints import (
    Checkpoint,
    begin,
    fold_batch,
    fold_envelopes,
    live_checkpoint,
)
from projections.running.pages import decoded_pages
from projections.running.poison import PoisonEvent
from projections.running.projection import (
    IndexedForQueries,
    OfEnvelopes,
    Policy,
    Projection,
    anew,
)
from projections.running.side_tables import (
    CHECKPOINTS,
    SideTables,
    make_side_tables,
    remove_side_tables,
)

logger = logging.getLogger("heddle.projections")

BATCH_EVENTS_MAX: Final = 2_000
PAUSE_EVENTS_MAX: Final = 2_000
"""Events that are folded, at most, while the live projection is held still."""

MAINTENANCE_TIMEOUT_S: Final = 4 * 3_600.0

RANGE_EVENTS: Final = 40_000
RANGE_EVENTS_FIRST: Final = 4_000
"""Events after which it is decided anew whether the wanted ones alone are read."""

FILTERED_RATIO: Final = 0.3
"""Share of wanted events below which it costs less to have the server choose them."""

_NOT_WAITING: Final = {"synchronous_commit": "off"}
"""For what is nobody's until the exchange, whose commit waits for the disk on behalf of all."""

Told = Callable[[str, int], None]
"""Told the ledger's name and the position reached, after each batch."""


def silent(_ledger: str, _position: int) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Beside:
    """Copies of a projection's tables, folded from the log's beginning.

    Parameters
    ----------
    side : the copies
    guard : holds the lock, and the live projection while it has to keep still
    folding : where bare names mean the copies
    held : by ledger number, where the copies' rows stand
    """

    pool: Pool
    projection: Projection
    side: SideTables
    guard: DriverConnection
    folding: DriverConnection
    ledgers: Mapping[int, Ledger]
    held: dict[int, Checkpoint]
    told: Told

    @property
    def _types(self) -> frozenset[str] | None:
        types = self.projection.types
        return None if types is None else frozenset(types)

    async def catch_up(self, ledger_id: int, target: int) -> None:
        """Fold on until the copies' rows of a ledger reflect the log up to `target`.

        Raises
        ------
        PoisonEvent
            an event that cannot be folded; the copies stand before it
        Unavailable
            ``projection.log_ends``
        """
        ledger = self.ledgers[ledger_id]
        if self.held[ledger_id].position < target and await ledger.head() < target:
            raise self._log_ends(ledger, target)
        types = self.projection.types
        wanted_ratio = 1.0
        while (after := self.held[ledger_id].position) < target:
            # Where few events are wanted only those are read; what was wanted last time says so.
            only_wanted = types is not None and wanted_ratio < FILTERED_RATIO
            until = min(target, after + (RANGE_EVENTS if after else RANGE_EVENTS_FIRST))
            if isinstance(self.projection, OfEnvelopes):
                await self._fold_envelopes(self.projection, ledger, until)
                continue
            found = await (self._fold_wanted if only_wanted else self._fold_all)(ledger, until)
            if self.held[ledger_id].position == after:
                raise self._log_ends(ledger, target)
            wanted_ratio = found / (until - after)

    async def _fold_envelopes(self, projection: OfEnvelopes, ledger: Ledger, until: int) -> None:
        """Fold on up to `until`, which the log holds, without reading it here."""
        held = self.held[ledger.ledger_id]
        async with self._transaction():
            reached = await fold_envelopes(self.folding, projection, ledger, held, until)
        self._reached(ledger, self._ours(reached))

    async def _fold_all(self, ledger: Ledger, until: int) -> int:
        """Fold on up to `until`, reading every event; return how many of them were wanted."""
        found = 0
        held = self.held[ledger.ledger_id]
        pages = read_pages(
            ledger,
            held.position,
            up_to=until,
            limit=BATCH_EVENTS_MAX,
            payloads=self.projection.payloads,
        )
        async with contextlib.aclosing(decoded_pages(pages, self._types)) as decoded:
            async for page in decoded:
                held = await self._fold_known(ledger, page, held)
                self._reached(ledger, held)
                types = self._types
                found += len(page) if types is None else len([e for e in page if e.type in types])
        return found

    async def _fold_wanted(self, ledger: Ledger, until: int) -> int:
        """Fold on up to `until`, reading wanted types alone; return how many events that were.

        The checkpoint vouches for the others too: one of an unknown type is looked for first.
        """
        held = self.held[ledger.ledger_id]
        unknown = await _first_unknown(ledger, held.position, until)
        last = until if unknown is None else unknown - 1
        found = 0
        pages = read_pages(
            ledger,
            held.position,
            up_to=last,
            limit=BATCH_EVENTS_MAX,
            wanted=EventFilter(types=self.projection.types or ()),
            payloads=self.projection.payloads,
        )
        async with contextlib.aclosing(decoded_pages(pages, self._types)) as decoded:
            async for page in decoded:
                held = await self._fold_halving(ledger, page, held, page.scanned_to)
                self._reached(ledger, held)
                found += len(page)
        if held.position < last:  # nothing that is wanted stands there
            self._reached(ledger, await self._fold_halving(ledger, (), held, last))
        if unknown is not None:
            await self._fold_all(ledger, unknown)  # which says what is wrong with it
        return found

    def _log_ends(self, ledger: Ledger, target: int) -> Unavailable:
        return Unavailable(
            "projection.log_ends",
            f"the log of {ledger.name!r} ends before {target}",
            hint="was the database restored to an earlier point?",
            value=target,
            limit=self.held[ledger.ledger_id].position,
        )

    def _reached(self, ledger: Ledger, held: Checkpoint) -> None:
        self.held[ledger.ledger_id] = held
        self.told(ledger.name, held.position)

    async def _fold_known(
        self, ledger: Ledger, page: Sequence[RecordedEvent], held: Checkpoint
    ) -> Checkpoint:
        """Fold `page`, but for what stands at and beyond an event of an unknown type."""
        try:
            batch = before_unknown(page)
        except UnreadableEvent as error:
            raise PoisonEvent(self.projection.name, page[0], error) from error
        held = await self._fold_halving(ledger, batch, held, batch[-1].position)
        if len(batch) == len(page):
            return held
        return await self._fold_known(ledger, page[len(batch) :], held)

    async def _fold_halving(
        self, ledger: Ledger, batch: Sequence[RecordedEvent], held: Checkpoint, until: int
    ) -> Checkpoint:
        """Fold `batch`, at once if it can be, and else up to the event that cannot be folded."""
        try:
            reached = await self._fold(ledger, batch, held, until)
        except (*CONNECTION_LOST, Unavailable):
            raise
        except Exception as error:
            self.projection = anew(self.projection)
            if len(batch) <= 1:
                if not batch:
                    raise
                raise PoisonEvent(self.projection.name, batch[0], error) from error
        else:
            return self._ours(reached)
        middle = len(batch) // 2
        held = await self._fold_halving(ledger, batch[:middle], held, batch[middle - 1].position)
        return await self._fold_halving(ledger, batch[middle:], held, until)

    async def _fold(
        self, ledger: Ledger, batch: Sequence[RecordedEvent], held: Checkpoint, until: int
    ) -> Checkpoint | None:
        async with self._transaction():
            return await fold_batch(
                self.folding, self.projection, ledger, batch, held, until, wait_for_disk=False
            )

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        async with self.folding.transaction():
            # Should the copies be gone, bare names would mean the live tables.
            await self.folding.execute(
                f"lock table {self.side.name(CHECKPOINTS)} in access share mode"
            )
            yield

    def _ours(self, reached: Checkpoint | None) -> Checkpoint:
        if reached is None:
            raise Conflict(
                "projection.rebuild_disturbed",
                f"somebody else has changed the rows in {self.side.schema}",
                hint="start again",
            )
        return reached

    async def settle(self) -> None:
        """Give the copies the indexes they lack, and have the planner know them as the originals.

        Once, when they are nearly full.
        """
        if self.side.made_last:
            await self.folding.execute(
                ";\n".join(self.side.made_last), timeout=MAINTENANCE_TIMEOUT_S
            )
        for table in self.side.tables:
            await self.folding.execute(
                f"vacuum (analyze) {self.side.name(table)}", timeout=MAINTENANCE_TIMEOUT_S
            )

    async def live(self, *, for_update: bool = False) -> dict[int, Checkpoint]:
        """Return where the live rows stand, by ledger; held so in the guard's transaction."""
        rows = await self.guard.fetch(
            "select distinct on (ledger_id) ledger_id, version, position, generation "
            f"from {self.side.live_name(CHECKPOINTS)} where projection = $1 "
            "order by ledger_id, version desc"
            if not for_update
            else "select ledger_id, version, position, generation "
            f"from {self.side.live_name(CHECKPOINTS)} where projection = $1 "
            "order by ledger_id, version for update",
            self.projection.name,
        )
        # In the order of versions: the last one of a ledger is what queries read.
        return {
            row["ledger_id"]: Checkpoint(row["version"], row["position"], row["generation"])
            for row in rows
        }


@contextlib.asynccontextmanager
async def beside(
    pool: Pool,
    projection: Projection,
    purpose: str,
    *,
    ledger_ids: Sequence[int] | None = None,
    told: Told = silent,
) -> AsyncIterator[Beside]:
    """Lend empty copies of the tables of `projection`, and remove them afterwards.

    Parameters
    ----------
    purpose : ``rebuild`` or ``check``, for the schema's name
    ledger_ids : whose events are to be folded; None: of all that the projection has rows of

    Raises
    ------
    InvalidInput
        ``projection.is_policy``: folding it would command
    Conflict
        ``projection.busy``: another process rebuilds or checks it
    """
    name = projection.name
    if isinstance(projection, Policy):
        raise InvalidInput(
            "projection.is_policy",
            f"{name!r} is a policy: to fold it from the beginning would command anew what it has "
            f"commanded as {projection.commands_as!r}",
            hint="its memory goes on from its checkpoint, whatever its version",
            value=name,
        )
    async with _connected(pool) as guard, _connected(pool, _NOT_WAITING) as folding:
        if not await guard.fetchval("select pg_try_advisory_lock($1)", lock_key("beside", name)):
            raise Conflict(
                "projection.busy",
                f"another process is rebuilding or checking projection {name!r}",
                hint="wait until it is done",
                value=name,
            )
        slug = name.replace("-", "_")
        for kind in ("rebuild", "check"):
            if left := await remove_side_tables(guard, f"{kind}_{slug}_"):
                logger.info("removed what %d unfinished runs of %s had left", left, name)
        side = await make_side_tables(
            guard,
            f"{purpose}_{slug}_",
            projection.tables,
            projection.query_indexes if isinstance(projection, IndexedForQueries) else (),
        )
        try:
            await folding.execute(f"set search_path to {side.search_path}")
            async with _ledgers(guard, pool, name, ledger_ids) as ledgers:
                held = {}
                for ledger_id in ledgers:
                    await begin(folding, ledger_id, name, projection.version)
                    found = await live_checkpoint(folding, ledger_id, name)
                    assert found is not None, "it has just been made"
                    held[ledger_id] = found
                yield Beside(pool, anew(projection), side, guard, folding, ledgers, held, told)
        finally:
            with contextlib.suppress(*CONNECTION_LOST):
                await remove_side_tables(guard, side.schema)


@contextlib.asynccontextmanager
async def _connected(
    pool: Pool, settings: Mapping[str, str] | None = None
) -> AsyncIterator[DriverConnection]:
    connection = await pool.connect_apart(settings)
    try:
        with telling_loss(connection):
            yield connection
    finally:
        connection.terminate()


@contextlib.asynccontextmanager
async def _ledgers(
    connection: DriverConnection, pool: Pool, projection: str, ledger_ids: Sequence[int] | None
) -> AsyncIterator[dict[int, Ledger]]:
    rows = await connection.fetch(
        "select l.ledger_id, l.name from ledger l "
        "where l.ledger_id in (select ledger_id from projection_checkpoint where projection = $1) "
        "and ($2::integer[] is null or l.ledger_id = any($2)) order by l.ledger_id",
        projection,
        None if ledger_ids is None else list(ledger_ids),
    )
    async with contextlib.AsyncExitStack() as stack:
        ledgers = {}
        for row in rows:
            ledgers[row["ledger_id"]] = ledger = await Ledger.open(pool, row["name"])
            stack.push_async_callback(ledger.close)
        yield ledgers


async def _first_unknown(ledger: Ledger, after: int, until: int) -> int | None:
    """Return the first position beyond `after` of an event whose type nobody here knows."""
    position: int | None = await ledger.pool.fetchval(
        "select position from event where ledger_id = $1 and position > $2 and position <= $3 "
        "and type <> all($4::text[]) order by position limit 1",
        ledger.ledger_id,
        after,
        until,
        [*event_types(), FRAME_RECORDED],
    )
    return position
