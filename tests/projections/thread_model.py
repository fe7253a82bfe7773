"""The thread in slow, plain Python, and histories to hold the projection against it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from domain.events import encode_fact, type_of
from domain.material.lot import LotConsumed, LotMerged, LotReceived, LotSplit
from domain.material.part import (
    PartAssembled,
    PartCreated,
    PartProcessed,
    PartRemoved,
    PartScrapped,
    PartStocked,
)
from domain.records import RecordCorrected
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing
from eventlog.envelope import NewEvent, new_fact
from eventlog.ledger import Ledger
from projections.thread.traced import Direction, Trace
from tests.projections.loop_frames import NOON

_NAMESPACE: Final = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NEVER: Final = datetime.max.replace(tzinfo=NOON.tzinfo)


# --- histories ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What happens next: a fact, or the correction of the step with the index `corrects`."""

    occurred_at: datetime
    fact: Any
    corrects: int | None = None


def at(minutes: float) -> datetime:
    """Return a moment of the history."""
    return NOON + timedelta(minutes=minutes)


def stream_of(fact: Any) -> str:
    """Return the stream that `fact` stands in."""
    return f"part:{fact.part_id}" if hasattr(fact, "part_id") else f"lot:{fact.lot_id}"


def event_of(step: Step, index: int, steps: Sequence[Step], label: object = "") -> NewEvent:
    """Return the event of `step`, the one with `index` of `steps`."""
    fact = step.fact
    if step.corrects is None:
        stream = stream_of(fact)
    else:
        corrected = step.corrects
        while steps[corrected].corrects is not None:  # where a correction stands too
            corrected = steps[corrected].corrects or 0
        stream = stream_of(steps[corrected].fact)
        fact = RecordCorrected(
            stream,
            uuid.uuid5(_NAMESPACE, f"{label}{step.corrects}"),
            step.corrects + 1,
            "misread",
            None if fact is None else type_of(fact).name,
            None if fact is None else type_of(fact).schema_version,
            None if fact is None else encode_fact(fact).decode(),
        )
    return new_fact(
        stream,
        fact,
        event_id=uuid.uuid5(_NAMESPACE, f"{label}{index}"),
        occurred_at=step.occurred_at,
        actor="user:mara",
    )


async def record(ledger: Ledger, steps: Sequence[Step]) -> None:
    """Append the events of `steps` to an empty log: the index and one are the position."""
    await ledger.append([event_of(step, index, steps) for index, step in enumerate(steps)])


_PARTS = st.sampled_from(["A", "B", "C", "D"])
_LOTS = st.sampled_from(["1", "2", "3"])
_RUNS = st.sampled_from(["X", "Y"])
_QUANTITIES = st.sampled_from([0.1, 2.5, 40.0])


@cache
def facts() -> st.SearchStrategy[Any]:
    """Draw a fact of a few parts, lots and runs, sensible or not."""
    return st.one_of(
        st.builds(
            PartCreated,
            _PARTS,
            st.just("PN-1"),
            st.sampled_from([None, "DRW@A", "DRW@B"]),
            st.none() | _RUNS,
            st.none() | _LOTS,
        ),
        st.builds(PartProcessed, _PARTS, _RUNS),
        st.builds(PartStocked, _PARTS),
        st.builds(PartScrapped, _PARTS, st.just("bent")),
        st.builds(PartAssembled, _PARTS, _PARTS, st.just("left")),
        st.builds(PartRemoved, _PARTS, _PARTS, st.just("worn")),
        st.builds(
            LotReceived,
            _LOTS,
            st.just("steel"),
            _QUANTITIES,
            st.just("kg"),
            st.just("Smelt Ltd"),
            st.just("S-1"),
            st.none() | st.just("CERT@A"),
        ),
        st.builds(LotConsumed, _LOTS, _RUNS, _QUANTITIES, st.sampled_from(["kg", "m"]), st.none()),
        st.builds(LotSplit, _LOTS, _LOTS, _QUANTITIES, st.just("kg")),
        st.builds(LotMerged, _LOTS, _LOTS, _QUANTITIES, st.just("kg")),
    )


@st.composite
def histories(draw: st.DrawFn, *, corrected: bool = True) -> list[Step]:
    """Draw steps in any order of valid time, every fourth or so correcting an earlier one."""
    steps: list[Step] = []
    for moment, fact, corrects, of in draw(_draws()):
        if corrected and corrects == 0 and steps:
            steps.append(Step(at(moment), None if of % 7 == 0 else fact, of % len(steps)))
        else:
            steps.append(Step(at(moment), fact))
    return steps


@cache
def _draws() -> st.SearchStrategy[list[tuple[int, Any, int, int]]]:
    step = st.tuples(st.integers(0, 5), facts(), st.integers(0, 3), st.integers(0, 10_000))
    return st.lists(step, min_size=1, max_size=24)


# --- the thread as it is known ------------------------------------------------------------


@dataclass(frozen=True)
class KnownLink:
    """A link as it was known."""

    kind: LinkKind
    cause: str
    effect: str
    quantity: float | None
    unit: str | None
    valid_from: datetime
    valid_to: datetime | None
    position: int
    ended_position: int | None


@dataclass(frozen=True)
class KnownThread:
    """All that was known as of a position and, maybe, true at a time."""

    first_position: dict[str, int]
    state: dict[str, NodeState]
    links: list[KnownLink]

    def reached(
        self, roots: Iterable[str], direction: Direction, kinds: Iterable[LinkKind]
    ) -> dict[str, int]:
        """Return the nodes that a trace reaches, by how many links away they are."""
        if direction is Direction.BOTH:
            back = self.reached(roots, Direction.BACK, kinds)
            forward = self.reached(roots, Direction.FORWARD, kinds)
            return {
                key: min(back.get(key, 99), forward.get(key, 99)) for key in {**back, **forward}
            }
        depths = {root: 0 for root in roots if root in self.first_position}
        followed = [self.influence(link) for link in self.links if link.kind in kinds]
        if direction is Direction.BACK:
            followed = [(effect, cause) for cause, effect in followed]
        grown = True
        while grown:
            grown = False
            for near, far in followed:
                if near in depths and depths[near] + 1 < depths.get(far, 99):
                    depths[far] = depths[near] + 1
                    grown = True
        return depths

    @staticmethod
    def influence(link: KnownLink) -> tuple[str, str]:
        """Return what bears on what: a run on the part that went through it."""
        if link.kind in (LinkKind.PROCESSED_BY, LinkKind.INSPECTED_BY):
            return link.effect, link.cause
        return link.cause, link.effect


def known_thread(
    steps: Sequence[Step], position: int, valid_at: datetime | None = None
) -> KnownThread:
    """Return what `steps` say up to `position`, of what was true at `valid_at`."""
    said: dict[int, tuple[int, datetime, Any]] = {}
    first: dict[str, int] = {}
    for index, step in enumerate(steps[:position]):
        if step.corrects is not None and steps[step.corrects].corrects is not None:
            continue  # a correction is never corrected
        place = index if step.corrects is None else step.corrects
        said[place] = (index + 1, step.occurred_at, step.fact)
        for item in () if step.fact is None else step.fact.thread():
            names = (item.node,) if isinstance(item, Standing) else (item.cause, item.effect)
            for name in names:
                first.setdefault(name, index + 1)
    told = [
        (valid, place, at_position, item)
        for place, (at_position, valid, fact) in said.items()
        if fact is not None
        for item in fact.thread()
    ]
    links = []
    for valid, place, at_position, link in told:
        if not isinstance(link, Link):
            continue
        ends = sorted(
            (end_valid, end_place, end_position)
            for end_valid, end_place, end_position, end in told
            if isinstance(end, LinkEnd)
            and (end.kind, end.cause, end.effect) == (link.kind, link.cause, link.effect)
            and (end_valid, end_place) > (valid, place)
        )
        known = KnownLink(
            link.kind,
            link.cause,
            link.effect,
            link.quantity,
            link.unit,
            valid,
            ends[0][0] if ends else None,
            at_position,
            ends[0][2] if ends else None,
        )
        if valid_at is None or valid <= valid_at < (known.valid_to or NEVER):
            links.append(known)
    state = dict.fromkeys(first, NodeState.MENTIONED)
    standings = [(v, place, item) for v, place, _, item in told if isinstance(item, Standing)]
    for valid, _, standing in sorted(standings, key=lambda told: told[:2]):
        if valid_at is None or valid <= valid_at:
            state[standing.node] = standing.state
    return KnownThread(first, state, links)


# --- comparing ----------------------------------------------------------------------------


def assert_is(
    traced: Trace,
    known: KnownThread,
    roots: Sequence[str],
    direction: Direction,
    kinds: Sequence[LinkKind],
    depth: int | None = None,
) -> None:
    """Assert that `traced` is what follows from `known`: every node, link, state and number."""
    reached = known.reached(roots, direction, kinds)
    if depth is not None:
        reached = {key: lies for key, lies in reached.items() if lies <= depth}
    assert {node.key: (node.state, node.depth, node.first_position) for node in traced.nodes} == {
        key: (known.state[key], lies, known.first_position[key]) for key, lies in reached.items()
    }
    assert len(traced.nodes) == len(reached)

    def within(direction: Direction) -> set[str]:
        return reached.keys() & known.reached(roots, direction, kinds).keys()

    sides = [Direction.BACK, Direction.FORWARD] if direction is Direction.BOTH else [direction]
    expected = {
        tuple(vars(link).values())
        for side in sides
        for link in known.links
        if link.kind in kinds and {link.cause, link.effect} <= within(side)
    }
    assert {tuple(edge) for edge in traced.edges} == expected
    assert len(traced.edges) == len(expected)


def without_positions(traced: Trace) -> tuple[set[Any], set[Any]]:
    """Return nodes and links of `traced` but for when the log learnt of them."""
    return (
        {(node.key, node.state, node.depth) for node in traced.nodes},
        {
            (e.kind, e.cause, e.effect, e.quantity, e.unit, e.valid_from, e.valid_to)
            for e in traced.edges
        },
    )
