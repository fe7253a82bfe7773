"""The graph in a bundle of a trace: its rows, and what the events say of each link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from domain.records import RecordCorrected
from domain.thread import Link, LinkEnd, Threaded
from eventlog.bundles.lines import malformed


class BundleNode(NamedTuple):
    """A thing in a bundle's graph: how it stood, and how many links from the nearest root."""

    key: str
    kind: str
    state: str
    depth: int
    first_position: int


class BundleEdge(NamedTuple):
    """A link in a bundle's graph; times are RFC 3339, positions those of its events."""

    kind: str
    cause: str
    effect: str
    quantity: float | None
    unit: str | None
    valid_from: str
    valid_to: str | None
    position: int
    ended_position: int | None


_NODE_VALUES: Final = (str, str, str, int, int)
_EDGE_VALUES: Final = (
    *(str, str, str),
    *(int | float | None, str | None),
    *(str, str | None),
    *(int, int | None),
)


def nodes_of(rows: Any) -> list[BundleNode]:
    """Return the things that a line of a bundle holds.

    Raises
    ------
    InvalidInput
        ``bundle.malformed``
    """
    return [BundleNode(*row) for row in _rows(rows, _NODE_VALUES)]


def edges_of(rows: Any) -> list[BundleEdge]:
    """Return the links that a line of a bundle holds.

    Raises
    ------
    InvalidInput
        ``bundle.malformed``
    """
    return [BundleEdge(*row) for row in _rows(rows, _EDGE_VALUES)]


def _rows(rows: Any, values: Sequence[Any]) -> list[list[Any]]:
    if not isinstance(rows, list) or not all(
        isinstance(row, list)
        and len(row) == len(values)
        and all(map(isinstance, row, values))
        and not any(isinstance(value, bool) for value in row)
        for row in rows
    ):
        raise malformed("its graph has rows of values that it cannot have")
    return rows


# --- what events say ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """What an event says of links, as the graph writes them.

    Parameters
    ----------
    links : quantity by kind, cause, effect and unit; several of one event are one, summed
    ends : kind, cause and effect of links that end with it
    """

    links: Mapping[tuple[str, str, str, str | None], float | None]
    ends: Set[tuple[str, str, str]]


SAYS_NOTHING: Final = Said({}, frozenset())


def said_by(fact: Any) -> Said:
    """Return what `fact` says of links; a correction says what was true instead.

    Raises
    ------
    UnreadableEvent
        what a correction puts in place cannot be read
    """
    if isinstance(fact, RecordCorrected):
        fact = fact.fact()
    if not isinstance(fact, Threaded):
        return SAYS_NOTHING
    links: dict[tuple[str, str, str, str | None], float | None] = {}
    ends = set()
    for item in fact.thread():
        if isinstance(item, Link):
            key = (item.kind.name, item.cause, item.effect, item.unit)
            before = links.get(key)
            if item.quantity is None:
                links[key] = before
            else:
                links[key] = item.quantity + (before or 0.0)
        elif isinstance(item, LinkEnd):
            ends.add((item.kind.name, item.cause, item.effect))
    return Said(links, ends) if links or ends else SAYS_NOTHING


class SaidLinks:
    """What the events of a bundle say of links, by their positions."""

    def __init__(self) -> None:
        self._said: dict[int, Said | None] = {}
        self._occurred: dict[int, str] = {}

    def add(self, position: int, occurred_at: str, said: Said | None) -> None:
        """Take what the event at `position` says; None where its payload is not in the bundle."""
        self._said[position] = said
        self._occurred[position] = occurred_at

    def shows(self, edge: BundleEdge) -> bool:
        """Whether the payloads are here in which `edge` and its end, if it ended, are said."""
        return self._said.get(edge.position, SAYS_NOTHING) is not None and (
            edge.ended_position is None
            or self._said.get(edge.ended_position, SAYS_NOTHING) is not None
        )

    def fault_of(self, edge: BundleEdge) -> str | None:
        """Return how `edge` differs from what the events say that it names, or None.

        Of an event without payload only the time is known, and held against it.
        """
        named = f"{edge.cause} {edge.kind} {edge.effect}"
        if self._occurred.get(edge.position) != edge.valid_from:
            return f"event {edge.position} does not say that {named} since {edge.valid_from}"
        said = self._said[edge.position]
        key = (*edge[:3], edge.unit)
        if said is not None and (key not in said.links or said.links[key] != edge.quantity):
            return (
                f"event {edge.position} does not say that {named}, "
                f"quantity {edge.quantity}, unit {edge.unit}"
            )
        return self._fault_of_end(edge, named)

    def _fault_of_end(self, edge: BundleEdge, named: str) -> str | None:
        position = edge.ended_position
        if position is None:
            return None if edge.valid_to is None else f"no event is named that ended {named}"
        if edge.valid_to is None or self._occurred.get(position) != edge.valid_to:
            return f"event {position} does not say that {named} ended at {edge.valid_to}"
        said = self._said[position]
        if said is not None and edge[:3] not in said.ends:
            return f"event {position} does not say that {named} ended"
        return None
