"""Types of the thread: a trace as a graph, as objects or as columns, and a recall's counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

import strawberry

from api.graphql.context import OperationInfo
from api.graphql.fields import Row, field
from api.graphql.scalars import Column, Cursor, Position, described_enum
from api.graphql.thread.in_sight import trace_in_sight
from domain.errors import InvalidInput
from domain.events import format_time
from domain.thread import LinkKind, NodeKind, NodeState
from projections.as_of import AsOf
from projections.thread.trace import NODES_MAX
from projections.thread.traced import CutReason, Direction, Recall, Trace, TraceEdge, TraceNode

OBJECTS_MAX: Final = 2_000
"""Nodes, and links, that are told as objects; columns tell `NODES_MAX`."""

GRAPH_FIRST_DEFAULT: Final = 500

described_enum(
    Direction,
    "Which way a trace goes from its roots.",
    {
        "BACK": "To causes: what it is made of, with what, by whom, and how it was checked.",
        "FORWARD": "To effects: what it reached.",
        "BOTH": "The causes of the roots and the effects of the roots, not the causes of effects.",
    },
    name="TraceDirection",
)
described_enum(
    CutReason,
    "Why a trace does not hold all there is.",
    {
        "NODES": "It has as many nodes as were asked for.",
        "DEPTH": "What lies deeper was not wanted.",
        "SIGHT": "Some of it is beyond what you may see: see `outOfSight`.",
    },
    name="TraceCutReason",
)
described_enum(
    NodeKind,
    "What a thing in the thread is.",
    {
        "UNKNOWN": "A thing of no known kind.",
        "DOCUMENT": "A revision of a design, certificate, recipe or instruction.",
        "LOT": "Material by quantity.",
        "PART": "A thing with a serial number.",
        "PROCESS_RUN": "An operation carried out once.",
        "ASSET": "A machine.",
        "COMPONENT": "What is installed in an asset.",
        "INSPECTION": "What was measured and seen, and the verdict.",
        "NONCONFORMANCE": "What was found wrong.",
        "SHIPMENT": "What went to a customer together.",
        "FAILURE": "A failure in the field.",
        "ALERT": "A condition of an asset that somebody should look at.",
        "WORK_ORDER": "Maintenance to be done or done.",
        "PREDICTION": "What a model expected.",
        "MODEL": "A version of a model.",
        "SCENARIO": "A what-if.",
        "SETPOINT_PROPOSAL": "A set-point that was proposed.",
        "INSTRUMENT": "What is measured with.",
        "LOCATION": "A place in the plant.",
        "SPARE_PART": "What maintenance uses up.",
    },
)
described_enum(
    LinkKind,
    "How a cause led to an effect; each is told from its cause to its effect.",
    {
        "SPECIFIED": "Document to run, part, lot or inspection: what it is made or checked by.",
        "CERTIFIED": "Document to lot, part or instrument.",
        "CONSUMED_BY": "Lot to run, with its quantity.",
        "PROCESSED_BY": "Part to run. A trace back from a part leads through it to the run.",
        "PRODUCED": "Run to part or lot, with its quantity.",
        "PERFORMED": "Asset to run.",
        "SPLIT_INTO": "Lot to lot, with its quantity.",
        "MERGED_INTO": "Lot to lot, with its quantity.",
        "ASSEMBLED_INTO": "Part to part, until it is removed.",
        "INSPECTED_BY": "Part, lot or run to inspection. A trace back from what was inspected "
        "leads through it to the inspection.",
        "MEASURED_WITH": "Instrument to inspection.",
        "FOUND": "Inspection to non-conformance.",
        "CONCERNS": "Non-conformance to part, lot or run.",
        "SHIPPED_IN": "Part or lot to shipment.",
        "FAILED_AS": "Part to failure.",
        "INSTALLED_IN": "Component to asset, until it is removed.",
        "EMBODIED_BY": "Part to component.",
        "RAISED": "Asset to alert.",
        "LED_TO": "Alert, prediction or failure to work order; scenario to set-point proposal.",
        "SERVICED": "Work order to asset or component.",
        "PREDICTED": "Model to prediction or inspection.",
        "ABOUT": "Asset or component to prediction, scenario or set-point proposal.",
        "CONFIRMED_BY": "Work order to prediction: how it came out.",
        "USED_IN": "Spare part to work order, with its quantity.",
        "REWORKED_FOR": "Non-conformance to run.",
        "SUPERSEDED_BY": "Document to document.",
        "LOCATED_IN": "Asset to location, until it is moved.",
        "MADE_FROM": "Lot to part where no run is known, with its quantity.",
    },
)
described_enum(
    NodeState,
    "How a thing stands.",
    {
        "MENTIONED": "Only its name is known: nobody has said what it is.",
        "ACTIVE": "In use, open or valid.",
        "IN_PROCESS": "Being made.",
        "IN_STOCK": "Ready and not yet used.",
        "QUARANTINED": "Not to be used until it is released.",
        "ASSEMBLED": "Part of another part.",
        "SCRAPPED": "Thrown away.",
        "SHIPPED": "Gone to a customer.",
        "RETURNED": "Come back from a customer.",
        "FAILED": "Failed in the field.",
        "COMPLETED": "Done.",
        "ABORTED": "Given up.",
        "GOOD": "Inspected and good.",
        "DEFECTIVE": "Inspected and defective.",
        "CRITICAL": "Inspected and dangerous.",
        "SUPERSEDED": "Replaced by a later revision.",
        "CLOSED": "Dealt with.",
        "RETIRED": "Out of use for good.",
        "CONSUMED": "Used up.",
    },
)


@strawberry.type(description="A thing in a trace.")
class ThreadNode:
    """`projections.thread.trace.TraceNode`."""

    ROW: ClassVar[Row] = Row(TraceNode, dict.fromkeys((*TraceNode._fields, "missing")))

    key: str = strawberry.field(
        description="Its stream or revision, such as `part:SN-1042` or `document:DRW-7@B`."
    )
    kind: NodeKind = strawberry.field(description="What it is.")
    state: NodeState = strawberry.field(description="How it stood.")
    depth: int = strawberry.field(description="Links from the nearest root; 0 for a root.")
    first_position: Position = strawberry.field(
        description="Position of the event that first mentioned it."
    )
    missing: bool = strawberry.field(
        description="Whether only its name is known: mentioned by others, described by nobody."
    )

    @classmethod
    def of(cls, node: TraceNode) -> ThreadNode:
        """Return `node` as the schema has it."""
        return cls(
            key=node.key,
            kind=node.kind,
            state=node.state,
            depth=node.depth,
            first_position=Position(node.first_position),
            missing=node.missing,
        )


@strawberry.type(description="A link between two things in a trace.")
class ThreadLink:
    """`projections.thread.trace.TraceEdge`."""

    ROW: ClassVar[Row] = Row(TraceEdge, dict.fromkeys(TraceEdge._fields))

    kind: LinkKind = strawberry.field(description="How the cause led to the effect.")
    cause: str = strawberry.field(description="Key of the cause.")
    effect: str = strawberry.field(description="Key of the effect.")
    quantity: float | None = strawberry.field(
        description="How much, in `unit`, as it was recorded; null where that makes no sense."
    )
    unit: str | None = strawberry.field(description="Unit of the quantity, as it was recorded.")
    valid_from: datetime = strawberry.field(description="Since when it was true.")
    valid_to: datetime | None = strawberry.field(
        description="Until when it was true; null: it has not ended."
    )
    position: Position = strawberry.field(
        description="Position of the event that says so, which may be a correction."
    )
    ended_position: Position | None = strawberry.field(
        description="Position of the event that says that it ended."
    )

    @classmethod
    def of(cls, edge: TraceEdge) -> ThreadLink:
        """Return `edge` as the schema has it."""
        return cls(
            kind=edge.kind,
            cause=edge.cause,
            effect=edge.effect,
            quantity=edge.quantity,
            unit=edge.unit,
            valid_from=edge.valid_from,
            valid_to=edge.valid_to,
            position=Position(edge.position),
            ended_position=(None if edge.ended_position is None else Position(edge.ended_position)),
        )


@strawberry.type(description="The things in a trace as parallel columns; as `ThreadNode` has them.")
class ThreadNodeColumns:
    """Nodes, a list a column."""

    keys: Column = strawberry.field(description="Keys: texts.")
    kinds: Column = strawberry.field(description="What each is: names of `NodeKind`.")
    states: Column = strawberry.field(description="How each stood: names of `NodeState`.")
    depths: Column = strawberry.field(description="Links from the nearest root: integers.")
    first_positions: Column = strawberry.field(description="First mentions: positions.")


@strawberry.type(description="The links in a trace as parallel columns; as `ThreadLink` has them.")
class ThreadLinkColumns:
    """Links, a list a column."""

    kinds: Column = strawberry.field(description="Kinds: names of `LinkKind`.")
    causes: Column = strawberry.field(description="Keys of the causes: texts.")
    effects: Column = strawberry.field(description="Keys of the effects: texts.")
    quantities: Column = strawberry.field(description="Quantities: numbers or null.")
    units: Column = strawberry.field(description="Units: texts or null.")
    valid_from: Column = strawberry.field(description="Since when: RFC 3339 times, UTC.")
    valid_to: Column = strawberry.field(description="Until when: RFC 3339 times, UTC, or null.")
    positions: Column = strawberry.field(description="Positions of the events that say so.")


def _rows_of_nodes(graph: ThreadGraph) -> Sequence[TraceNode]:
    _check_objects("nodes", len(graph.traced.nodes))
    return graph.traced.nodes


def _rows_of_links(graph: ThreadGraph) -> Sequence[TraceEdge]:
    _check_objects("links", len(graph.traced.edges))
    return graph.traced.edges


@strawberry.type(
    description="A graph: things and the links among them, the nearest to the roots first."
)
class ThreadGraph:
    """`projections.thread.trace.Trace`."""

    traced: strawberry.Private[Trace]
    out_of_sight: int = strawberry.field(
        description="How many things of it were left out, for they are beyond what you may see."
    )

    @field(
        description=f"The things, at most {OBJECTS_MAX}: for more ask for `nodeColumns`, which "
        "cost a fraction.",
        rows=_rows_of_nodes,
    )
    def nodes(self) -> list[ThreadNode]:
        """Return the nodes as objects."""
        return [ThreadNode.of(node) for node in _rows_of_nodes(self)]

    @field(
        description=f"The links among the things, at most {OBJECTS_MAX}: for more ask for "
        "`linkColumns`. A link comes with the later one of its two things.",
        rows=_rows_of_links,
    )
    def links(self) -> list[ThreadLink]:
        """Return the links as objects."""
        return [ThreadLink.of(edge) for edge in _rows_of_links(self)]

    @field(description="The things as columns.")
    def node_columns(self) -> ThreadNodeColumns:
        """Return the nodes as columns."""
        keys, kinds, states, depths, first_positions = _columns(self.traced.nodes, 5)
        return ThreadNodeColumns(
            keys=Column(keys),
            kinds=Column([kind.name for kind in kinds]),
            states=Column([state.name for state in states]),
            depths=Column(depths),
            first_positions=Column(first_positions),
        )

    @field(description="The links as columns.")
    def link_columns(self) -> ThreadLinkColumns:
        """Return the links as columns."""
        kinds, causes, effects, quantities, units, since, until, positions, _ = _columns(
            self.traced.edges, 9
        )
        return ThreadLinkColumns(
            kinds=Column([kind.name for kind in kinds]),
            causes=Column(causes),
            effects=Column(effects),
            quantities=Column(quantities),
            units=Column(units),
            valid_from=Column([format_time(moment) for moment in since]),
            valid_to=Column([None if end is None else format_time(end) for end in until]),
            positions=Column(positions),
        )

    @field(description="How many things it holds.")
    def node_count(self) -> int:
        """Return the number of nodes."""
        return len(self.traced.nodes)

    @field(description="How many links it holds.")
    def link_count(self) -> int:
        """Return the number of links."""
        return len(self.traced.edges)

    @field(description="Why there is more; null: this is all.")
    def cut(self) -> CutReason | None:
        """Return why there is more."""
        return self.traced.cut

    @field(
        description="For `after`, with all else the same, to get what lies beyond; null: nothing "
        "does, or it was not wanted. What follows is as of the same position."
    )
    def cursor(self) -> Cursor | None:
        """Return where the trace goes on."""
        return None if self.traced.cursor is None else Cursor(self.traced.cursor)

    @field(description="Roots that the thread did not know then.")
    def unknown_roots(self) -> list[str]:
        """Return what was not known."""
        return list(self.traced.unknown_roots)

    @field(description="The graph is what was known when the log ended here.")
    def position(self) -> Position:
        """Return what the graph reflects."""
        return Position(self.traced.position)


@strawberry.type(description="How many things of a kind stand so.")
class ThreadCount:
    """A count of nodes."""

    kind: NodeKind = strawberry.field(description="What they are.")
    state: NodeState = strawberry.field(description="How they stand.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="What a recall of things reaches, the things themselves among it.")
class ThreadRecall:
    """`projections.thread.trace.Recall`."""

    recalled: strawberry.Private[Recall]
    roots: strawberry.Private[list[str]]
    link_kinds: strawberry.Private[list[LinkKind] | None]
    valid_at: strawberry.Private[datetime | None]

    @field(description="How many things of each kind stand how.")
    def counts(self) -> list[ThreadCount]:
        """Return all counts."""
        return [
            ThreadCount(kind=kind, state=state, count=count)
            for (kind, state), count in sorted(self.recalled.counts.items())
        ]

    @field(description="How many parts stand how: shipped, in stock, in process, assembled …")
    def parts(self) -> list[ThreadCount]:
        """Return the counts of parts."""
        return [count for count in self.counts() if count.kind is NodeKind.PART]

    @field(description="How many lots stand how.")
    def lots(self) -> list[ThreadCount]:
        """Return the counts of lots."""
        return [count for count in self.counts() if count.kind is NodeKind.LOT]

    @field(description="How many things are not counted, for they are beyond what you may see.")
    def out_of_sight(self) -> int:
        """Return the number of nodes left out."""
        return self.recalled.out_of_sight

    @field(description="How many things were reached, with the roots.")
    def total(self) -> int:
        """Return the number of nodes."""
        return self.recalled.total

    @field(
        description="`NODES` where more is reached than was counted, `SIGHT` where some of it is "
        "beyond what you may see; null: this is all."
    )
    def cut(self) -> CutReason | None:
        """Return whether there is more."""
        return self.recalled.cut

    @field(description="Roots that the thread did not know then.")
    def unknown_roots(self) -> list[str]:
        """Return what was not known."""
        return list(self.recalled.unknown_roots)

    @field(description="What is told was known when the log ended here.")
    def position(self) -> Position:
        """Return what the counts reflect."""
        return Position(self.recalled.position)

    @field(description="What was reached, as a graph as of the same position.")
    async def graph(
        self,
        info: OperationInfo,
        first: Annotated[
            int, strawberry.argument(description=f"How many things at most, 1 to {NODES_MAX}.")
        ] = GRAPH_FIRST_DEFAULT,
        after: Annotated[
            Cursor | None,
            strawberry.argument(description="Go on where the graph with this cursor was cut."),
        ] = None,
    ) -> ThreadGraph:
        """Return the nodes and links."""
        traced, hidden = await trace_in_sight(
            info.context,
            self.roots,
            direction=Direction.FORWARD,
            link_kinds=self.link_kinds,
            as_of=AsOf(position=self.recalled.position, valid_at=self.valid_at),
            nodes_max=first,
            after=after,
        )
        return ThreadGraph(traced=traced, out_of_sight=hidden)


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _check_objects(name: str, count: int) -> None:
    if count > OBJECTS_MAX:
        raise InvalidInput(
            "trace.too_many_objects",
            f"{count} {name} are more than the {OBJECTS_MAX} that are told as objects",
            hint="ask for nodeColumns and linkColumns, or for fewer with first",
            value=count,
            limit=OBJECTS_MAX,
        )
