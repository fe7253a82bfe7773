"""Verification: does the log still say what it said when it was signed?

Everything is computed anew from the rows of one snapshot, page by page in bounded memory: leaves
from the columns, payload hashes from the payloads, versions, the tree; and compared with what is
stored beside them, with the tiles, with the signed checkpoints and with those somebody holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import numpy as np
import orjson

from domain.asset import telemetry_stream
from domain.errors import HeddleError, NotFound
from domain.events import FRAME_RECORDED, decode_fact
from domain.frames import Frame, channel_statistics, decode, unpack_statistics
from domain.ledger_events import SigningKeyRotated
from eventlog.checkpoints import Checkpoint, trusted_keys
from eventlog.database import Connection, Pool
from eventlog.merkle import HASH_BYTES, TILE_HEIGHT, TileRoot, TileTree
from eventlog.notes import Note, SignatureKind, VerifierKey
from eventlog.tiles import ENTRY_COLUMNS, ENTRY_NAMES, time_sql

PAGE_EVENTS: Final = 2_000
INLINE_BYTES_MAX: Final = 8_192
"""Larger payloads are fetched one by one, so that a page stays small."""
FINDINGS_A_CODE_MAX: Final = 50
"""One flood of findings must not hide what else there is."""
SIDE_FINDINGS_MAX: Final = 20
GAP_MAX: Final = 1_000_000
STREAMS_MAX: Final = 200_000
"""Streams whose last version is remembered; others are looked up again."""
CHECKPOINTS_A_PAGE: Final = 500
STATEMENT_TIMEOUT_S: Final = 3_600.0
SUM_TOLERANCE: Final = 1e-9
"""Of the magnitude of a sum."""

_POSITION, _PAYLOAD_SHA256 = ENTRY_NAMES.index("position"), ENTRY_NAMES.index("payload_sha256")
_RECORDED_AT, _STREAM = ENTRY_NAMES.index("recorded_at"), ENTRY_NAMES.index("stream")
_TYPE, _VERSION = ENTRY_NAMES.index("type"), ENTRY_NAMES.index("version")
_ENTRY_WIDTH: Final = len(ENTRY_NAMES)
_MISSING_LEAF: Final = bytes(HASH_BYTES)

_PAGE_SQL: Final = f"""
    select {ENTRY_COLUMNS}, leaf_hash, payload_tier, octet_length(payload) as payload_bytes,
        case when octet_length(payload) <= {INLINE_BYTES_MAX} then payload end as payload,
        source, sequence, window_start_ns, window_end_ns, reading_count, statistics
    from event where ledger_id = $1 and position > $3 and position <= $4
    order by position limit {PAGE_EVENTS}
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was recorded: what, where, and how it should be."""

    code: str
    message: str
    position: int | None = None
    stream: str | None = None
    expected: Any = None
    actual: Any = None


@dataclass
class Verification:
    """What a verification looked at and what it found.

    Parameters
    ----------
    size, root : of the tree as computed from the rows
    payloads_absent : archived or erased; their events are checked all the same
    checkpoints : how many signed checkpoints were compared; `signatures` of them verified
    findings_left_out : how many more there are of codes found `FINDINGS_A_CODE_MAX` times
    """

    ledger: str
    size: int = 0
    root: bytes = b""
    payloads: int = 0
    payloads_absent: int = 0
    tiles: int = 0
    checkpoints: int = 0
    signatures: int = 0
    findings: list[Finding] = field(default_factory=list)
    findings_left_out: int = 0
    _counts: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, code: str, message: str, **where: Any) -> None:
        """Note a finding."""
        count = self._counts[code] = self._counts.get(code, 0) + 1
        if count <= FINDINGS_A_CODE_MAX:
            self.findings.append(Finding(code, message, **where))
        else:
            self.findings_left_out += 1


async def verify_ledger(
    pool: Pool,
    ledger: str,
    *,
    trusted: Sequence[VerifierKey] = (),
    held: Sequence[Note] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Return what is wrong with `ledger`, judged by its own rows and by what was signed.

    Parameters
    ----------
    trusted : keys whose signatures count, and through recorded rotations those that follow;
        without any, signatures are not checked
    held : checkpoints that somebody kept outside the database
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
        run = await _Run.begin(connection, ledger, trusted, held, progress)
        beside = asyncio.create_task(run.check_side_tables(other))
        try:
            await run.check_events()
            await run.check_end()
            await beside
        finally:
            beside.cancel()
    return run.report


def payload_sha256(event_type: str, payload: bytes) -> bytes:
    """Return the hash that an envelope gives `payload`: a frame's is over its canonical form.

    Raises
    ------
    MalformedFrame
        a frame's bytes that are no frame
    """
    if event_type == FRAME_RECORDED:
        return decode(payload).canonical_sha256
    return hashlib.sha256(payload).digest()


class _Run:
    """One verification, on one snapshot."""

    def __init__(
        self,
        connection: Connection,
        head: asyncpg.Record,
        keys: Sequence[VerifierKey],
        held: Sequence[Note],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.report = Verification(head["name"])
        self._connection = connection
        self._head = head
        self._ledger_id: int = head["ledger_id"]
        self._progress = progress
        self._tree: TileTree | None = TileTree()
        self._position = 0
        self._recorded_at = ""
        self._versions = _Versions(connection, self._ledger_id)
        self._checkpoints = _Checkpoints(connection, self._ledger_id, self.report, keys, held)

    @classmethod
    async def begin(
        cls,
        connection: Connection,
        ledger: str,
        trusted: Sequence[VerifierKey],
        held: Sequence[Note],
        progress: Callable[[int, int], None] | None,
    ) -> _Run:
        head = await connection.fetchrow(
            f"select ledger_id, name, position, {time_sql('recorded_at')} as recorded_at, "
            "frontier, root from ledger where name = $1",
            ledger,
        )
        if head is None:
            raise NotFound("ledger.unknown", f"there is no ledger {ledger!r}", value=ledger)
        rotations = await _rotations(connection, head["ledger_id"])
        return cls(connection, head, trusted_keys(trusted, rotations), held, progress)

    # --- events ---------------------------------------------------------------------------

    async def check_events(self) -> None:
        head: int = self._head["position"]
        await self._checkpoints.next_size(-1)
        self._checkpoints.compare(TileTree())
        page = asyncio.create_task(self._fetch(0))
        while rows := await page:
            # The next page is on its way while this one is hashed.
            page = asyncio.create_task(self._fetch(rows[-1][_POSITION]))
            await asyncio.sleep(0)
            leaves = self._check_page(rows)
            await page
            await self._check_large_payloads(rows)
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
            payload = row["payload"]
            if payload is not None and row["payload_tier"] == 0:
                self._check_payload(row, payload)
            elif row["payload_bytes"] is None:
                self._check_absence(row)
            elif row["payload_tier"]:
                self._add(
                    "event.payload_tier", row, "its payload is here, but is said to be elsewhere"
                )
        return leaves

    def _check_payload(self, row: asyncpg.Record, payload: bytes) -> None:
        self.report.payloads += 1
        expected = row[_PAYLOAD_SHA256]
        if row[_TYPE] == FRAME_RECORDED:
            self._check_frame(row, payload, expected)
            return
        actual = hashlib.sha256(payload).hexdigest()
        if actual != expected:
            self._add(
                "event.payload_mismatch", row, "its payload is not the recorded one",
                expected, actual,
            )  # fmt: skip
        if any(row[name] is not None for name in _WINDOW):
            self._add("event.window_mismatch", row, "it is no frame, but has a frame's window")

    def _check_frame(self, row: asyncpg.Record, payload: bytes, expected: str) -> None:
        try:
            frame = decode(payload)
        except HeddleError as error:
            self._add("event.payload_unreadable", row, f"its frame cannot be read: {error}")
            return
        actual = frame.canonical_sha256.hex()
        if actual != expected:
            self._add(
                "event.payload_mismatch", row, "its frame is not the recorded one",
                expected, actual,
            )  # fmt: skip
        for name, should in _window_of(frame).items():
            if row[name] != should:
                self._add(
                    "event.window_mismatch", row, f"{name} does not follow from its frame",
                    should, row[name],
                )  # fmt: skip
        if row[_STREAM] != telemetry_stream(frame.header.asset):
            self._add(
                "event.window_mismatch", row, "its frame belongs to another stream",
                telemetry_stream(frame.header.asset), row[_STREAM],
            )  # fmt: skip
        if not _same_statistics(frame, row["statistics"]):
            self._add(
                "event.statistics_mismatch", row, "its statistics do not follow from its frame"
            )

    def _check_absence(self, row: asyncpg.Record) -> None:
        if row["payload_tier"] == 0:
            self._add("event.payload_missing", row, "its payload is gone and nothing says why")
        else:
            self.report.payloads_absent += 1

    async def _check_large_payloads(self, rows: Sequence[asyncpg.Record]) -> None:
        for row in rows:
            if (row["payload_bytes"] or 0) > INLINE_BYTES_MAX and row["payload_tier"] == 0:
                payload = await self._connection.fetchval(
                    "select payload from event where ledger_id = $1 and position = $2",
                    self._ledger_id,
                    row[_POSITION],
                )
                self._check_payload(row, payload)

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

    def _add(
        self,
        code: str,
        row: asyncpg.Record,
        message: str,
        expected: Any = None,
        actual: Any = None,
    ) -> None:
        self.report.add(
            code,
            f"event {row[_POSITION]} ({row[_TYPE]}, {row[_STREAM]} v{row[_VERSION]}): {message}"
            + ("" if expected is None else f"; expected {expected}, found {actual}"),
            position=row[_POSITION],
            stream=row[_STREAM],
            expected=expected,
            actual=actual,
        )

    async def _check_beyond(self, head: int) -> None:
        rows = await self._connection.fetch(
            "select position, stream, type from event where ledger_id = $1 "
            "and (position > $2 or position < 1) order by position limit $3",
            self._ledger_id,
            head,
            SIDE_FINDINGS_MAX,
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

    # --- the tables beside the log --------------------------------------------------------

    async def check_side_tables(self, connection: Connection) -> None:
        """Compare the tables under which events are found again with the events."""
        for code, message, sql in _SIDE_TABLES:
            rows = await connection.fetch(
                f"{sql} limit {SIDE_FINDINGS_MAX}",
                self._ledger_id,
                self._head["position"],
                timeout=STATEMENT_TIMEOUT_S,
            )
            for row in rows:
                self.report.add(
                    code,
                    message.format(**row),
                    position=row["position"],
                    stream=row.get("stream"),
                    expected=row["expected"],
                    actual=row["actual"],
                )


_WINDOW: Final = ("window_start_ns", "window_end_ns", "reading_count", "statistics")

_SIDE_TABLES: Final = (
    (
        "stream.head_mismatch",
        "stream {key} is at version {expected} by its events and at {actual} by stream_head",
        """
        select coalesce(e.stream, h.stream) as key, coalesce(e.stream, h.stream) as stream,
            e.position, e.version as expected, h.version as actual
        from (
            select stream, max(version) as version, max(position) as position from event
            where ledger_id = $1 and position between 1 and $2 group by stream
        ) e full join (select * from stream_head where ledger_id = $1) h using (stream)
        where e.version is distinct from h.version
        """,
    ),
    (
        "event.identity_mismatch",
        "event id {key} stands at position {expected} and is looked up at {actual}",
        """
        select event_id as key, coalesce(e.position, i.position) as position,
            e.position as expected, i.position as actual
        from (
            select event_id, position from event where ledger_id = $1 and position between 1 and $2
        ) e full join (select * from event_identity where ledger_id = $1) i using (event_id)
        where e.position is distinct from i.position
        """,
    ),
    (
        "event.sequence_mismatch",
        "{key} stands at position {expected} and is looked up at {actual}",
        """
        select source || ' sequence ' || sequence as key,
            coalesce(e.position, s.position) as position,
            e.position as expected, s.position as actual
        from (
            select source, sequence, position from event
            where ledger_id = $1 and position between 1 and $2 and source is not null
        ) e full join (select * from source_sequence where ledger_id = $1) s
            using (source, sequence)
        where e.position is distinct from s.position
        """,
    ),
    (
        "idempotency_key.mismatch",
        "idempotency key {key} points at positions {actual}, outside the log",
        """
        select key, first_position as position, 'within 1 to ' || $2::bigint as expected,
            first_position || ' to ' || last_position as actual
        from idempotency_key where ledger_id = $1
            and not (1 <= first_position and first_position <= last_position
                and last_position <= $2)
        """,
    ),
)


def _window_of(frame: Frame) -> dict[str, Any]:
    return {
        "source": f"agent:{frame.header.agent}",
        "sequence": frame.sequence,
        "window_start_ns": frame.window_start_ns,
        "window_end_ns": frame.window_end_ns,
        "reading_count": frame.reading_count,
    }


def _same_statistics(frame: Frame, packed: bytes | None) -> bool:
    if packed is None:
        return False
    try:
        names, stored = unpack_statistics(packed)
    except (HeddleError, ValueError, struct.error):
        return False
    computed = channel_statistics(frame)
    if names != tuple(c.name for c in frame.header.channels) or len(stored) != len(computed):
        return False
    # In which order a processor adds is its own affair; everything else is exact.
    squares = computed["sum_of_squares"]
    magnitudes = {"sum": np.sqrt(computed["good_count"] * squares), "sum_of_squares": squares}
    return all(
        bool(np.all(np.abs(stored[name] - computed[name]) <= SUM_TOLERANCE * magnitudes[name]))
        if name in magnitudes
        else np.array_equal(stored[name], computed[name])
        for name in computed.dtype.names or ()
    )


async def _rotations(connection: Connection, ledger_id: int) -> list[SigningKeyRotated]:
    rows = await connection.fetch(
        "select schema_version, payload from event where ledger_id = $1 "
        "and stream = (select 'ledger:' || name from ledger where ledger_id = $1) "
        "and type = 'ledger.signing_key_rotated' and payload is not null order by position",
        ledger_id,
    )
    rotations = []
    for row in rows:
        try:
            event = decode_fact("ledger.signing_key_rotated", row["schema_version"], row["payload"])
        except (HeddleError, ValueError, KeyError, TypeError):
            continue  # its payload's hash is found wrong where the events are checked
        rotations.append(event)
    return rotations


class _Versions:
    """Whether each stream counts 1, 2, 3 …, remembering a bounded number of streams."""

    def __init__(self, connection: Connection, ledger_id: int) -> None:
        self._connection = connection
        self._ledger_id = ledger_id
        self._last: OrderedDict[str, int] = OrderedDict()
        self._forgot = False

    async def check(self, rows: Sequence[asyncpg.Record]) -> list[dict[str, Any]]:
        """Return what is wrong with the versions of `rows`, as arguments of `Verification.add`."""
        found = []
        if self._forgot:
            await self._recall(rows)
        for row in rows:
            stream, version = row[_STREAM], row[_VERSION]
            expected = self._last.get(stream, 0) + 1
            if version != expected:
                found.append(
                    {
                        "code": "stream.version_mismatch",
                        "message": f"event {row[_POSITION]} ({row[_TYPE]}) is version {version} "
                        f"of stream {stream}, where {expected} is due",
                        "position": row[_POSITION],
                        "stream": stream,
                        "expected": expected,
                        "actual": version,
                    }
                )
            self._last[stream] = version
            self._last.move_to_end(stream)
        while len(self._last) > STREAMS_MAX:
            self._last.popitem(last=False)
            self._forgot = True
        return found

    async def _recall(self, rows: Sequence[asyncpg.Record]) -> None:
        """Remember again, of the streams forgotten, the version in front of this page's first.

        The one before must stand at an earlier position, and the version itself nowhere else;
        so each is found by the index of streams, however long they are.
        """
        first: dict[str, int] = {}
        for row in rows:
            if row[_STREAM] not in self._last:
                first.setdefault(row[_STREAM], row[_VERSION])
        if not first:
            return
        known = await self._connection.fetch(
            """
            select w.stream, w.version - 1 as version
            from unnest($2::text[], $3::bigint[]) as w(stream, version)
            where (w.version = 1 or exists (
                    select from event e where e.ledger_id = $1 and e.stream = w.stream
                        and e.version = w.version - 1 and e.position < $4))
                and not exists (
                    select from event e where e.ledger_id = $1 and e.stream = w.stream
                        and e.version = w.version and e.position < $4)
            """,
            self._ledger_id,
            list(first),
            list(first.values()),
            rows[0][_POSITION],
            timeout=STATEMENT_TIMEOUT_S,
        )
        self._last.update({row["stream"]: row["version"] for row in known})


@dataclass(frozen=True, slots=True)
class _Signed:
    size: int
    root: bytes
    whose: str


class _Checkpoints:
    """Signed checkpoints in order of size, from the database and from whoever holds some."""

    def __init__(
        self,
        connection: Connection,
        ledger_id: int,
        report: Verification,
        keys: Sequence[VerifierKey],
        held: Iterable[Note],
    ) -> None:
        self._connection = connection
        self._ledger_id = ledger_id
        self._report = report
        self._keys = [key for key in keys if key.kind is SignatureKind.ED25519]
        self._last_size = -1
        self._exhausted = False
        self._origin: str | None = None
        self._good_size = 0
        self._failed = False
        given = [self._opened(note, "held outside the database") for note in held]
        self._held = deque(sorted((s for s in given if s is not None), key=lambda s: s.size))
        self._stored: deque[_Signed] = deque()

    async def next_size(self, beyond: int) -> int | None:
        """Return the smallest signed size that is larger than `beyond`."""
        while not self._stored and not self._exhausted:
            rows = await self._connection.fetch(
                "select size, note from checkpoint where ledger_id = $1 and size > $2 "
                "order by size limit $3",
                self._ledger_id,
                self._last_size,
                CHECKPOINTS_A_PAGE,
            )
            self._exhausted = len(rows) < CHECKPOINTS_A_PAGE
            for row in rows:
                self._last_size = row["size"]
                self._keep(row["size"], row["note"])
        sizes = [queue[0].size for queue in (self._held, self._stored) if queue]
        return min((size for size in sizes if size > beyond), default=None)

    def _keep(self, size: int, written: str) -> None:
        try:
            note = Note.parse(written)
        except HeddleError as error:
            self._wrong(size, f"cannot be read: {error}")
            return
        signed = self._opened(note, "signed")
        if signed is not None and signed.size != size:
            self._wrong(size, f"says {signed.size}")
        elif signed is not None:
            self._stored.append(signed)

    def _wrong(self, size: int, what: str) -> None:
        self._report.add(
            "checkpoint.altered",
            f"the stored checkpoint of size {size} {what}",
            position=size,
            expected=size,
        )

    def _opened(self, note: Note, whose: str) -> _Signed | None:
        try:
            checkpoint = Checkpoint.parse(note.text)
            if self._keys:
                note.verify(self._keys)
                self._report.signatures += 1
        except HeddleError as error:
            self._report.add(
                "checkpoint.signature",
                f"a checkpoint {whose} is not good: {error.message}; it says {note.text[:200]!r}",
                expected=[key.vkey for key in self._keys] or None,
            )
            return None
        self._origin = self._origin or checkpoint.origin
        if checkpoint.origin != self._origin:
            self._report.add(
                "checkpoint.other_origin",
                f"a checkpoint {whose} of size {checkpoint.size} is of {checkpoint.origin!r}, "
                f"others are of {self._origin!r}",
                position=checkpoint.size,
                expected=self._origin,
                actual=checkpoint.origin,
            )
        return _Signed(checkpoint.size, checkpoint.root, whose)

    def compare(self, tree: TileTree) -> None:
        """Compare every checkpoint that has the size of `tree` now with it."""
        root: bytes | None = None
        for queue in (self._held, self._stored):
            while queue and queue[0].size <= tree.size:
                signed = queue.popleft()
                if signed.size != tree.size:
                    continue  # cannot be: the tree stops at each size
                root = tree.root() if root is None else root
                self._compare(signed, root)

    def _compare(self, signed: _Signed, root: bytes) -> None:
        self._report.checkpoints += 1
        if root == signed.root:
            self._good_size = max(self._good_size, signed.size)
        elif not self._failed:
            # What follows cannot fit either; the first one says where.
            self._failed = True
            self._report.add(
                "checkpoint.mismatch",
                f"the first {signed.size} events have root {root.hex()}, but the checkpoint "
                f"{signed.whose} for them says {signed.root.hex()}: an event from "
                f"{self._good_size + 1} to {signed.size} is not what it was",
                position=self._good_size + 1,
                expected=signed.root.hex(),
                actual=root.hex(),
            )

    async def finish(self, size: int) -> None:
        """Note the checkpoints of more events than there are."""
        await self.next_size(size)
        while self._stored and not self._exhausted:
            self._stored.clear()
            await self.next_size(size)
        for signed in [queue[-1] for queue in (self._held, self._stored) if queue]:
            self._report.add(
                "checkpoint.beyond_log",
                f"a checkpoint {signed.whose} is of {signed.size} events, the log has {size}: "
                f"events {size + 1} to {signed.size} were cut off",
                position=size + 1,
                expected=signed.size,
                actual=size,
            )
