"""The thread: traces, recalls and as-of, each beside its bare SQL, and how fast events are folded.

The table is filled straight by COPY (`benchmarks.thread_factory`); what is folded are real events.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from benchmarks.ingest import _free_port, _serving
from benchmarks.report import Figure, Report
from benchmarks.scratch import run_as_served, scratch_folder, serving
from benchmarks.thread_events import moved, three_links_each
from benchmarks.thread_factory import (
    ASSEMBLY,
    COIL_PARTS,
    HEAT_PARTS,
    POSITIONS,
    Factory,
    chain_key,
    coil_key,
    heat_key,
    load,
    part_key,
    top_of,
)
from benchmarks.thread_live import (
    Live,
    Question,
    answered,
    ask_beside_feed,
    ask_cold,
    p50_ms,
    p99_ms,
)
from eventlog.database import Connection, Pool, create_pool
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_page
from projections.as_of import AsOf
from projections.thread.projection import ThreadProjection
from projections.thread.trace import BACK_LINKS, FORWARD_LINKS, NODES_MAX, recall, trace
from projections.thread.traced import Direction

LEDGER: Final = "plant-1"
BATCH_EVENTS: Final = 1_000
LIVE_ROUNDS: Final = 150
"""Answers at least, of which a 99th percentile beside the feed is told."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--parts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100, help="times each question is asked")
    parser.add_argument("--events", type=int, default=20_000, help="events folded, twice")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="load into this data directory, keep it, and ask it again where it was loaded before",
    )


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    report = Report("thread")
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or stack.enter_context(scratch_folder())
        with serving(folder) as server:
            factory = run_as_served(_measure(report, arguments, folder, server.url))
        ask_cold(report, folder, LEDGER, factory)
    return report


async def _measure(
    report: Report, arguments: argparse.Namespace, folder: Path, database_url: str
) -> Factory:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    try:
        factory = await _loaded(pool, ledger, folder, arguments.parts)
        gc.freeze()  # as `heddle serve` does
        await _ask(report, ledger, factory, arguments.rounds)
        await _ask_over_http(report, folder, database_url, factory, arguments.rounds)
        await _ask_live(report, ledger, database_url, factory, arguments.rounds)
        await _fold(report, ledger, factory, arguments.events)
    finally:
        await ledger.close()
        await pool.close()
    report.notes += [
        f"{factory.parts:,} parts: {factory.nodes:,} nodes, {factory.edges:,} edges, "
        f"{factory.standings:,} states told, {factory.bytes / 2**30:.2f} GiB, put straight into "
        f"the tables in {factory.seconds:.0f} s; 1 % of the consumptions corrected later",
        f"questions: p50 of {arguments.rounds}, another root each time, pages in memory; limit: "
        "the bare SQL of the same question on the same tables, fetched by asyncpg, undecoded, "
        "beside what the trace reads before objects are made of it (packed)",
        "folding: real events of three links and one state, through the projection, in "
        f"transactions of {BATCH_EVENTS:,}",
    ]
    return factory


async def _loaded(pool: Pool, ledger: Ledger, folder: Path, parts: int) -> Factory:
    """Load `parts` parts, or return what an earlier run has loaded into `folder`."""
    told = folder / "factory.json"
    if told.exists():
        kept = Factory(**json.loads(told.read_text()))
        if kept.parts != parts - parts % ASSEMBLY:
            raise SystemExit(f"{folder} holds {kept.parts:,} parts: ask for as many")
        return kept
    factory = await load(pool, ledger, parts)
    told.write_text(json.dumps(factory._asdict()))
    return factory


# --- questions ----------------------------------------------------------------------------


class Asked(NamedTuple):
    """A question, its bare SQL, its goal in ms, and for one as of then the same as of now."""

    question: Question
    bare: Question
    goal_ms: float | None
    rounds: int
    p99: bool = False
    now: Question | None = None


async def _ask(report: Report, ledger: Ledger, factory: Factory, rounds: int) -> None:
    """Ask each question beside its bare SQL, turn by turn."""
    async with ledger.pool.acquire() as pinned:
        # Left to itself the planner reads all links, or half of them by position, for a trace.
        for plan in _NOT_PLANNED:
            await pinned.execute(f"set {plan} = off")
        for name, asked in _questions(ledger, pinned, factory, rounds).items():
            await _ask_beside(report, name, asked)
            if asked.now is not None:
                now, then = await _compared((asked.now, asked.question), asked.rounds)
                report.figures[f"{name}_by_current"] = Figure(
                    p50_ms(then) / p50_ms(now), "x", goal=1.15, ceiling=True
                )
        for plan in _NOT_PLANNED:
            await pinned.execute(f"reset {plan}")
    figures = report.figures
    worst = max(figure.ratio or 0.0 for figure in figures.values())
    figures["worst_ratio_to_bare"] = Figure(worst, "x", goal=1.3, ceiling=True)


_NOT_PLANNED: Final = ("enable_hashjoin", "enable_mergejoin", "enable_bitmapscan")


async def _ask_beside(report: Report, name: str, asked: Asked) -> None:
    """Ask as it comes, with objects made of it, and bare."""

    async def with_objects(turn: int) -> object:
        return await answered(asked.question, turn)

    packed, own, bare = await _compared((asked.question, with_objects, asked.bare), asked.rounds)
    report.figures[name] = Figure(p50_ms(own), "ms", goal=asked.goal_ms, ceiling=True)
    report.figures[f"{name}_packed"] = Figure(p50_ms(packed), "ms", p50_ms(bare), ceiling=True)
    if asked.p99:
        report.figures[f"{name}_p99"] = Figure(p99_ms(own), "ms", goal=asked.goal_ms, ceiling=True)


def _questions(
    ledger: Ledger, pinned: Connection, factory: Factory, rounds: int
) -> dict[str, Asked]:
    draw = random.Random(7)
    coils = range(0, factory.parts - COIL_PARTS + 1, COIL_PARTS) or range(1)
    heats = range(0, factory.parts - HEAT_PARTS + 1, HEAT_PARTS) or range(1)
    tops = [top_of(draw.randrange(factory.parts // ASSEMBLY)) for _ in range(rounds)]

    def coil(turn: int) -> int:
        return coils[turn * 7 % len(coils)]

    def heat(turn: int) -> str:
        return heat_key(heats[turn % len(heats)])

    def then(first: int, count: int) -> int:
        """Return a position soon after `count` parts from `first` on were finished."""
        return min((first + count + 2 * ASSEMBLY) * POSITIONS, factory.position)

    def back(turn: int, position: int | None = None) -> Awaitable[object]:
        return trace(
            ledger,
            [part_key(tops[turn])],
            direction=Direction.BACK,
            as_of=AsOf(position=position),
        )

    def nodes(turn: int, position: int | None = None) -> Awaitable[object]:
        return trace(
            ledger,
            [coil_key(coil(turn))],
            direction=Direction.FORWARD,
            as_of=AsOf(position=position),
            nodes_max=NODES_MAX,
        )

    return {
        "back_trace": Asked(
            back,
            lambda turn: _bare(pinned, _BARE_GRAPH, True, part_key(tops[turn])),
            25,
            rounds,
            p99=True,
        ),
        "back_trace_as_of": Asked(
            lambda turn: back(turn, then(tops[turn], 0)),
            lambda turn: _bare(
                pinned, _BARE_GRAPH, True, part_key(tops[turn]), then(tops[turn], 0)
            ),
            None,
            rounds,
            now=back,
        ),
        "recall_10k_as_counts": Asked(
            lambda turn: recall(ledger, [coil_key(coil(turn))]),
            lambda turn: _bare(pinned, _BARE_COUNTS, False, coil_key(coil(turn))),
            50,
            rounds,
        ),
        "recall_10k_as_nodes": Asked(
            nodes,
            lambda turn: _bare(pinned, _BARE_GRAPH, False, coil_key(coil(turn))),
            150,
            max(rounds // 2, 5),
        ),
        "recall_10k_as_nodes_as_of": Asked(
            lambda turn: nodes(turn, then(coil(turn), COIL_PARTS)),
            lambda turn: _bare(
                pinned, _BARE_GRAPH, False, coil_key(coil(turn)), then(coil(turn), COIL_PARTS)
            ),
            None,
            max(rounds // 2, 5),
            now=nodes,
        ),
        "recall_100k_as_counts": Asked(
            lambda turn: recall(ledger, [heat(turn)]),
            lambda turn: _bare(pinned, _BARE_COUNTS, False, heat(turn)),
            450,
            max(rounds // 10, 5),
        ),
        "chain_of_50": Asked(
            lambda turn: trace(ledger, [chain_key(coil(turn))], direction=Direction.BACK),
            lambda turn: _bare(pinned, _BARE_GRAPH, True, chain_key(coil(turn))),
            10,
            5 * rounds,  # of a millisecond each
        ),
    }


async def _compared(questions: Sequence[Question], rounds: int) -> list[list[float]]:
    """Return the seconds of `rounds` answers of each, in turn, so that all see one machine.

    Each comes first as often as last: whoever comes first finds pages that the processor has not
    looked at lately.
    """
    for warm in range(min(rounds, 10)):
        for question in questions:
            await question(warm)
    took: list[list[float]] = [[] for _ in questions]
    for turn in range(rounds):
        for n in range(len(questions)):
            which = (n + turn) % len(questions)
            began = time.perf_counter()
            await questions[which](turn)
            took[which].append(time.perf_counter() - began)
    return took


async def _ask_live(
    report: Report, ledger: Ledger, database_url: str, factory: Factory, rounds: int
) -> None:
    """Ask some of the questions beside a feed."""
    async with ledger.pool.acquire() as pinned:
        questions = _questions(ledger, pinned, factory, max(rounds, LIVE_ROUNDS))
    asked = {
        name: Live(questions[name].question, max(rounds, LIVE_ROUNDS))
        for name in ("back_trace", "recall_10k_as_counts", "chain_of_50")
    }
    await ask_beside_feed(report, database_url, ledger, factory, asked)


_BARE_CLOSURE: Final = """
    with recursive t(node) as (
        select id from thread_node where key = $1 and ledger_id = $4
        union
        select e.{far} from t join thread_edge e on e.{near} = t.node
            and e.kind = any($2::smallint[]) and e.rec_to > $3 and e.rec_from <= $3
    ), b as (select node from t limit 1000001)
"""
_BARE_STATE: Final = """
    case when n.state_from <= $3 then n.state else (
        select s.state from thread_standing s
        where s.node = n.id and s.rec_from <= $3 and s.rec_to > $3
        order by s.valid_from desc, s.place desc limit 1) end
"""
_BARE_COUNTS: Final = f"""
    {_BARE_CLOSURE}
    select n.kind, {_BARE_STATE} as state, count(*) from thread_node n
    where n.id = any(array(select node from b)) group by 1, 2
"""
_BARE_GRAPH: Final = f"""
    {_BARE_CLOSURE}, v as materialized (select array_agg(node) as nodes from b)
    select n.*, e.* from (
        select string_agg(int8send(n.id), ''), string_agg(int2send(n.kind), ''),
            string_agg(int2send({_BARE_STATE}), ''), array_agg(n.key),
            string_agg(int8send(n.first_position), '')
        from thread_node n where n.id = any((select nodes from v)::bigint[])
    ) n, (
        select string_agg(int8send(e.src), ''), string_agg(int8send(e.dst), ''),
            string_agg(int2send(e.kind), ''), string_agg(int8send(e.rec_from), ''),
            string_agg(timestamptz_send(e.valid_from), ''), array_agg(e.valid_to),
            array_agg(e.quantity), array_agg(e.unit)
        from thread_edge e where e.{{near}} = any((select nodes from v)::bigint[])
            and e.kind = any($2::smallint[]) and e.rec_to > $3 and e.rec_from <= $3
    ) e
"""


async def _bare(
    connection: Connection, statement: str, back: bool, key: str, position: int | None = None
) -> object:
    near, far = ("dst", "src") if back else ("src", "dst")
    return await connection.fetch(
        statement.format(near=near, far=far),
        key,
        BACK_LINKS if back else FORWARD_LINKS,
        2**63 - 2 if position is None else position,
        1,
    )


# --- over HTTP ----------------------------------------------------------------------------

_TRACE: Final = """
query Trace($roots: [String!]!, $direction: TraceDirection!, $first: Int!) {
  trace(roots: $roots, direction: $direction, first: $first) {
    position cut cursor
    nodeColumns { keys kinds states depths firstPositions }
    linkColumns { kinds causes effects quantities units validFrom validTo positions }
  }
}
"""
_RECALL: Final = """
query Recall($roots: [String!]!) {
  recall(roots: $roots) { total cut position counts { kind state count } }
}
"""


async def _ask_over_http(
    report: Report, folder: Path, database_url: str, factory: Factory, rounds: int
) -> None:
    """Ask the same over GraphQL; the limit is the answer in Python, just measured."""
    port = _free_port()
    environment = {
        "HEDDLE_DATABASE_URL": database_url,
        "HEDDLE_DATA_DIR": str(folder / "served"),
        "HEDDLE_LEDGER": LEDGER,
        "HEDDLE_PORT": str(port),
    }
    coils = range(0, factory.parts - COIL_PARTS + 1, COIL_PARTS) or range(1)
    asked: dict[str, tuple[str, Callable[[int], dict[str, Any]], int]] = {
        "back_trace": (
            _TRACE,
            lambda turn: {
                "roots": [part_key(top_of(turn * 31 % (factory.parts // ASSEMBLY)))],
                "direction": "BACK",
                "first": 10_000,
            },
            rounds,
        ),
        "recall_10k_as_counts": (
            _RECALL,
            lambda turn: {"roots": [coil_key(coils[turn * 7 % len(coils)])]},
            rounds,
        ),
        "recall_10k_as_nodes": (
            _TRACE,
            lambda turn: {
                "roots": [coil_key(coils[turn * 7 % len(coils)])],
                "direction": "FORWARD",
                "first": NODES_MAX,
            },
            max(rounds // 2, 5),
        ),
        "chain_of_50": (
            _TRACE,
            lambda turn: {
                "roots": [chain_key(coils[turn * 7 % len(coils)])],
                "direction": "BACK",
                "first": 500,
            },
            rounds,
        ),
    }
    with _serving(["-m", "api.cli", "serve"], environment, port) as (_, url):
        async with httpx.AsyncClient(timeout=60) as client:
            for name, (document, variables, times) in asked.items():
                took = []
                for turn in range(-3, times):
                    began = time.perf_counter()
                    answer = await client.post(
                        f"{url}/graphql",
                        json={"query": document, "variables": variables(max(turn, 0))},
                    )
                    if turn >= 0:
                        took.append(time.perf_counter() - began)
                    if answer.status_code != 200 or b'"errors"' in answer.content[:200]:
                        raise SystemExit(f"{name}: {answer.text[:500]}")
                inside = report.figures[name]
                goal = None if inside.goal is None else 2 * inside.goal
                report.figures[f"{name}_over_http"] = Figure(
                    p50_ms(took), "ms", inside.value, goal, ceiling=True
                )


# --- folding ------------------------------------------------------------------------------


async def _fold(report: Report, ledger: Ledger, factory: Factory, count: int) -> None:
    """Fold events of three links each, near the present and spread over old parts."""
    draw = random.Random(11)
    recent = max(factory.parts - 2_000, 0)
    for name, goal, part in (
        ("fold_near_the_present", 20_000, lambda: draw.randrange(recent, factory.parts)),
        ("fold_spread_over_old_parts", 12_000, lambda: draw.randrange(factory.parts)),
    ):
        first = await ledger.head()
        new = list(itertools.islice(three_links_each(name[5:9], part, first), count))
        for at in range(0, count, BATCH_EVENTS):
            await ledger.append(new[at : at + BATCH_EVENTS])
        links, cpu_s, wall_s = await _fold_all(ledger, factory, first)
        report.figures[name] = Figure(count / wall_s, "events/s", goal=goal)
        report.figures[f"{name}_python"] = Figure(cpu_s / count * 1e6, "us/event of this process")
        report.notes.append(f"{name}: {links / count:.2f} links an event")


async def _fold_all(ledger: Ledger, factory: Factory, after: int) -> tuple[int, float, float]:
    """Fold the log beyond `after`, numbered on behind what was loaded."""
    projection = ThreadProjection()
    before = await ledger.pool.fetchval("select count(*) from thread_edge where rec_from > $1", 0)
    cpu_s = wall_s = 0.0
    while page := await read_page(ledger, after, limit=BATCH_EVENTS, payloads=PayloadOf.FACTS):
        after = page[-1].position
        events = [moved(event, factory.position) for event in page]
        cpu, wall = time.process_time(), time.perf_counter()
        async with ledger.pool.acquire() as connection, connection.transaction():
            await connection.execute("set local synchronous_commit = off")
            await projection.fold(connection, ledger, events)
        cpu_s += time.process_time() - cpu
        wall_s += time.perf_counter() - wall
    told = await ledger.pool.fetchval("select count(*) from thread_edge where rec_from > $1", 0)
    return told - before, cpu_s, wall_s
