"""What a ledger holds, in figures whose cost does not grow with the log.

Exact are the figures that the log keeps anyway: its head, its streams and their versions (the
events of a category are the sum of them), its checkpoints. The rest is estimated from events at
positions drawn evenly over the log, which has no gaps; a log of at most `SAMPLED_EVENTS` is
counted whole. A kind of event rarer than one in some thousands may so go unseen.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from domain.errors import NotFound
from eventlog.database import Connection

SAMPLED_EVENTS: Final = 10_000
"""Each is looked up by its position: some tenths of a second from memory, seconds from a disk."""

KEYS_COUNTED_MAX: Final = 100_000
EXACT_TIMEOUT_S: Final = 3_600.0

_KIND: Final = """
    select type, payload_tier as tier, count(*) as events,
        count(*) filter (where window_end_ns is not null) as frames,
        coalesce(sum(reading_count), 0)::bigint as readings,
        coalesce(sum(octet_length(payload)), 0)::bigint as payload_bytes,
        coalesce(sum(octet_length(statistics)), 0)::bigint as statistics_bytes,
        coalesce(sum(reading_count) filter (where payload is not null), 0)::bigint
            as readings_in_rows,
        coalesce(sum(octet_length(payload)) filter (where window_end_ns is not null), 0)::bigint
            as frame_bytes
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """Events of one type whose payload is in one place, counted in a sample or in the whole log.

    `tier` is a `PayloadTier`; `readings_in_rows` and `frame_bytes` are of frames whose payload is
    in its row, so that their ratio is what a reading costs.
    """

    type: str
    tier: int
    events: int
    frames: int
    readings: int
    payload_bytes: int
    statistics_bytes: int
    readings_in_rows: int
    frame_bytes: int


@dataclass(frozen=True, slots=True)
class Category:
    """Streams whose names begin alike, and the events on them; exact."""

    category: str
    streams: int
    events: int


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The last checkpoint of the database, and how many it holds."""

    size: int
    signed_at: datetime
    checkpoints: int


@dataclass(frozen=True, slots=True)
class ArchivedFiles:
    """Files of the archive, their bytes, and the frames in them."""

    files: int
    bytes: int
    frames: int


@dataclass(frozen=True, slots=True)
class LedgerStatistics:
    """What one ledger holds.

    Parameters
    ----------
    sampled : how many events `kinds` were counted from
    idempotency_keys : at most `KEYS_COUNTED_MAX`; what is beyond is not counted
    """

    ledger: str
    ledger_id: int
    events: int
    recorded_at: datetime | None
    categories: tuple[Category, ...]
    kinds: tuple[Kind, ...]
    sampled: int
    signed: SignedHead | None
    archived: ArchivedFiles
    idempotency_keys: int

    @property
    def is_exact(self) -> bool:
        """Whether `kinds` were counted in the whole log."""
        return self.sampled == self.events

    def estimated(self, count: int) -> int:
        """Return how many of the whole log `count` of the sample stand for."""
        return count if self.is_exact else round(count * self.events / self.sampled)

    def standard_error(self, count: int) -> float:
        """Return the standard error of `estimated`, for a count of events."""
        if self.is_exact:
            return 0.0
        share = count / self.sampled
        error: float = self.events * (share * (1 - share) / self.sampled) ** 0.5
        return error


@dataclass(frozen=True, slots=True)
class TableSize:
    """Bytes on disk of a table of all ledgers, its partitions included.

    `overflow_bytes` are of values too long for their row (TOAST); `rows` is PostgreSQL's own
    estimate, None before the table was first looked at.
    """

    table: str
    rows: int | None
    row_bytes: int
    overflow_bytes: int
    index_bytes: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.row_bytes + self.overflow_bytes + self.index_bytes


async def ledger_names(connection: Connection) -> list[str]:
    """Return the names of all ledgers of the database."""
    return [row["name"] for row in await connection.fetch("select name from ledger order by name")]


async def ledger_statistics(
    connection: Connection, ledger: str, *, exact: bool = False
) -> LedgerStatistics:
    """Return what `ledger` holds; `exact` reads every event, however many there are.

    Raises
    ------
    NotFound
        ``ledger.unknown``
    """
    head = await connection.fetchrow(
        "select ledger_id, position, nullif(recorded_at, 'epoch') as recorded_at from ledger "
        "where name = $1",
        ledger,
    )
    if head is None:
        raise NotFound(
            "ledger.unknown",
            f"there is no ledger {ledger!r:.80}",
            hint="known are " + (", ".join(await ledger_names(connection)) or "none yet"),
            value=ledger[:80],
        )
    ledger_id, events = head["ledger_id"], head["position"]
    whole = exact or events <= SAMPLED_EVENTS
    return LedgerStatistics(
        ledger=ledger,
        ledger_id=ledger_id,
        events=events,
        recorded_at=head["recorded_at"],
        categories=await _categories(connection, ledger_id),
        kinds=await _kinds(connection, ledger_id, events, whole=whole),
        sampled=events if whole else SAMPLED_EVENTS,
        signed=await _signed_head(connection, ledger_id),
        archived=await _archived(connection, ledger_id),
        idempotency_keys=await connection.fetchval(
            "select count(*) from "
            "(select from idempotency_key where ledger_id = $1 limit $2) counted",
            ledger_id,
            KEYS_COUNTED_MAX,
        ),
    )


async def _categories(connection: Connection, ledger_id: int) -> tuple[Category, ...]:
    rows = await connection.fetch(
        """
        select split_part(stream, ':', 1) as category, count(*) as streams,
            sum(version)::bigint as events
        from stream_head where ledger_id = $1 group by 1 order by 3 desc, 1
        """,
        ledger_id,
    )
    return tuple(Category(**row) for row in rows)


async def _kinds(
    connection: Connection, ledger_id: int, events: int, *, whole: bool
) -> tuple[Kind, ...]:
    order = "group by 1, 2 order by events desc, 1, 2"
    if whole:
        rows = await connection.fetch(
            f"{_KIND} from event where ledger_id = $1 and position <= $2 {order}",
            ledger_id,
            events,
            timeout=EXACT_TIMEOUT_S,
        )
    else:
        rows = await connection.fetch(
            f"""
            {_KIND} from unnest($2::bigint[]) as drawn(at) cross join lateral (
                select * from event where ledger_id = $1 and position = drawn.at offset 0
            ) event {order}
            """,
            ledger_id,
            drawn_positions(events, SAMPLED_EVENTS),
        )
    return tuple(Kind(**row) for row in rows)


def drawn_positions(events: int, count: int) -> Sequence[int]:
    """Return `count` of the positions 1 to `events`: one at random of each of `count` even runs.

    The same log gives the same ones.
    """
    draw = random.Random(events)
    edges = [n * events // count for n in range(count + 1)]
    return [draw.randint(low + 1, high) for low, high in itertools.pairwise(edges)]


async def _signed_head(connection: Connection, ledger_id: int) -> SignedHead | None:
    row = await connection.fetchrow(
        """
        select size, signed_at,
            (select count(*) from checkpoint where ledger_id = $1) as checkpoints
        from checkpoint where ledger_id = $1 order by size desc limit 1
        """,
        ledger_id,
    )
    return None if row is None else SignedHead(**row)


async def _archived(connection: Connection, ledger_id: int) -> ArchivedFiles:
    row = await connection.fetchrow(
        """
        select count(*) as files, coalesce(sum(file_bytes), 0)::bigint as bytes,
            coalesce(sum(window_count), 0)::bigint as frames
        from archive_segment where ledger_id = $1 and state = 'live'
        """,
        ledger_id,
    )
    assert row is not None, "an aggregate has one row"
    return ArchivedFiles(**row)


async def table_sizes(connection: Connection) -> tuple[TableSize, ...]:
    """Return what each table of the schema takes on disk, largest first."""
    rows = await connection.fetch(
        """
        select root.relname as table,
            (case when bool_or(c.reltuples >= 0)
                then sum(greatest(c.reltuples, 0)) end)::bigint as rows,
            sum(pg_table_size(c.oid) - coalesce(pg_total_relation_size(t.oid), 0))::bigint
                as row_bytes,
            sum(coalesce(pg_total_relation_size(t.oid), 0))::bigint as overflow_bytes,
            sum(pg_indexes_size(c.oid))::bigint as index_bytes
        from pg_class c
            join pg_class root on root.oid = coalesce(pg_partition_root(c.oid), c.oid)
            left join pg_class t on t.oid = c.reltoastrelid
        where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace
        group by 1 order by sum(pg_total_relation_size(c.oid)) desc, 1
        """
    )
    return tuple(TableSize(**row) for row in rows)
