"""Verification: does the log still say what it said when it was signed?

Everything is computed anew from the rows of one snapshot, page by page in bounded memory: leaves
from the columns, payload hashes from the payloads, versions, the tree; and compared with what is
stored beside them, with the tiles, with the signed checkpoints and with those somebody holds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import asyncpg
import orjson

from domain.errors import NotFound
from domain.events import FRAME_RECORDED
from domain.ledger_events import HistoryLost
from eventlog.database import Connection, Pool, statements_sent
from eventlog.transparency.key_succession import trusted_keys
from eventlog.transparency.merkle import HASH_BYTES, TILE_HEIGHT, TileRoot, TileTree
from eventlog.transparency.notes import Note, VerifierKey
from eventlog.transparency.tiles import ENTRY_COLUMNS, ENTRY_NAMES, time_sql
from eventlog.verification.checkpoints import SignedCheckpoints, successions_of
from eventlog.verification.findings import Verification
from eventlog.verification.payloads import BESIDE_COLUMNS, PayloadChecks, add_finding
from eventlog.verification.streams import STATEMENT_TIMEOUT_S, StreamVersions, check_side_tables

PAGE_EVENTS: Final = 2_000
INLINE_BYTES_MAX: Final = 8_192
"""Larger payloads are fetched one by one, so that a page stays small."""
FRAMES_AT_ONCE: Final = 200
"""Frames that are decoded together before others get their turn."""
BEYOND_FINDINGS_MAX: Final = 20
GAP_MAX: Final = 1_000_000

_POSITION: Final = ENTRY_NAMES.index("position")
_RECORDED_AT, _STREAM = ENTRY_NAMES.index("recorded_at"), ENTRY_NAMES.index("stream")
_TYPE: Final = ENTRY_NAMES.index("type")
_ENTRY_WIDTH: Final = len(ENTRY_NAMES)
_MISSING_LEAF: Final = bytes(HASH_BYTES)

_PAGE_SQL: Final = f"""
    select {ENTRY_COLUMNS}, {BESIDE_COLUMNS}, octet_length(payload) as payload_bytes,
        case when octet_length(payload) <= {INLINE_BYTES_MAX} then payload end as payload
    from event where ledger_id = $1 and position > $3 and position <= $4
    order by position limit {PAGE_EVENTS}
"""


async def verify_ledger(
    pool: Pool,
    ledger: str,
    *,
    trusted: Sequence[VerifierKey] = (),
    held: Sequence[Note] = (),
    archive: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Return what is wrong with `ledger`, judged by its own rows and by what was signed.

    Parameters
    ----------
    trusted : keys whose signatures count, and through recorded rotations those that follow;
        without any, signatures are not checked
    held : checkpoints that somebody kept outside the database
    archive : whether archived payloads are read and compared too
    progress : called with (events done, events in all)

    Raises
    ------
    NotFound
        ``ledger.unknown``
    """
    async with (
        pool.acquire() as connection,
        pool.acquire() as other,
        connection.transaction(isolation="repeatable_read", readonly=True),
        other.transaction(isolation="repeatable_read", readonly=True),
    ):
        snapshot = await connection.fetchval("select pg_export_snapshot()")
        await other.execute(f"set transaction snapshot '{snapshot}'")
        run = await _Run.begin(connection, ledger, trusted, held, progress, archive=archive)
        beside = asyncio.create_task(check_side_tables(other, run.ledger_id, run.head, run.report))
        try:
            await run.check_events()
            await run.check_end()
            await run.payloads.check_archive(pool)
            await beside
        finally:
            beside.cancel()
    return run.report


class _Run:
    """One verification, on one snapshot."""

    def __init__(
        self,
        connection: Connection,
        head: asyncpg.Record,
        payloads: PayloadChecks,
        checkpoints: SignedCheckpoints,
        report: Verification,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.report = report
        self.payloads = payloads
        self._connection = connection
        self._head = head
        self._ledger_id: int = head["ledger_id"]
        self._progress = progress
        self._tree: TileTree | None = TileTree()
        self._position = 0
        self._recorded_at = ""
        self._versions = StreamVersions(connection, self._ledger_id)
        self._checkpoints = checkpoints

    @property
    def ledger_id(self) -> int:
        """The ledger that is verified."""
        return self._ledger_id

    @property
    def head(self) -> int:
        """Its last position."""
        head: int = self._head["position"]
        return head

    @classmethod
    async def begin(
        cls,
        connection: Connection,
        ledger: str,
        trusted: Sequence[VerifierKey],
        held: Sequence[Note],
        progress: Callable[[int, int], None] | None,
        *,
        archive: bool,
    ) -> _Run:
        head = await connection.fetchrow(
            f"select ledger_id, name, position, {time_sql('recorded_at')} as recorded_at, "
            "frontier, root from ledger where name = $1",
            ledger,
        )
        if head is None:
            raise NotFound("ledger.unknown", f"there is no ledger {ledger!r}", value=ledger)
        ledger_id, report = head["ledger_id"], Verification(head["name"])
        successions = await successions_of(connection, ledger_id)
        origins = [
            origin
            for event in successions
            if isinstance(event, HistoryLost)
            for origin in (event.previous_origin, event.origin)
        ]
        keys = trusted_keys(trusted, successions)
        checkpoints = SignedCheckpoints(connection, ledger_id, report, keys, origins, held)
        payloads = await PayloadChecks.begin(connection, ledger_id, report, archive=archive)
        return cls(connection, head, payloads, checkpoints, report, progress)

    # --- events ---------------------------------------------------------------------------

    async def check_events(self) -> None:
        head: int = self._head["position"]
        await self._checkpoints.next_size(-1)
        self._checkpoints.compare(TileTree())
        page = asyncio.create_task(self._fetch(0))
        while rows := await page:
            # The next page is on its way while this one is hashed.
            page = asyncio.create_task(self._fetch(rows[-1][_POSITION]))
            await statements_sent()
            leaves = self._check_page(rows)
            await page
            await self._check_other_payloads(rows)
            for found in await self._versions.check(rows):
                self.report.add(**found)
            await self._grow(leaves)
            if self._progress is not None:
                self._progress(self._position, head)
        if self._position < head:
            await self._grow(self._missing(self._position + 1, head))
        await self._check_beyond(head)

    async def _fetch(self, after: int) -> list[asyncpg.Record]:
        return await self._connection.fetch(
            _PAGE_SQL,
            self._ledger_id,
            self.report.ledger,
            after,
            self._head["position"],
            timeout=STATEMENT_TIMEOUT_S,
        )

    def _check_page(self, rows: Sequence[asyncpg.Record]) -> list[bytes]:
        """Return the leaves of `rows`, computed from their columns, gaps filled."""
        sha256, dumps = hashlib.sha256, orjson.dumps
        leaves: list[bytes] = []
        for row in rows:
            position = row[_POSITION]
            if position != self._position + 1:
                leaves += self._missing(self._position + 1, position - 1)
            self._position = position
            entry = dumps(dict(zip(ENTRY_NAMES, row, strict=False)))
            leaf = sha256(b"\x00" + entry).digest()
            leaves.append(leaf)
            if leaf != row[_ENTRY_WIDTH]:
                self._add(
                    "event.leaf_mismatch",
                    row,
                    "its columns do not hash to its leaf: one of them was changed, or the leaf",
                    row["leaf_hash"].hex(),
                    leaf.hex(),
                )
            if row[_RECORDED_AT] < self._recorded_at:
                self._add(
                    "event.time_goes_back",
                    row,
                    "it was recorded before the event in front of it",
                    self._recorded_at,
                    row[_RECORDED_AT],
                )
            self._recorded_at = row[_RECORDED_AT]
            if row["payload_tier"] and row["payload_bytes"] is not None:
                self._add(
                    "event.payload_tier", row, "its payload is here, but is said to be elsewhere"
                )
            elif row["payload"] is not None and row[_TYPE] != FRAME_RECORDED:
                self.payloads.check_fact(row, row["payload"])
        return leaves

    async def _check_other_payloads(self, rows: Sequence[asyncpg.Record]) -> None:
        """Compare frames, payloads that are too large for a page, and those that are not there."""
        frames = [
            row
            for row in rows
            if row["payload"] is not None
            and row[_TYPE] == FRAME_RECORDED
            and row["payload_tier"] == 0
        ]
        for start in range(0, len(frames), FRAMES_AT_ONCE):
            some = frames[start : start + FRAMES_AT_ONCE]
            self.payloads.check_frames(some, [row["payload"] for row in some])
            await asyncio.sleep(0)
        await self.payloads.check_absent([row for row in rows if row["payload_bytes"] is None])
        for row in rows:
            if (row["payload_bytes"] or 0) > INLINE_BYTES_MAX and row["payload_tier"] == 0:
                payload = await self._connection.fetchval(
                    "select payload from event where ledger_id = $1 and position = $2",
                    self._ledger_id,
                    row[_POSITION],
                )
                if row[_TYPE] == FRAME_RECORDED:
                    self.payloads.check_frames([row], [payload])
                else:
                    self.payloads.check_fact(row, payload)

    def _add(
        self,
        code: str,
        row: asyncpg.Record,
        message: str,
        expected: Any = None,
        actual: Any = None,
    ) -> None:
        add_finding(self.report, code, row, message, expected, actual)

    def _missing(self, first: int, last: int) -> list[bytes]:
        """Note that positions are missing; return leaves in their place."""
        if last < first:
            return []
        self.report.add(
            "log.position_missing",
            f"position {first} is missing"
            if first == last
            else f"positions {first} to {last} are missing",
            position=first,
            expected=last - first + 1,
            actual=0,
        )
        if last - first >= GAP_MAX:
            self._tree = None
            return []
        return [_MISSING_LEAF] * (last - first + 1)

    async def _check_beyond(self, head: int) -> None:
        rows = await self._connection.fetch(
            "select position, stream, type from event where ledger_id = $1 "
            "and (position > $2 or position < 1) order by position limit $3",
            self._ledger_id,
            head,
            BEYOND_FINDINGS_MAX,
        )
        for row in rows:
            self.report.add(
                "log.beyond_head",
                f"event {row['position']} ({row['type']}, {row['stream']}) lies outside the log, "
                f"whose head is at {head}",
                position=row["position"],
                stream=row["stream"],
                expected=head,
                actual=row["position"],
            )

    # --- the tree -------------------------------------------------------------------------

    async def _grow(self, leaves: list[bytes]) -> None:
        """Put `leaves` on the tree, stopping where a checkpoint was signed."""
        start, tree = 0, self._tree
        if tree is None:
            return
        filled: list[TileRoot] = []
        while start < len(leaves):
            size = await self._checkpoints.next_size(tree.size)
            end = len(leaves) if size is None else min(len(leaves), start + size - tree.size)
            filled += tree.append(leaves[start:end])
            start = end
            self._checkpoints.compare(tree)
        await self._compare_tiles(filled)

    async def _compare_tiles(self, filled: Sequence[TileRoot]) -> None:
        if not filled:
            return
        rows = await self._connection.fetch(
            """
            select t.level, t.number, t.root from unnest($2::smallint[], $3::bigint[]) as
                w(level, number) join tile t on t.ledger_id = $1 and t.level = w.level
                and t.number = w.number
            """,
            self._ledger_id,
            [tile.level for tile in filled],
            [tile.number for tile in filled],
        )
        stored = {(row["level"], row["number"]): row["root"] for row in rows}
        for tile in filled:
            root = stored.get((tile.level, tile.number))
            if root is None:
                continue  # not built yet; a hole among those that are is found at the end
            self.report.tiles += 1
            if root != tile.root:
                span = 1 << TILE_HEIGHT * (tile.level + 1)
                first, last = tile.number * span + 1, (tile.number + 1) * span
                self.report.add(
                    "tile.mismatch",
                    f"tile {tile.number} of level {tile.level}: events {first} to {last} have "
                    f"root {tile.root.hex()}, the stored one is {root.hex()}",
                    position=first,
                    expected=root.hex(),
                    actual=tile.root.hex(),
                )

    async def check_end(self) -> None:
        """Compare the whole tree with the ledger's head and the last checkpoints."""
        report, head, tree = self.report, self._head, self._tree
        await self._check_tile_rows(head["position"])
        if tree is None:
            report.add("log.tree_not_computed", "too much of the log is missing for its tree")
            return
        report.size, report.root = tree.size, tree.root()
        await self._checkpoints.finish(tree.size)
        if self._recorded_at and self._recorded_at != head["recorded_at"]:
            report.add(
                "ledger.time_mismatch",
                f"the last event was recorded at {self._recorded_at}, the ledger's head says "
                f"{head['recorded_at']}",
                position=tree.size,
                expected=self._recorded_at,
                actual=head["recorded_at"],
            )
        for name, actual in (("root", report.root), ("frontier", b"".join(tree.frontier()))):
            if head[name] != actual:
                report.add(
                    f"ledger.{name}_mismatch",
                    f"the {tree.size} events have {name} {actual.hex()}, the ledger's head says "
                    f"{head[name].hex()}",
                    position=tree.size,
                    expected=head[name].hex(),
                    actual=actual.hex(),
                )

    async def _check_tile_rows(self, head: int) -> None:
        rows = await self._connection.fetch(
            "select level, count(*) as count, max(number) + 1 as last from tile "
            "where ledger_id = $1 group by level order by level",
            self._ledger_id,
        )
        for row in rows:
            full = head >> TILE_HEIGHT * (row["level"] + 1)
            if row["last"] > full:
                self.report.add(
                    "tile.beyond_log",
                    f"{row['last']} tiles of level {row['level']} were built, the log of {head} "
                    f"events has {full}: its tail was cut off",
                    expected=row["last"],
                    actual=full,
                )
            if row["count"] != row["last"]:
                self.report.add(
                    "tile.missing",
                    f"of {row['last']} tiles of level {row['level']} only {row['count']} are left",
                    expected=row["last"],
                    actual=row["count"],
                )
