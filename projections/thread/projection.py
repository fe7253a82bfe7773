"""The thread as rows: nodes, links and states, each known from a position to a position.

Knows of no event class: whatever has ``thread()`` is folded (`domain.thread`). Nothing that was
known is ever lost: what a correction takes back keeps the positions between which it was known, and
what is true in place of it is known from the correction on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import ClassVar, Final

import asyncpg

from domain.events import event_types
from domain.records import CORRECTED, RecordCorrected
from domain.thread import NodeState, node_kind
from eventlog.appending.wire import microseconds
from eventlog.database import Connection
from eventlog.envelope import EVENTS_DECLARED_IN, POSTGRES_EPOCH, RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.thread.copy_format import copy_stream
from projections.thread.fold import (
    OPEN,
    EndFact,
    LinkFact,
    StandingTold,
    Told,
    Version,
    gather,
    last_standings,
    versions,
)

NUMBER_BITS: Final = 48
"""Of a node's id; the ledger's number stands above them."""

NUMBERS_REMEMBERED_MAX: Final = 131_072
"""Ids of nodes that a fold keeps, some 20 MB."""

assert EVENTS_DECLARED_IN, "every stored type is registered by now"
THREADED_TYPES: Final = (
    *sorted(name for name, known in event_types().items() if hasattr(known.event_class, "thread")),
    CORRECTED,
)
"""Stored types that may say something of the thread."""

_NO_TIME_US: Final = -(2**63)  # PostgreSQL's -infinity

Triple = tuple[int, int, int]
"""What a link is between, and its kind: src, dst, kind."""


class ThreadProjection:
    """Folds what events say of the thread into nodes, links, ends and states."""

    name: ClassVar[str] = "thread"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = THREADED_TYPES
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = (
        "thread_node",
        "thread_standing",
        "thread_edge",
        "thread_end",
        "thread_correction",
    )
    query_indexes: ClassVar[tuple[str, ...]] = ("thread_edge_in",)

    def __init__(self) -> None:
        self._numbers = _Numbers(0)

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        if self._numbers.ledger_id != ledger.ledger_id:
            self._numbers = _Numbers(ledger.ledger_id)
        batch = _Batch(connection, ledger.ledger_id)
        told = gather(events, await batch.corrections_among(events))
        await batch.put_corrections(told)
        numbers, new = await self._numbers.of(connection, told.mentions)
        await batch.put_nodes(told, numbers, new)
        await batch.put_standings(told, numbers)
        await batch.put_links(told, numbers)
        touched = await batch.put_ends(told, numbers)
        if told.corrections:
            touched |= await batch.correct(told)
        if touched:
            await batch.settle_ends(touched)


class _Numbers:
    """The ids of nodes: those seen lately are remembered, and new ones are given out.

    An id follows from the log alone: nodes are numbered in the order in which it mentions them.
    """

    def __init__(self, ledger_id: int) -> None:
        self.ledger_id = ledger_id
        self._first = ledger_id << NUMBER_BITS
        # Two halves: when the young one is full it becomes the old one, whose ids are forgotten.
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    async def of(
        self, connection: Connection, keys: Iterable[str]
    ) -> tuple[dict[str, int], set[str]]:
        """Return the ids of `keys`, in their order, and which of them are new."""
        young, old = self._young, self._old
        numbers = {key: young.get(key) or old.get(key) or 0 for key in keys}
        unknown = [key for key, number in numbers.items() if not number]
        if unknown:
            found = await connection.fetch(
                "select key, id from thread_node where ledger_id = $1 and key = any($2::text[])",
                self.ledger_id,
                unknown,
            )
            numbers.update((row["key"], row["id"]) for row in found)
        new = [key for key in unknown if not numbers[key]]
        if new:
            last: int = await connection.fetchval(
                "select coalesce(max(id), $1) from thread_node where id between $1 and $2",
                self._first,
                self._first + (1 << NUMBER_BITS) - 1,
            )
            numbers.update(zip(new, range(last + 1, last + 1 + len(new)), strict=True))
        self._remember(numbers)
        return numbers, set(new)

    def _remember(self, numbers: Mapping[str, int]) -> None:
        self._young.update(numbers)
        if len(self._young) > NUMBERS_REMEMBERED_MAX // 2:
            self._old, self._young = self._young, {}


class _Batch:
    """Writes what a batch of events says, in few statements whatever its length."""

    def __init__(self, connection: Connection, ledger_id: int) -> None:
        self._connection = connection
        self._ledger_id = ledger_id

    async def corrections_among(self, events: Sequence[RecordedEvent]) -> set[int]:
        """Return which of the positions that `events` correct are corrections themselves."""
        corrected = [
            event.fact.corrected_position
            for event in events
            if event.type == CORRECTED and isinstance(event.fact, RecordCorrected)
        ]
        if not corrected:
            return set()
        rows = await self._connection.fetch(
            "select position from thread_correction "
            "where ledger_id = $1 and position = any($2::bigint[])",
            self._ledger_id,
            corrected,
        )
        return {row["position"] for row in rows}

    async def put_corrections(self, told: Told) -> None:
        """Write down which events are corrections, and of what."""
        corrections = told.corrections + told.void_corrections
        if corrections:
            await self._connection.execute(
                "insert into thread_correction (ledger_id, position, place) "
                "select $1, * from unnest($2::bigint[], $3::bigint[])",
                self._ledger_id,
                [position for position, _ in corrections],
                [place for _, place in corrections],
            )

    async def put_nodes(self, told: Told, numbers: Mapping[str, int], new: set[str]) -> None:
        """Add the nodes that were not known, and set how those that were stand now."""
        last = last_standings(told.standings)
        nothing = StandingTold(_NO_TIME_US, 0, 0, NodeState.MENTIONED, "")
        if new:
            rows = []
            for key, position in told.mentions.items():
                if key in new:
                    standing = last.pop(key, nothing)
                    rows.append(self._node_row(numbers[key], key, position, standing))
            await self._copy("thread_node", _NODE_COLUMNS, rows)
        if last:
            await self._connection.execute(
                """
                update thread_node n
                set state = s.state, state_from = s.position, state_valid_from = s.valid_from,
                    state_place = s.place
                from unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::timestamptz[],
                    $5::bigint[]) as s(node, state, position, valid_from, place)
                where n.id = s.node
                    and (s.valid_from, s.place) > (n.state_valid_from, n.state_place)
                """,
                [numbers[key] for key in last],
                [standing.state for standing in last.values()],
                [standing.position for standing in last.values()],
                [_time(standing.valid_us) for standing in last.values()],
                [standing.place for standing in last.values()],
            )

    def _node_row(self, number: int, key: str, position: int, standing: StandingTold) -> bytes:
        encoded = key.encode()
        return (
            _NODE(
                9, 8, number, 8, position, 8, standing.position, 8, standing.valid_us,
                8, standing.place, 2, self._ledger_id, 2, node_kind(key), 2, standing.state,
                len(encoded),
            )
            + encoded
        )  # fmt: skip

    async def put_standings(self, told: Told, numbers: Mapping[str, int]) -> None:
        """Add what was told of how nodes stand."""
        rows = [
            _STANDING(
                7, 8, numbers[node], 8, valid_us, 8, place, 8, position, 8, OPEN,
                2, self._ledger_id, 2, state,
            )
            for valid_us, place, position, state, node in told.standings
        ]  # fmt: skip
        await self._copy("thread_standing", _STANDING_COLUMNS, rows)

    async def put_links(self, told: Told, numbers: Mapping[str, int]) -> None:
        """Add what was told of links."""
        ledger_id = self._ledger_id
        rows = []
        for src, dst, kind, valid_us, position, place, quantity, unit in told.links:
            row = _EDGE(
                13, 8, numbers[src], 8, numbers[dst], 8, valid_us, 8, position, 8, OPEN,
                2, ledger_id, 2, kind,
            )  # fmt: skip
            if quantity is None and unit is None and place == position:
                rows.append(row + _NO_OTHERS)
            else:
                place_or_none = None if place == position else place
                rows.append(row + _others(quantity, None, None, None, place_or_none, unit))
        await self._copy("thread_edge", _EDGE_COLUMNS, rows)

    async def put_ends(self, told: Told, numbers: Mapping[str, int]) -> set[Triple]:
        """Add what was told of ends; return the links that these or earlier ends may concern."""
        connection = self._connection
        rows = [
            _END(
                8, 8, numbers[src], 8, numbers[dst], 8, valid_us, 8, place, 8, position, 8, OPEN,
                2, self._ledger_id, 2, kind,
            )
            for src, dst, kind, valid_us, position, place in told.ends
        ]  # fmt: skip
        await self._copy("thread_end", _END_COLUMNS, rows)
        touched = {(numbers[end.src], numbers[end.dst], int(end.kind)) for end in told.ends}
        if not told.links:
            return touched
        kinds = await connection.fetch(
            "select kind from unnest($1::smallint[]) kind "
            "where exists (select from thread_end e where e.kind = kind.kind)",
            sorted({int(link.kind) for link in told.links}),
        )
        ending = {row["kind"] for row in kinds}
        links = [
            (numbers[link.src], numbers[link.dst], int(link.kind))
            for link in told.links
            if link.kind in ending
        ]
        if links:
            found = await connection.fetch(
                f"select l.* from {_LINKS} where exists (select from thread_end e "
                "where e.kind = l.kind and e.src = l.src and e.dst = l.dst)",
                *_columns(links),
            )
            touched.update((row["src"], row["dst"], row["kind"]) for row in found)
        return touched

    async def correct(self, told: Told) -> set[Triple]:
        """Have what was corrected be known until its correction; return the links to settle."""
        said, until = await self._taken_back(told.corrections)
        connection = self._connection
        closed = "where {0} = any($1::bigint[]) and {0} = c.said and t.rec_to = $3 "
        taken = "from unnest($1::bigint[], $2::bigint[]) as c(said, until) "
        arguments = (said, until, OPEN, self._ledger_id)
        for column in ("t.rec_from", "t.said_at"):
            only = "and t.said_at is null " if column == "t.rec_from" else ""
            await connection.execute(
                f"update thread_edge t set rec_to = c.until {taken}{closed.format(column)}{only}"
                "and t.ledger_id = $4",
                *arguments,
            )
        ends = await connection.fetch(
            f"update thread_end t set rec_to = c.until {taken}{closed.format('t.rec_from')}"
            "and t.ledger_id = $4 returning t.src, t.dst, t.kind",
            *arguments,
        )
        nodes = await connection.fetch(
            f"update thread_standing t set rec_to = c.until {taken}{closed.format('t.rec_from')}"
            "and t.ledger_id = $4 returning t.node",
            *arguments,
        )
        if nodes:
            await connection.execute(_RESTATE, sorted({row["node"] for row in nodes}), OPEN)
        return {(row["src"], row["dst"], row["kind"]) for row in ends}

    async def _taken_back(
        self, corrections: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[int]]:
        """Return what each of `corrections` takes back: who said it, until when."""
        connection = self._connection
        rows = await connection.fetch(
            "select place, max(position) as position from thread_correction "
            "where ledger_id = $1 and place = any($2::bigint[]) and position < $3 group by place",
            self._ledger_id,
            [place for _, place in corrections],
            corrections[0][0],
        )
        said_last: dict[int, int] = {row["place"]: row["position"] for row in rows}
        said, until = [], []
        for position, place in corrections:
            said.append(said_last.get(place, place))
            until.append(position)
            said_last[place] = position
        return said, until

    async def settle_ends(self, touched: set[Triple]) -> None:
        """Write since when which end was known of the links `touched`, where that has changed."""
        triples = sorted(touched)
        links = await self._connection.fetch(
            f"select e.* from {_LINKS} "
            "join thread_edge e on e.src = l.src and e.kind = l.kind and e.dst = l.dst",
            *_columns(triples),
        )
        ends = await self._connection.fetch(
            f"select e.* from {_LINKS} "
            "join thread_end e on e.kind = l.kind and e.src = l.src and e.dst = l.dst",
            *_columns(triples),
        )
        ends_of: dict[Triple, list[EndFact]] = {}
        for row in ends:
            ends_of.setdefault((row["src"], row["dst"], row["kind"]), []).append(
                EndFact(microseconds(row["valid_at"]), row["place"], row["rec_from"], row["rec_to"])
            )
        stored: dict[Triple, list[asyncpg.Record]] = {}
        for row in links:
            stored.setdefault((row["src"], row["dst"], row["kind"]), []).append(row)
        changed: dict[Triple, list[Version]] = {}
        for triple, rows in stored.items():
            facts = _link_facts(rows)
            settled = [v for fact in facts for v in versions(fact, ends_of.get(triple, ()))]
            if {_said(v) for v in settled} != {_stored(row) for row in rows}:
                changed[triple] = settled
        if changed:
            await self._replace(changed)

    async def _replace(self, changed: Mapping[Triple, Sequence[Version]]) -> None:
        await self._connection.execute(
            "delete from thread_edge e "
            f"using {_LINKS} "
            "where e.src = l.src and e.kind = l.kind and e.dst = l.dst",
            *_columns(list(changed)),
        )
        rows = [
            _EDGE(
                13, 8, src, 8, dst, 8, link.valid_us, 8, rec_from, 8, rec_to,
                2, self._ledger_id, 2, kind,
            )
            + _others(
                link.quantity,
                valid_to_us,
                None if link.said == rec_from else link.said,
                ended_at,
                None if link.place == link.said else link.place,
                link.unit,
            )
            for (src, dst, kind), settled in changed.items()
            for link, rec_from, rec_to, valid_to_us, ended_at in settled
        ]  # fmt: skip
        await self._copy("thread_edge", _EDGE_COLUMNS, rows)

    async def _copy(self, table: str, columns: Sequence[str], rows: Sequence[bytes]) -> None:
        if rows:
            await self._connection.copy_to_table(
                table, source=copy_stream(rows), columns=columns, format="binary"
            )


_LINKS: Final = "unnest($1::bigint[], $2::bigint[], $3::smallint[]) as l(src, dst, kind)"
_RESTATE: Final = """
    with best as (
        select t.node, coalesce(s.state, 0) as state, coalesce(s.rec_from, 0) as rec_from,
            coalesce(s.valid_from, '-infinity') as valid_from, coalesce(s.place, 0) as place
        from unnest($1::bigint[]) as t(node) left join lateral (
            select * from thread_standing s where s.node = t.node and s.rec_to = $2
            order by s.valid_from desc, s.place desc limit 1
        ) s on true
    )
    update thread_node n
    set state = b.state, state_valid_from = b.valid_from, state_place = b.place,
        -- What was taken back may have stood above it until then.
        state_from = greatest(b.rec_from, coalesce((
            select max(g.rec_to) from thread_standing g
            where g.node = b.node and g.rec_to < $2
                and (g.valid_from, g.place) > (b.valid_from, b.place)
        ), 0))
    from best b where n.id = b.node
"""


def _link_facts(rows: Iterable[asyncpg.Record]) -> list[LinkFact]:
    """Return the links whose versions `rows` are."""
    facts: dict[tuple[int, str | None], LinkFact] = {}
    for row in rows:
        said = row["said_at"] or row["rec_from"]
        fact = LinkFact(
            microseconds(row["valid_from"]),
            said,
            row["rec_to"],
            row["place"] or said,
            row["quantity"],
            row["unit"],
        )
        before = facts.get((said, fact.unit))
        if before is None or fact.until > before.until:
            facts[said, fact.unit] = fact
    return list(facts.values())


def _said(version: Version) -> tuple[object, ...]:
    link, rec_from, rec_to, _, ended_at = version
    return link.said, link.unit, rec_from, rec_to, ended_at


def _stored(row: asyncpg.Record) -> tuple[object, ...]:
    said = row["said_at"] or row["rec_from"]
    return said, row["unit"], row["rec_from"], row["rec_to"], row["ended_at"]


def _columns(triples: Sequence[Triple]) -> tuple[list[int], list[int], list[int]]:
    return [t[0] for t in triples], [t[1] for t in triples], [t[2] for t in triples]


def _time(valid_us: int) -> datetime:
    return POSTGRES_EPOCH + timedelta(microseconds=valid_us)


# --- rows as binary COPY takes them -------------------------------------------------------

_NODE_COLUMNS: Final = (
    "id",
    "first_position",
    "state_from",
    "state_valid_from",
    "state_place",
    "ledger_id",
    "kind",
    "state",
    "key",
)
_STANDING_COLUMNS: Final = (
    "node",
    "valid_from",
    "place",
    "rec_from",
    "rec_to",
    "ledger_id",
    "state",
)
_EDGE_COLUMNS: Final = (
    "src",
    "dst",
    "valid_from",
    "rec_from",
    "rec_to",
    "ledger_id",
    "kind",
    "quantity",
    "valid_to",
    "said_at",
    "ended_at",
    "place",
    "unit",
)
_END_COLUMNS: Final = (
    "src",
    "dst",
    "valid_at",
    "place",
    "rec_from",
    "rec_to",
    "ledger_id",
    "kind",
)
_NODE: Final = struct.Struct(">h" + 5 * "iq" + 3 * "ih" + "i").pack
_STANDING: Final = struct.Struct(">h" + 5 * "iq" + 2 * "ih").pack
_EDGE: Final = _STANDING
_END: Final = struct.Struct(">h" + 6 * "iq" + 2 * "ih").pack
_NUMBER: Final = struct.Struct(">iq").pack
_QUANTITY: Final = struct.Struct(">id").pack
_NULL: Final = struct.pack(">i", -1)
_NO_OTHERS: Final = 6 * _NULL


def _others(
    quantity: float | None,
    valid_to_us: int | None,
    said_at: int | None,
    ended_at: int | None,
    place: int | None,
    unit: str | None,
) -> bytes:
    """Return the columns of a link that most links lack."""
    numbers = (valid_to_us, said_at, ended_at, place)
    return b"".join(
        (
            _NULL if quantity is None else _QUANTITY(8, quantity),
            *(_NULL if number is None else _NUMBER(8, number) for number in numbers),
            _NULL if unit is None else _unit(unit),
        )
    )


@lru_cache(maxsize=256)
def _unit(unit: str) -> bytes:
    encoded = unit.encode()
    return len(encoded).to_bytes(4, "big") + encoded
