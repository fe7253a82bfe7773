"""A trace's graph as a drawing: causes on the left, effects on the right, in SVG.

The layout is deterministic and bounded: what lies too far away or does not fit into its column
is drawn as one box that says how many of what it stands for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from domain.thread import NodeKind
from eventlog.bundles.traces import BundleEdge, BundleNode

LAYERS_EACH_WAY: Final = 6
BOXES_PER_LAYER: Final = 18
COLUMN: Final = 210
ROW: Final = 46
BOX_WIDTH: Final = 164
BOX_HEIGHT: Final = 34
MARGIN: Final = 16
LABEL_LENGTH_MAX: Final = 21
SWEEPS: Final = 4

COLOURS: Final[Mapping[str, str]] = {
    "DOCUMENT": "#e8e3f5",
    "LOT": "#fdebd0",
    "PART": "#d9ecff",
    "PROCESS_RUN": "#e3f4e1",
    "ASSET": "#eceff1",
    "COMPONENT": "#eceff1",
    "INSPECTION": "#fff8d6",
    "NONCONFORMANCE": "#fbdcdc",
    "SHIPMENT": "#d8f3f0",
    "FAILURE": "#f7c6c6",
}
OTHER_COLOUR: Final = "#f4f4f4"
FIRST_KINDS: Final = ("PART", "LOT", "FAILURE", "NONCONFORMANCE", "SHIPMENT", "INSPECTION")
"""What a column shows first; documents and machines, which all have, come last."""

LAST_KINDS: Final = ("DOCUMENT", "ASSET", "INSTRUMENT", "MODEL")
LOUD_STATES: Final = frozenset({"QUARANTINED", "SCRAPPED", "FAILED", "DEFECTIVE", "CRITICAL"})


@dataclass
class Box:
    """What is drawn at one place: a thing, or how many of a kind it stands for."""

    key: str
    label: str
    note: str
    kind: str
    loud: bool = False
    dashed: bool = False
    layer: int = 0
    row: int = 0


@dataclass
class Drawing:
    """Boxes and lines between them, and how many things are not drawn on their own."""

    boxes: list[Box] = field(default_factory=list)
    lines: list[tuple[Box, Box, str]] = field(default_factory=list)
    summarised: int = 0


def draw(
    nodes: Sequence[BundleNode], edges: Sequence[BundleEdge], roots: Sequence[str]
) -> tuple[str, int]:
    """Return the graph as an SVG element, and how many things it only counts."""
    drawing = lay_out(nodes, edges, roots)
    return _svg(drawing, set(roots)), drawing.summarised


def lay_out(
    nodes: Sequence[BundleNode], edges: Sequence[BundleEdge], roots: Sequence[str]
) -> Drawing:
    """Return where everything stands; the same graph gives the same drawing."""
    layer_of = _layers([node.key for node in nodes], edges, roots)
    drawing = Drawing()
    box_of: dict[str, Box] = {}
    by_layer: dict[int, list[BundleNode]] = defaultdict(list)
    for node in nodes:
        by_layer[layer_of[node.key]].append(node)
    for layer in sorted(by_layer):
        shown, counted = _choose(by_layer[layer], layer, set(roots))
        for node in shown:
            box = _box(node, layer)
            box_of[node.key] = box
            drawing.boxes.append(box)
        for kind, members in counted:
            box = Box(f"{layer}/{kind}", _counted(kind, len(members)), "", kind, dashed=True)
            box.layer = layer
            drawing.boxes.append(box)
            drawing.summarised += len(members)
            box_of |= dict.fromkeys((member.key for member in members), box)
    drawing.lines = _lines(edges, box_of)
    _order(drawing)
    return drawing


def _layers(
    keys: Sequence[str], edges: Sequence[BundleEdge], roots: Sequence[str]
) -> dict[str, int]:
    """Return how many links each thing lies before (below 0) or behind the roots."""
    causes: dict[str, list[str]] = defaultdict(list)
    effects: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        causes[edge.effect].append(edge.cause)
        effects[edge.cause].append(edge.effect)
    found = dict.fromkeys(roots, 0)
    for step, neighbours in ((-1, causes), (1, effects)):
        _walk(found, list(roots), neighbours, step)
    # What is linked the other way round than the trace went stands beside what it is linked to.
    frontier = list(found)
    while frontier:
        reached = []
        for key in frontier:
            for step, neighbours in ((-1, causes), (1, effects)):
                for other in neighbours[key]:
                    if other not in found:
                        found[other] = found[key] + step
                        reached.append(other)
        frontier = reached
    bound = LAYERS_EACH_WAY
    return {key: max(-bound, min(bound, found.get(key, bound))) for key in keys}


def _walk(
    found: dict[str, int], frontier: list[str], neighbours: Mapping[str, list[str]], step: int
) -> None:
    layer = 0
    while frontier:
        layer += step
        reached = []
        for key in frontier:
            for other in neighbours.get(key, ()):
                if other not in found:
                    found[other] = layer
                    reached.append(other)
        frontier = reached


def _choose(
    nodes: Sequence[BundleNode], layer: int, roots: set[str]
) -> tuple[Sequence[BundleNode], list[tuple[str, list[BundleNode]]]]:
    """Return which of a layer are drawn one by one, and the others by kind."""
    far = abs(layer) == LAYERS_EACH_WAY
    room = 0 if far and len(nodes) > BOXES_PER_LAYER else BOXES_PER_LAYER
    ranked = sorted(
        nodes,
        key=lambda node: (
            node.key not in roots,
            node.state not in LOUD_STATES,
            node.kind in LAST_KINDS,
            node.kind not in FIRST_KINDS,
            node.first_position,
            node.key,
        ),
    )
    shown, rest = ranked[:room], ranked[room:]
    kinds: dict[str, list[BundleNode]] = defaultdict(list)
    for node in rest:
        kinds[node.kind].append(node)
    return shown, sorted(kinds.items())


def _box(node: BundleNode, layer: int) -> Box:
    name = node.key.partition(":")[2] or node.key
    if len(name) > LABEL_LENGTH_MAX:
        name = f"{name[: LABEL_LENGTH_MAX - 1]}…"
    note = f"{_words(node.kind)}, {_words(node.state)}"
    loud, dashed = node.state in LOUD_STATES, node.state == "MENTIONED"
    return Box(node.key, name, note, node.kind, loud, dashed, layer)


def _counted(kind: str, count: int) -> str:
    return f"+ {count:,} {_words(kind)}{'' if count == 1 else 's'}"


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _lines(edges: Iterable[BundleEdge], box_of: Mapping[str, Box]) -> list[tuple[Box, Box, str]]:
    """Return one line for all links between two boxes."""
    between: dict[tuple[str, str], list[BundleEdge]] = defaultdict(list)
    ends: dict[tuple[str, str], tuple[Box, Box]] = {}
    for edge in edges:
        cause, effect = box_of.get(edge.cause), box_of.get(edge.effect)
        if cause is not None and effect is not None and cause is not effect:
            between[cause.key, effect.key].append(edge)
            ends[cause.key, effect.key] = cause, effect
    return [(*ends[pair], _told(links)) for pair, links in between.items()]


def _told(links: Sequence[BundleEdge]) -> str:
    if len(links) == 1:
        (link,) = links
        amount = "" if link.quantity is None else f" {link.quantity:g} {link.unit or ''}".rstrip()
        ended = "" if link.valid_to is None else f", until {link.valid_to}"
        return f"{_words(link.kind)}{amount}, since {link.valid_from}{ended}"
    kinds = Counter(link.kind for link in links)
    return ", ".join(f"{count} {_words(kind)}" for kind, count in sorted(kinds.items()))


def _order(drawing: Drawing) -> None:
    """Give each box its row: near to what it is linked to, in a few sweeps to and fro."""
    layers: dict[int, list[Box]] = defaultdict(list)
    for box in drawing.boxes:
        layers[box.layer].append(box)
    linked: dict[str, list[Box]] = defaultdict(list)
    for cause, effect, _ in drawing.lines:
        linked[cause.key].append(effect)
        linked[effect.key].append(cause)
    for boxes in layers.values():
        for row, box in enumerate(boxes):
            box.row = row
    for sweep in range(SWEEPS):
        for layer in sorted(layers, reverse=bool(sweep % 2)):
            wanted = {
                box.key: _middle([other.row for other in linked[box.key]], box.row)
                for box in layers[layer]
            }
            layers[layer].sort(key=lambda box: (wanted[box.key], box.row))
            for row, box in enumerate(layers[layer]):
                box.row = row


def _middle(rows: Sequence[int], otherwise: int) -> float:
    return sum(rows) / len(rows) if rows else float(otherwise)


# --- SVG ----------------------------------------------------------------------------------


def _svg(drawing: Drawing, roots: set[str]) -> str:
    if not drawing.boxes:
        return ""
    first = min(box.layer for box in drawing.boxes)
    columns = max(box.layer for box in drawing.boxes) - first + 1
    heights = Counter(box.layer for box in drawing.boxes)
    tallest = max(heights.values())
    width, height = columns * COLUMN + MARGIN, tallest * ROW + 2 * MARGIN
    place = {
        box.key: (
            MARGIN + (box.layer - first) * COLUMN,
            MARGIN + int((box.row + (tallest - heights[box.layer]) / 2) * ROW),
        )
        for box in drawing.boxes
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="Graph of the trace">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#607080"/></marker></defs>',
    ]
    parts += [
        _line(place[cause.key], place[effect.key], told) for cause, effect, told in drawing.lines
    ]
    parts += [_rectangle(box, *place[box.key], root=box.key in roots) for box in drawing.boxes]
    return "\n".join([*parts, "</svg>"])


def _line(start: tuple[int, int], end: tuple[int, int], told: str) -> str:
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2
    x2, y2 = end[0], end[1] + BOX_HEIGHT // 2
    if x2 <= x1:  # within a column, or back against the stream
        x1, x2 = start[0] + BOX_WIDTH // 2, end[0] + BOX_WIDTH // 2
        y1 = start[1] + (BOX_HEIGHT if end[1] > start[1] else 0)
        y2 = end[1] + (0 if end[1] > start[1] else BOX_HEIGHT)
        bend = f"C{x1 + 60} {y1} {x2 + 60} {y2}"
    else:
        bend = f"C{x1 + 40} {y1} {x2 - 40} {y2}"
    return (
        f'<path d="M{x1} {y1}{bend} {x2} {y2}" class="link" marker-end="url(#arrow)">'
        f"<title>{escape(told)}</title></path>"
    )


def _rectangle(box: Box, x: int, y: int, *, root: bool) -> str:
    fill = COLOURS.get(box.kind, OTHER_COLOUR)
    classes = " ".join(
        name
        for name, holds in (("box", True), ("root", root), ("loud", box.loud), ("few", box.dashed))
        if holds
    )
    middle = y + (BOX_HEIGHT // 2 + 4 if not box.note else 14)
    note = (
        f'<text x="{x + 8}" y="{y + 27}" class="note">{escape(box.note)}</text>' if box.note else ""
    )
    return (
        f'<g><title>{escape(box.key)}</title><rect x="{x}" y="{y}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="4" fill="{fill}" class="{classes}"/>'
        f'<text x="{x + 8}" y="{middle}">{escape(box.label)}</text>{note}</g>'
    )


assert set(COLOURS) <= {kind.name for kind in NodeKind}
