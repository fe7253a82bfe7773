"""What a trace reads: the nodes reached, how they stood, and the links among them.

A trace is one statement. Its recursion is on the node alone, so that it visits each node once and
ends whatever cycles there are; how deep a node lies follows from the links afterwards. Where that
statement reaches more than is wanted, or little of what lies near is wanted, the graph is walked
level by level instead.

Answers come as packed columns: a column of ten thousand numbers is one value, not ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any, Final, NamedTuple

import asyncpg
import numpy as np
import numpy.typing as npt

from domain.thread import LinkKind
from eventlog.database import Connection
from eventlog.envelope import POSTGRES_EPOCH
from projections.thread.fold import OPEN
from projections.thread.projection import ThreadProjection

LEVEL_NODES_MAX: Final = 1_000_000
"""Nodes that one step of a walk reaches at most."""

MANY_LINKS: Final = 1_000
"""From so many on, depths are found level by level in arrays and not node by node."""

NOW_POSITION: Final = OPEN - 1

Ints = npt.NDArray[np.int64]

NO_END: Final = 2**63 - 1
"""`valid_to` of what has not ended: PostgreSQL's infinity."""


@dataclass(frozen=True, slots=True)
class Way:
    """What a trace follows.

    Parameters
    ----------
    back : from what is borne on to what bears on it
    position : of the log; links known there
    valid_at : links true then, or None: whenever
    usual : `kinds` are of a few sets that are asked for again and again
    """

    ledger_id: int
    back: bool
    kinds: tuple[LinkKind, ...]
    position: int
    valid_at: datetime | None
    usual: bool = False

    @property
    def _valid(self) -> tuple[datetime, ...]:
        return () if self.valid_at is None else (self.valid_at,)

    @property
    def _prepared(self) -> tuple[LinkKind, ...] | None:
        """The kinds where a statement names them, None where it is sent them."""
        return self.kinds if self.usual else None

    @property
    def _sent(self) -> tuple[object, ...]:
        return self._valid if self.usual else (*self._valid, self.kinds)


class NodeColumns(NamedTuple):
    """Nodes, a list a column."""

    ids: list[int]
    first_positions: list[int]
    kinds: list[int]
    states: list[int]
    keys: list[str]


class EdgeColumns(NamedTuple):
    """Links, an array or list a column; `ended_at` is 0 and a quantity NaN where there is none.

    Times are microseconds since 2000; `valid_to` is `NO_END` where there is none.
    """

    src: Ints
    dst: Ints
    kinds: Ints
    quantities: npt.NDArray[np.float64]
    valid_from: Ints
    valid_to: Ints
    said_at: Ints
    ended_at: Ints
    units: list[str | None]

    @classmethod
    def joined(cls, parts: Sequence[EdgeColumns]) -> EdgeColumns:
        """Return the links of all `parts`."""
        if len(parts) == 1:
            return parts[0]
        columns: list[Any] = list(zip(*parts, strict=True))
        units = [unit for part in parts for unit in part.units]
        return cls._make([*map(np.concatenate, columns[:-1]), units])


NO_NODES: Final = NodeColumns([], [], [], [], [])


@dataclass(frozen=True)
class Reached:
    """What one statement reached, packed as it came; `roots` by their keys."""

    position: int
    roots: dict[str, int]
    row: asyncpg.Record

    @cached_property
    def node_ids(self) -> Ints:
        """Ids of the nodes."""
        return _array(self.row["ids"])

    @cached_property
    def ends(self) -> tuple[Ints, Ints]:
        """What bears on what, a link an item: src and dst."""
        return _array(self.row["src"]), _array(self.row["dst"])

    def nodes(self) -> NodeColumns:
        """Return the nodes, unpacked."""
        return _nodes(self.row)

    def edges(self) -> EdgeColumns:
        """Return the links, unpacked."""
        return _edges(self.row)


class Walked(NamedTuple):
    """What a walk reached: how deep each node lies, and whether there is more."""

    depths: dict[int, int]
    more: bool


# --- statements ---------------------------------------------------------------------------

_AT: Final = f"""
    at as materialized (
        select least($3::bigint, coalesce((
            select position from projection_checkpoint
            where ledger_id = $1 and projection = '{ThreadProjection.name}'
                and version = {ThreadProjection.version}
        ), (select position from ledger where ledger_id = $1))) as position
    ), root as materialized (
        select id, key from thread_node
        where ledger_id = $1 and key = any((select $2::text[])::text[])
            and first_position <= (select position from at)
    )
"""
_AT_POSITION: Final = "(select position from at)"


def _known(position: str, valid_at: str | None) -> str:
    # `+ 0` keeps the index by position, which would read half the table, out of it.
    known = f"e.rec_to > {position} and e.rec_from + 0 <= {position}"
    if valid_at is None:
        return known
    return (
        f"{known} and e.valid_from <= {valid_at}::timestamptz "
        f"and (e.valid_to is null or e.valid_to > {valid_at})"
    )


def _state(position: str, valid_at: str | None) -> str:
    """Return how node ``n`` stood; only one whose state has changed since costs a look."""
    holds, wanted = f"n.state_from <= {position}", ""
    if valid_at is not None:
        holds += f" and n.state_valid_from <= {valid_at}::timestamptz"
        wanted = f"and s.valid_from <= {valid_at}::timestamptz"
    return f"""
        case when {holds} then n.state else coalesce((
            select s.state from thread_standing s
            where s.node = n.id and s.rec_from + 0 <= {position} and s.rec_to > {position} {wanted}
            order by s.valid_from desc, s.place desc limit 1
        ), 0) end
    """


def _node_columns(position: str, valid_at: str | None) -> str:
    return f"""
        string_agg(int8send(n.id), '') as ids,
        string_agg(int8send(n.first_position), '') as first_positions,
        string_agg(int2send(n.kind), '') as node_kinds,
        string_agg(int2send(({_state(position, valid_at)})::smallint), '') as states,
        array_agg(n.key) as keys
    """


_EDGE_COLUMNS: Final = """
    string_agg(int8send(e.src), '') as src,
    string_agg(int8send(e.dst), '') as dst,
    string_agg(int2send(e.kind), '') as edge_kinds,
    string_agg(float8send(coalesce(e.quantity, 'NaN')), '') as quantities,
    string_agg(timestamptz_send(e.valid_from), '') as valid_from,
    string_agg(timestamptz_send(coalesce(e.valid_to, 'infinity')), '') as valid_to,
    string_agg(int8send(coalesce(e.said_at, e.rec_from)), '') as said_at,
    string_agg(int8send(coalesce(e.ended_at, 0)), '') as ended_at,
    array_agg(e.unit) as units
"""


def _of_kinds(kinds: tuple[LinkKind, ...] | None, valid: bool) -> str:
    """Return the condition that a link ``e`` is of `kinds`, or of those sent (None).

    To send them takes a tenth of a short trace; what names them is prepared, and so must be few.
    """
    if kinds is not None:
        return f"e.kind = any('{{{','.join(str(int(kind)) for kind in kinds)}}}'::smallint[])"
    return f"e.kind = any((select ${6 if valid else 5}::smallint[])::smallint[])"


def _ends(back: bool) -> tuple[str, str]:
    return ("dst", "src") if back else ("src", "dst")


def _closure(back: bool, valid: bool, of_kinds: str) -> str:
    """Return what reaches ``$4`` nodes at most, as the array `ids` of the relation ``reached``."""
    near, far = _ends(back)
    known = _known(_AT_POSITION, "$5" if valid else None)
    # Arguments stand in selects, so that they tell the planner nothing and one plan serves them
    # all: to plan anew takes as long as a short trace.
    # `offset 0` holds the planner to one look into the index a node, whatever it thinks of sizes.
    return f"""
        with recursive {_AT}, t(id) as (
            select id from root
            union
            select e.far from t cross join lateral (
                select e.{far} as far from thread_edge e
                where e.{near} = t.id and {of_kinds} and {known} offset 0
            ) e
        ), reached as materialized (
            select array_agg(id) as ids from (select id from t limit (select $4::bigint)) bounded
        )
    """


@cache
def _reach_sql(back: bool, valid: bool, kinds: tuple[LinkKind, ...] | None) -> str:
    near, _ = _ends(back)
    valid_at = "$5" if valid else None
    of_kinds = _of_kinds(kinds, valid)
    return f"""
        {_closure(back, valid, of_kinds)}
        select {_AT_POSITION} as position, (select array_agg(id) from root) as root_ids,
            (select array_agg(key) from root) as root_keys, nodes.*, edges.*
        from (
            select {_node_columns(_AT_POSITION, valid_at)} from thread_node n
            where n.id = any((select ids from reached)::bigint[])
        ) nodes, (
            select {_EDGE_COLUMNS} from thread_edge e
            where e.{near} = any((select ids from reached)::bigint[])
                and {of_kinds} and {_known(_AT_POSITION, valid_at)}
        ) edges
    """


@cache
def _count_sql(valid: bool, kinds: tuple[LinkKind, ...] | None) -> str:
    return f"""
        {_closure(False, valid, _of_kinds(kinds, valid))}
        select n.kind, {_state(_AT_POSITION, "$5" if valid else None)} as state,
            count(*) as count, {_AT_POSITION} as position,
            (select array_agg(key) from root) as root_keys
        from thread_node n where n.id = any((select ids from reached)::bigint[])
        group by 1, 2
    """


@cache
def _level_sql(back: bool, valid: bool) -> str:
    near, far = _ends(back)
    return f"""
        select string_agg(int8send(far), '') from (
            select distinct e.{far} as far from thread_edge e
            where e.{near} = any($1::bigint[]) and e.kind = any($2::smallint[])
                and {_known("$3::bigint", "$4" if valid else None)}
            limit {LEVEL_NODES_MAX}
        ) level
    """


@cache
def _edges_sql(near: str, far: str, valid: bool) -> str:
    return f"""
        select {_EDGE_COLUMNS} from thread_edge e join unnest($4::bigint[]) as other(id)
            on other.id = e.{far}
        where e.{near} = any($1::bigint[]) and e.kind = any($2::smallint[])
            and {_known("$3::bigint", "$5" if valid else None)}
    """


@cache
def _nodes_sql(valid: bool) -> str:
    return f"""
        select {_node_columns("$2::bigint", "$3" if valid else None)}
        from thread_node n where n.id = any($1::bigint[])
    """


# --- reading ------------------------------------------------------------------------------


async def reach(connection: Connection, way: Way, keys: Sequence[str], limit: int) -> Reached:
    """Return all that is reached from `keys`, or `limit` of its nodes where it is as much."""
    row = await connection.fetchrow(
        _reach_sql(way.back, way.valid_at is not None, way._prepared),
        way.ledger_id,
        keys,
        way.position,
        limit,
        *way._sent,
    )
    assert row is not None, "an aggregate has a row"
    roots = dict(zip(row["root_keys"] or (), row["root_ids"] or (), strict=True))
    return Reached(row["position"], roots, row)


async def count(
    connection: Connection, way: Way, keys: Sequence[str], limit: int
) -> list[asyncpg.Record]:
    """Return how many nodes `keys` reach, by kind and state, with position and known roots."""
    return await connection.fetch(
        _count_sql(way.valid_at is not None, way._prepared),
        way.ledger_id,
        keys,
        way.position,
        limit,
        *way._sent,
    )


async def find_roots(
    connection: Connection, ledger_id: int, keys: Sequence[str], position: int
) -> tuple[int, dict[str, int]]:
    """Return the position that `position` comes to, and which of `keys` were known there."""
    row = await connection.fetchrow(
        f"with {_AT} select {_AT_POSITION} as position, array_agg(id) as ids, "
        "array_agg(key) as keys from root",
        ledger_id,
        keys,
        position,
    )
    assert row is not None, "an aggregate has a row"
    return row["position"], dict(zip(row["keys"] or (), row["ids"] or (), strict=True))


async def walk(
    connection: Connection, way: Way, roots: Iterable[int], *, depth: int, enough: int
) -> Walked:
    """Return how deep nodes lie, whole levels, until they are `enough` or `depth` is reached."""
    level = sorted(set(roots))
    depths = dict.fromkeys(level, 0)
    while level and len(depths) < enough:
        packed = await connection.fetchval(
            _level_sql(way.back, way.valid_at is not None),
            level,
            way.kinds,
            way.position,
            *way._valid,
        )
        further = depths[level[0]] + 1
        level = sorted(node for node in _numbers(packed, ">i8") if node not in depths)
        if further > depth:
            return Walked(depths, bool(level))
        depths.update(dict.fromkeys(level, further))
    return Walked(depths, bool(level))


async def read_nodes(connection: Connection, way: Way, ids: Sequence[int]) -> NodeColumns:
    """Return the nodes `ids` as they stood."""
    row = await connection.fetchrow(
        _nodes_sql(way.valid_at is not None), ids, way.position, *way._valid
    )
    assert row is not None, "an aggregate has a row"
    return _nodes(row)


async def read_edges(
    connection: Connection, way: Way, page: Sequence[int], before: Sequence[int]
) -> list[EdgeColumns]:
    """Return the links among `page`, and between `page` and `before`."""
    near, far = _ends(way.back)
    wanted: list[tuple[str, str, Sequence[int], Sequence[int]]]
    wanted = [(near, far, page, [*page, *before])]
    if before:
        wanted.append((far, near, page, before))
    found = []
    for at, other, ids, others in wanted:
        row = await connection.fetchrow(
            _edges_sql(at, other, way.valid_at is not None),
            ids,
            way.kinds,
            way.position,
            others,
            *way._valid,
        )
        assert row is not None, "an aggregate has a row"
        found.append(_edges(row))
    return found


def depths_of(roots: Iterable[int], back: bool, src: Ints, dst: Ints) -> dict[int, int]:
    """Return how many links each node is away from the nearest of `roots`."""
    near, far = (dst, src) if back else (src, dst)
    begun = list(dict.fromkeys(roots))
    if len(near) < MANY_LINKS:
        return _depths_by_node(begun, near.tolist(), far.tolist())
    nodes, places = np.unique(
        np.concatenate((np.array(begun, np.int64), near, far)), return_inverse=True
    )
    root_at, near_at, far_at = np.split(places, [len(begun), len(begun) + len(near)])
    depths = np.full(len(nodes), -1)
    depths[root_at] = depth = 0
    while True:
        reached = far_at[depths[near_at] == depth]
        reached = reached[depths[reached] < 0]
        if not len(reached):
            break
        depth += 1
        depths[reached] = depth
    found = depths >= 0
    return dict(zip(nodes[found].tolist(), depths[found].tolist(), strict=True))


def _depths_by_node(
    begun: Sequence[int], near: Sequence[int], far: Sequence[int]
) -> dict[int, int]:
    following: dict[int, list[int]] = {}
    for one, other in zip(near, far, strict=True):
        following.setdefault(one, []).append(other)
    level: Sequence[int] = begun
    depths = dict.fromkeys(level, 0)
    while level:
        further = []
        for node in level:
            for other in following.get(node, ()):
                if other not in depths:
                    depths[other] = depths[node] + 1
                    further.append(other)
        level = further
    return depths


# --- columns ------------------------------------------------------------------------------


def _nodes(row: asyncpg.Record) -> NodeColumns:
    return NodeColumns(
        _numbers(row["ids"], ">i8"),
        _numbers(row["first_positions"], ">i8"),
        _numbers(row["node_kinds"], ">i2"),
        _numbers(row["states"], ">i2"),
        row["keys"] or [],
    )


def _edges(row: asyncpg.Record) -> EdgeColumns:
    return EdgeColumns(
        _array(row["src"]),
        _array(row["dst"]),
        np.frombuffer(row["edge_kinds"] or b"", ">i2").astype(np.int64),
        np.frombuffer(row["quantities"] or b"", ">f8").astype(np.float64),
        _array(row["valid_from"]),
        _array(row["valid_to"]),
        _array(row["said_at"]),
        _array(row["ended_at"]),
        row["units"] or [],
    )


def times(microseconds: Ints) -> list[datetime]:
    """Return moments, told in microseconds since 2000."""
    since: list[timedelta] = microseconds.astype("timedelta64[us]").tolist()
    return [POSTGRES_EPOCH + one for one in since]


def times_or_none(microseconds: Ints) -> list[datetime | None]:
    """Return moments, told in microseconds since 2000, and None for `NO_END`."""
    moments: list[datetime | None] = [None] * len(microseconds)
    ended = np.flatnonzero(microseconds != NO_END)
    if len(ended):
        for n, moment in zip(ended.tolist(), times(microseconds[ended]), strict=True):
            moments[n] = moment
    return moments


def _array(packed: bytes | None) -> Ints:
    return np.frombuffer(packed or b"", ">i8").astype(np.int64)


def _numbers(packed: bytes | None, layout: str) -> list[Any]:
    return [] if packed is None else np.frombuffer(packed, layout).tolist()
