"""A factory's thread, as rows: parts made in batches of bought and split lots, worked in runs of
their own, inspected, and put together; chains of lots that were ground again; corrections.

Straight into the tables of the thread by COPY, so that millions of parts take minutes. Everything
follows from a part's number: part `i` and what belongs to it alone have the numbers from
``SLOTS * i`` on, so that what is near in time is near on disk, as the projection would number it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from domain.thread import LinkKind, NodeKind, NodeState
from eventlog.database import Connection, Pool
from eventlog.ledger import Ledger
from projections.thread.fold import OPEN
from projections.thread.projection import NUMBER_BITS, ThreadProjection

Ints = npt.NDArray[np.int64]

SLOTS: Final = 8
PART, RUN, INSPECTION, BATCH_RUN, OTHER = 0, 1, 4, 5, 6
RUNS: Final = 3  # of a part's own
BATCH: Final = 20  # parts that one casting run makes
LOT_PARTS, COIL_PARTS, HEAT_PARTS = 100, 10_000, 100_000
CONSUMABLE_PARTS: Final = 500
ASSEMBLY: Final = 196  # 1 + 3 + 12 + 36 + 144 parts, five levels
LEVELS: Final = (144, 36, 12, 3, 1)
CHAIN: Final = 50
ASSETS, DOCUMENTS, INSTRUMENTS = 50, 40, 20
FIXED: Final = 1_000  # numbers below: assets, documents, instruments
POSITIONS: Final = 20  # events a part
CORRECTED_EVERY: Final = 100
LATER: Final = 20_000 * POSITIONS
"""Events after which corrections came, and one part in ten came back."""

CHUNK_PARTS: Final = 19_600
YEAR_US: Final = 86_400_000_000 * 365
BEGAN_US: Final = 20 * YEAR_US
PART_US: Final = 30_000_000


class Factory(NamedTuple):
    """What was loaded."""

    parts: int
    nodes: int
    edges: int
    standings: int
    position: int
    seconds: float
    bytes: int


def part_key(part: int) -> str:
    """Return the key of part number `part`."""
    return f"part:{part:09d}"


def coil_key(part: int) -> str:
    """Return the key of the lot that `COIL_PARTS` parts from `part` on are made of."""
    return f"lot:c{part:09d}"


def heat_key(part: int) -> str:
    """Return the key of the lot that `HEAT_PARTS` parts from `part` on are made of."""
    return f"lot:h{part:09d}"


def chain_key(part: int) -> str:
    """Return the key of the last lot of the chain that began beside `part`."""
    return f"lot:g{part + (CHAIN - 1) * BATCH:09d}"


def top_of(assembly: int) -> int:
    """Return the part that all parts of the assembly number `assembly` went into."""
    return assembly * ASSEMBLY + ASSEMBLY - 1


async def load(pool: Pool, ledger: Ledger, parts: int) -> Factory:
    """Fill the tables with `parts` parts, indexes last, and let the thread stand behind them."""
    began = time.perf_counter()
    parts -= parts % ASSEMBLY
    writer = _Writer(ledger.ledger_id, parts)
    async with pool.acquire() as connection:
        indexes = await _without_indexes(connection)
        writer.fixed()
        await writer.flush(connection)
        for first in range(0, parts, CHUNK_PARTS):
            writer.made(np.arange(first, min(first + CHUNK_PARTS, parts), dtype=np.int64))
            await writer.flush(connection)
        position = writer.last + 1
        for statement in indexes:
            await connection.execute(statement, timeout=1_800)
        await connection.execute(
            "insert into projection_checkpoint (ledger_id, projection, version, position) "
            "values ($1, $2, $3, $4)",
            ledger.ledger_id,
            ThreadProjection.name,
            ThreadProjection.version,
            position,
        )
        for table in ThreadProjection.tables:
            await connection.execute(f"vacuum (analyze, freeze) {table}", timeout=1_800)
        size: int = await connection.fetchval(
            "select sum(pg_total_relation_size(t::regclass))::bigint from unnest($1::text[]) t",
            list(ThreadProjection.tables),
        )
    return Factory(
        parts,
        writer.counts["thread_node"],
        writer.counts["thread_edge"],
        writer.counts["thread_standing"],
        position,
        time.perf_counter() - began,
        size,
    )


async def _without_indexes(connection: Connection) -> list[str]:
    """Drop the indexes of the big tables and return the statements that make them again."""
    rows = await connection.fetch(
        "select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as made, "
        "indrelid::regclass::text as of_table, (select conname from pg_constraint c "
        "where c.conindid = indexrelid) as key, (select pg_get_constraintdef(c.oid) "
        "from pg_constraint c where c.conindid = indexrelid) as definition "
        "from pg_index where indrelid = any(array['thread_node', 'thread_edge', "
        "'thread_standing']::regclass[])"
    )
    again = []
    for row in rows:
        if row["key"] is None:
            await connection.execute(f"drop index {row['name']}")
            again.append(row["made"])
        else:
            await connection.execute(f"alter table {row['of_table']} drop constraint {row['key']}")
            again.append(
                f"alter table {row['of_table']} add constraint {row['key']} {row['definition']}"
            )
    await connection.execute("set maintenance_work_mem = '1GB'")
    return again


# --- rows ---------------------------------------------------------------------------------

_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_KEY_WIDTH: Final = 14
_COLUMNS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "thread_node": (
        ("id", ">i8"),
        ("first_position", ">i8"),
        ("state_from", ">i8"),
        ("state_valid_from", ">i8"),
        ("state_place", ">i8"),
        ("ledger_id", ">i2"),
        ("kind", ">i2"),
        ("state", ">i2"),
        ("key", f"S{_KEY_WIDTH}"),
    ),
    "thread_standing": (
        ("node", ">i8"),
        ("valid_from", ">i8"),
        ("place", ">i8"),
        ("rec_from", ">i8"),
        ("rec_to", ">i8"),
        ("ledger_id", ">i2"),
        ("state", ">i2"),
    ),
    "thread_edge": (
        ("src", ">i8"),
        ("dst", ">i8"),
        ("valid_from", ">i8"),
        ("rec_from", ">i8"),
        ("rec_to", ">i8"),
        ("ledger_id", ">i2"),
        ("kind", ">i2"),
    ),
    "measured": (
        ("src", ">i8"),
        ("dst", ">i8"),
        ("valid_from", ">i8"),
        ("rec_from", ">i8"),
        ("rec_to", ">i8"),
        ("ledger_id", ">i2"),
        ("kind", ">i2"),
        ("quantity", ">f8"),
        ("unit", "S2"),
    ),
}


class _Writer:
    """Gathers rows and writes them table by table."""

    def __init__(self, ledger_id: int, parts: int) -> None:
        self.ledger_id = ledger_id
        self.last = parts * POSITIONS + POSITIONS - 2
        self.base = ledger_id << NUMBER_BITS
        self.counts = {"thread_node": 0, "thread_edge": 0, "thread_standing": 0}
        self._rows: dict[str, list[bytes]] = {table: [] for table in _COLUMNS}

    def fixed(self) -> None:
        """Add what is there from the beginning."""
        for kind, prefix, first, count in (
            (NodeKind.ASSET, "asset:m", 1, ASSETS),
            (NodeKind.DOCUMENT, "document:", 101, DOCUMENTS),
            (NodeKind.INSTRUMENT, "instrument", 201, INSTRUMENTS),
        ):
            ids = np.arange(first, first + count)
            keys = [f"{prefix}{n}".ljust(_KEY_WIDTH, "_") for n in range(count)]
            self._nodes(kind, ids - FIXED, keys, np.zeros(count, np.int64), NodeState.ACTIVE)

    def made(self, part: Ints) -> None:
        """Add the parts `part` and all that belongs to them."""
        self._lots(part)
        begun = part * POSITIONS
        self._nodes(NodeKind.PART, part * SLOTS, _keys("part:", part), begun, None)
        self._standings(part * SLOTS, begun, NodeState.IN_PROCESS)
        self._standings(part * SLOTS, begun + 12, NodeState.IN_STOCK)
        place = part % ASSEMBLY
        tops = place == ASSEMBLY - 1
        self._standings((part * SLOTS)[~tops], (begun + 14)[~tops], NodeState.ASSEMBLED)
        self._standings((part * SLOTS)[tops], (begun + 15)[tops], NodeState.SHIPPED)
        back = part % 10 == 4
        self._standings((part * SLOTS)[back], self._later(begun[back]), NodeState.RETURNED)
        batch = part - part % BATCH
        self._link(LinkKind.PRODUCED, batch * SLOTS + BATCH_RUN, part * SLOTS, begun)
        self._link(LinkKind.SPECIFIED, 101 + part % 20 - FIXED, part * SLOTS, begun)
        self._runs(part, begun)
        self._checks(part, begun)
        into = part - place + _parents()[place]
        self._link(
            LinkKind.ASSEMBLED_INTO, (part * SLOTS)[~tops], (into * SLOTS)[~tops], begun[~tops] + 14
        )
        shipped = part[tops]
        shipment = shipped * SLOTS + OTHER + 1
        self._nodes(
            NodeKind.SHIPMENT, shipment, _keys("ship:", shipped), begun[tops], NodeState.MENTIONED
        )
        self._link(LinkKind.SHIPPED_IN, shipped * SLOTS, shipment, begun[tops] + 15)

    def _runs(self, part: Ints, begun: Ints) -> None:
        for n in range(RUNS):
            run, at = part * SLOTS + RUN + n, begun + 2 + 3 * n
            self._nodes(NodeKind.PROCESS_RUN, run, _keys(f"run{n}:", part), at, None)
            self._standings(run, at, NodeState.IN_PROCESS)
            self._standings(run, at + 1, NodeState.COMPLETED)
            self._link(LinkKind.PERFORMED, 1 + (part * 7 + n * 13) % ASSETS - FIXED, run, at)
            self._link(LinkKind.SPECIFIED, 121 + (part + n) % 20 - FIXED, run, at)
            self._link(LinkKind.PROCESSED_BY, run, part * SLOTS, at + 1)
            consumable = part - part % CONSUMABLE_PARTS
            self._consumed(consumable * SLOTS + OTHER, run, at + 1, part, 0)
            if n < RUNS - 1:
                older = np.maximum(consumable - CONSUMABLE_PARTS, 0)
                self._consumed(older * SLOTS + OTHER, run, at + 1, part, n + 1)

    def _consumed(self, lot: Ints, run: Ints, at: Ints, part: Ints, turn: int) -> None:
        """Add consumptions, of which one in many was corrected later: out of another lot."""
        wrong = (part + 17 * turn) % CORRECTED_EVERY == 3
        kind = LinkKind.CONSUMED_BY
        self._link(kind, lot[~wrong], run[~wrong], at[~wrong], quantity=0.25)
        told, place = at[wrong], self._later(at[wrong])
        self._link(kind, lot[wrong], run[wrong], told, until=place, quantity=0.25)
        instead = np.maximum(lot[wrong] - CONSUMABLE_PARTS * SLOTS, OTHER)
        self._link(kind, instead, run[wrong], place, quantity=0.5)

    def _checks(self, part: Ints, begun: Ints) -> None:
        checked, at = part[part % 10 != 0], begun[part % 10 != 0] + 11
        inspection = checked * SLOTS + INSPECTION
        self._nodes(NodeKind.INSPECTION, inspection, _keys("insp:", checked), at, NodeState.GOOD)
        self._link(LinkKind.INSPECTED_BY, inspection, checked * SLOTS, at)
        self._link(LinkKind.MEASURED_WITH, 201 + checked % INSTRUMENTS - FIXED, inspection, at)
        self._link(LinkKind.SPECIFIED, 101 + checked % 20 - FIXED, inspection, at)

    def _lots(self, part: Ints) -> None:
        """Add heats, coils split from them, lots split from these, and the runs that cast them."""
        for width, slot, prefix in (
            (HEAT_PARTS, 1 * SLOTS + OTHER, "lot:h"),
            (COIL_PARTS, 2 * SLOTS + OTHER, "lot:c"),
            (LOT_PARTS, 3 * SLOTS + OTHER, "lot:l"),
            (CONSUMABLE_PARTS, OTHER, "lot:o"),
        ):
            first = part[part % width == 0]
            self._nodes(
                NodeKind.LOT,
                first * SLOTS + slot,
                _keys(prefix, first),
                first * POSITIONS,
                NodeState.IN_STOCK,
            )
        coil, lot = part[part % COIL_PARTS == 0], part[part % LOT_PARTS == 0]
        self._link(
            LinkKind.SPLIT_INTO,
            (coil - coil % HEAT_PARTS + 1) * SLOTS + OTHER,
            (coil + 2) * SLOTS + OTHER,
            coil * POSITIONS,
            quantity=900.0,
        )
        self._link(
            LinkKind.SPLIT_INTO,
            (lot - lot % COIL_PARTS + 2) * SLOTS + OTHER,
            (lot + 3) * SLOTS + OTHER,
            lot * POSITIONS,
            quantity=9.0,
        )
        cast = part[part % BATCH == 0]
        run, at = cast * SLOTS + BATCH_RUN, cast * POSITIONS
        self._nodes(NodeKind.PROCESS_RUN, run, _keys("cast:", cast), at, NodeState.COMPLETED)
        self._link(LinkKind.PERFORMED, 1 + cast // BATCH % 2 - FIXED, run, at)
        self._link(
            LinkKind.CONSUMED_BY,
            (cast - cast % LOT_PARTS + 3) * SLOTS + OTHER,
            run,
            at,
            quantity=1.8,
        )
        # What is left of a lot is ground and goes into the next one, many times over.
        ground = cast[(cast % COIL_PARTS < CHAIN * BATCH)]
        chained = (ground + 5) * SLOTS + OTHER
        self._nodes(
            NodeKind.LOT, chained, _keys("lot:g", ground), ground * POSITIONS, NodeState.CONSUMED
        )
        later = ground % COIL_PARTS > 0
        self._link(
            LinkKind.MERGED_INTO,
            chained[later] - BATCH * SLOTS,
            chained[later],
            (ground * POSITIONS)[later],
            quantity=0.1,
        )

    def _nodes(
        self,
        kind: NodeKind,
        ids: Ints,
        keys: Any,
        position: Ints,
        state: NodeState | None,
    ) -> None:
        """Add nodes that stand as `state`, or as their later standings say (None)."""
        rows = _blank("thread_node", len(ids))
        rows["id"] = self.base + FIXED + ids
        rows["first_position"] = position + 1
        rows["kind"], rows["ledger_id"], rows["key"] = kind, self.ledger_id, keys
        if state is NodeState.MENTIONED:
            rows["state_valid_from"] = -(2**63)
        elif state is None:
            # The last standing; the events of a part and of its runs come in a fixed order.
            if kind is NodeKind.PART:
                shipped = ids // SLOTS % ASSEMBLY == ASSEMBLY - 1
                back = ids // SLOTS % 10 == 4
                final = np.where(back, self._later(position), position + np.where(shipped, 15, 14))
                states = np.where(shipped, NodeState.SHIPPED, NodeState.ASSEMBLED)
                rows["state"] = np.where(back, NodeState.RETURNED, states)
            else:
                final = position + 1
                rows["state"] = NodeState.COMPLETED
            rows["state_from"] = rows["state_place"] = final + 1
            rows["state_valid_from"] = _time(final)
        else:
            rows["state"] = state
            rows["state_from"] = rows["state_place"] = position + 1
            rows["state_valid_from"] = _time(position)
            self._standings(ids, position, state)
        self._put("thread_node", rows)

    def _standings(self, ids: Ints, position: Ints, state: NodeState) -> None:
        rows = _blank("thread_standing", len(ids))
        rows["node"] = self.base + FIXED + ids
        rows["valid_from"] = _time(position)
        rows["place"] = rows["rec_from"] = position + 1
        rows["rec_to"], rows["ledger_id"], rows["state"] = OPEN, self.ledger_id, state
        self._put("thread_standing", rows)

    def _link(
        self,
        kind: LinkKind,
        src: Ints,
        dst: Ints,
        position: Ints,
        *,
        until: Ints | None = None,
        quantity: float | None = None,
    ) -> None:
        table = "thread_edge" if quantity is None else "measured"
        rows = _blank(table, len(dst))
        rows["src"], rows["dst"] = self.base + FIXED + src, self.base + FIXED + dst
        rows["valid_from"], rows["rec_from"] = _time(position), position + 1
        rows["rec_to"] = OPEN if until is None else until + 1
        rows["ledger_id"], rows["kind"] = self.ledger_id, kind
        if quantity is not None:
            rows["quantity"], rows["unit"] = quantity, b"kg"
        self._put(table, rows)

    def _put(self, table: str, rows: npt.NDArray[Any]) -> None:
        self._rows[table].append(rows.tobytes())
        self.counts["thread_edge" if table == "measured" else table] += len(rows)

    def _later(self, position: Ints) -> Ints:
        return np.minimum(position + LATER, self.last)

    async def flush(self, connection: Connection) -> None:
        """Write what was gathered."""
        for table, rows in self._rows.items():
            if rows:
                await connection.copy_to_table(
                    "thread_edge" if table == "measured" else table,
                    source=_stream(rows),
                    columns=[name for name, _ in _COLUMNS[table]],
                    format="binary",
                    timeout=600,
                )
            self._rows[table] = []
        await asyncio.sleep(0)


async def _stream(rows: Sequence[bytes]) -> AsyncIterator[bytes]:
    yield _HEAD
    for part in rows:
        yield part
    yield b"\xff\xff"


def _blank(table: str, count: int) -> npt.NDArray[Any]:
    """Return `count` rows as binary COPY takes them, their lengths filled in."""
    layout: list[tuple[str, str]] = [("columns", ">i2")]
    for name, form in _COLUMNS[table]:
        layout += [(f"{name}_bytes", ">i4"), (name, form)]
    rows = np.zeros(count, np.dtype(layout))
    rows["columns"] = len(_COLUMNS[table])
    for name, form in _COLUMNS[table]:
        rows[f"{name}_bytes"] = np.dtype(form).itemsize
    return rows


def _keys(prefix: str, numbers: Ints) -> npt.NDArray[np.bytes_]:
    if not len(numbers):
        return np.zeros(0, f"S{_KEY_WIDTH}")
    digits = np.char.zfill(numbers.astype("S9"), _KEY_WIDTH - len(prefix))
    return np.char.add(prefix.encode(), digits)


def _time(position: Ints) -> Ints:
    return BEGAN_US + position * (PART_US // POSITIONS)


def _parents() -> Ints:
    """Return for each place in an assembly the place of the part that it goes into."""
    parents, first = [], 0
    for here, above in zip(LEVELS, (*LEVELS[1:], 1), strict=True):
        parents += [first + here + n * above // here for n in range(here)]
        first += here
    return np.array([min(parent, ASSEMBLY - 1) for parent in parents], np.int64)
