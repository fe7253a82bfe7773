"""What a batch of events says of the thread, and since when each link is known to have ended.

Pure: keys in, facts out; the rows are `projections.thread.projection`'s. Times are microseconds
since 2000, as PostgreSQL holds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from domain.records import RecordCorrected
from domain.thread import BEARS_ON_CAUSE, Link, LinkEnd, LinkKind, NodeState, Standing
from eventlog.envelope import RecordedEvent

OPEN: Final = 2**63 - 1
"""`rec_to` of what is known still."""


class LinkTold(NamedTuple):
    """An event told that `src` bears on `dst`; `place` is where a correction stands in the log."""

    src: str
    dst: str
    kind: LinkKind
    valid_us: int
    position: int
    place: int
    quantity: float | None
    unit: str | None


class EndTold(NamedTuple):
    """An event told that the link between the two had ended."""

    src: str
    dst: str
    kind: LinkKind
    valid_us: int
    position: int
    place: int


class StandingTold(NamedTuple):
    """An event told how a node stands; ordered as states follow each other."""

    valid_us: int
    place: int
    position: int
    state: NodeState
    node: str


@dataclass
class Told:
    """What a batch of events says.

    Parameters
    ----------
    mentions : nodes in the order in which they are named, each with the position that does
    corrections : (position of the correction, of what it corrects), in order
    void_corrections : the same of those that correct a correction, and so count for nothing
    """

    mentions: dict[str, int] = field(default_factory=dict)
    links: list[LinkTold] = field(default_factory=list)
    ends: list[EndTold] = field(default_factory=list)
    standings: list[StandingTold] = field(default_factory=list)
    corrections: list[tuple[int, int]] = field(default_factory=list)
    void_corrections: list[tuple[int, int]] = field(default_factory=list)


def gather(events: Iterable[RecordedEvent], corrections: Collection[int]) -> Told:
    """Return what `events` say, in their order.

    Parameters
    ----------
    corrections : positions of corrections before `events`; what corrects one of them counts for
        nothing, as `domain.records.effective` has it
    """
    told = Told()
    known = set(corrections)
    for event in events:
        fact = event.fact
        place = event.position
        if type(fact) is RecordCorrected:
            place = fact.corrected_position
            known.add(event.position)
            if place in known:
                told.void_corrections.append((event.position, place))
                continue
            told.corrections.append((event.position, place))
            fact = fact.fact()
        say = getattr(fact, "thread", None)
        if say is not None:
            _add(told, event, place, say())
    return told


def _add(told: Told, event: RecordedEvent, place: int, items: Sequence[object]) -> None:
    position = event.position
    valid_us = event.occurred_us
    mention = told.mentions.setdefault
    first_link, first_standing = len(told.links), len(told.standings)
    for item in items:
        if isinstance(item, Link):
            mention(item.cause, position)
            mention(item.effect, position)
            ends = (item.cause, item.effect)
            src, dst = ends[::-1] if item.kind in BEARS_ON_CAUSE else ends
            told.links.append(
                LinkTold(src, dst, item.kind, valid_us, position, place, item.quantity, item.unit)
            )
        elif isinstance(item, Standing):
            mention(item.node, position)
            told.standings.append(StandingTold(valid_us, place, position, item.state, item.node))
        elif isinstance(item, LinkEnd):
            mention(item.cause, position)
            mention(item.effect, position)
            ends = (item.cause, item.effect)
            src, dst = ends[::-1] if item.kind in BEARS_ON_CAUSE else ends
            told.ends.append(EndTold(src, dst, item.kind, valid_us, position, place))
        else:
            raise TypeError(f"{type(item).__name__} says nothing of the thread")
    if len(told.links) > first_link + 1:
        told.links[first_link:] = _summed(told.links[first_link:])
    if len(told.standings) > first_standing + 1:
        last = {standing.node: standing for standing in told.standings[first_standing:]}
        told.standings[first_standing:] = last.values()


def _summed(links: Sequence[LinkTold]) -> Iterable[LinkTold]:
    """Return `links` of one event, those between the same two in the same unit as one."""
    summed: dict[tuple[str, str, LinkKind, str | None], LinkTold] = {}
    for link in links:
        key = (link.src, link.dst, link.kind, link.unit)
        before = summed.get(key)
        if before is not None:
            if link.quantity is not None:
                link = link._replace(quantity=link.quantity + (before.quantity or 0.0))
            else:
                link = before
        summed[key] = link
    return summed.values()


def last_standings(standings: Iterable[StandingTold]) -> dict[str, StandingTold]:
    """Return for each node the standing that holds when all are known: the latest that was true."""
    last: dict[str, StandingTold] = {}
    for standing in standings:
        before = last.get(standing.node)
        if before is None or standing > before:
            last[standing.node] = standing
    return last


# --- ends of links ------------------------------------------------------------------------


class LinkFact(NamedTuple):
    """A link between two nodes as one event told it, known from `said` until before `until`."""

    valid_us: int
    said: int
    until: int
    place: int
    quantity: float | None
    unit: str | None


class EndFact(NamedTuple):
    """An end of links between two nodes, known from `said` until before `until`."""

    valid_us: int
    place: int
    said: int
    until: int


class Version(NamedTuple):
    """A link as it was known from `rec_from` until before `rec_to`."""

    link: LinkFact
    rec_from: int
    rec_to: int
    valid_to_us: int | None
    ended_at: int | None


def versions(link: LinkFact, ends: Sequence[EndFact]) -> list[Version]:
    """Return what was known of `link`'s end, one version after the other.

    A link ends at the first end after its beginning, in valid time; of one time the log's order
    counts, in which a correction stands where what it corrects does.
    """
    begun = (link.valid_us, link.place)
    after = sorted(end for end in ends if (end.valid_us, end.place) > begun)
    turns = {link.said}
    for end in after:
        turns.update(at for at in (end.said, end.until) if link.said < at < link.until)
    found: list[Version] = []
    for turn in sorted(turns):
        first = next((end for end in after if end.said <= turn < end.until), None)
        valid_to_us, ended_at = (None, None) if first is None else (first.valid_us, first.said)
        if found and (found[-1].valid_to_us, found[-1].ended_at) == (valid_to_us, ended_at):
            continue
        if found:
            found[-1] = found[-1]._replace(rec_to=turn)
        found.append(Version(link, turn, link.until, valid_to_us, ended_at))
    return found
