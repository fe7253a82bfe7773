"""Objects of the thread over GraphQL, every kind in the same way, on a made-up year of a plant."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import pytest

from api.access.sight import Sight
from api.graphql.context import OperationContext
from projections.object_kinds import KINDS
from tests.api.graphql.server import Server, held_to

pytestmark = pytest.mark.anyio

QUANTITY: Final = "{ value recorded recordedUnit siUnit }"


@dataclass(frozen=True)
class Kind:
    """How one kind of object is asked for.

    Parameters
    ----------
    one, many : root fields
    key : natural key, the field and the argument
    fields : all that it has of its own, with what it leads to
    """

    category: str
    one: str
    many: str
    key: str
    fields: str

    @property
    def title(self) -> str:
        return self.one[0].upper() + self.one[1:]


COMMON: Final = """
    __typename id stream version position createdAt updatedAt updatedBy complete
    events(first: 3) { nodes { position type actor } pageInfo { hasNextPage } position }
    corrections { position recordedAt actor correctedPosition correctedEventId reason
        replacementType replacement }
    signatures { position signedAt signedPosition signer signerName meaning documentSha256
        holds faults }
"""
GOODS: Final = """
    quarantine { since reason cause position } shipment { shipmentId customer shippedAt position }
"""
ALL: Final = (
    Kind(
        "lot",
        "lot",
        "lots",
        "lotId",
        f"""state material quantity {QUANTITY} left {QUANTITY} supplier supplierLot certificate
        processRunId processRun {{ runId }} {GOODS} scrapReason flags certificateRevision {{ name
        sha256 }}
        bookings(first: 5) {{ nodes {{ kind quantity {QUANTITY} occurredAt processRunId otherLotId
            otherLot {{ lotId material }} processRun {{ runId operation }} excessReason flags
        position }} }}""",
    ),
    Kind(
        "part",
        "part",
        "parts",
        "partId",
        f"""state partNumber design supplier certificate processRunId lotId processRun {{ runId
        }} insideId slot {GOODS}
        returnReason scrapReason failures {{ failureId failureMode description failedAt position }}
        flags inside {{ partId state }} lot {{ lotId }} designRevision {{ name title }}
        certificateRevision {{ name }}
        runs(first: 5) {{ nodes {{ processRunId rework nonconformanceId occurredAt flags position
        processRun {{ runId }}
        }} }}""",
    ),
    Kind(
        "document",
        "document",
        "documents",
        "documentId",
        """state kind title partNumber revision(name: "A") { name }
        revisionInEffect { name inEffect }
        revisions { id name documentId revision kind title sha256 sizeBytes mediaType fileUrl
            partNumber effectiveFrom effectiveTo releasedAt releasedBy releasedPosition
            supersededBy withdrawn withdrawalReason inEffect document { documentId } }""",
    ),
    Kind(
        "inspection",
        "inspection",
        "inspections",
        "inspectionId",
        f"""subject verdict judge model inspectedAt inspectedBy processRunId processRun {{ runId
        }} plan defectCodes flags
        part {{ partId }} lot {{ lotId }} planRevision {{ name }}
        images {{ sha256 mediaType }}
        characteristics {{ name measured {QUANTITY} nominal {QUANTITY} lowerLimit {QUANTITY}
            upperLimit {QUANTITY} conforms instrumentId instrument {{ instrumentId title }} }}""",
    ),
    Kind(
        "nonconformance",
        "nonconformance",
        "nonconformances",
        "nonconformanceId",
        """state subject inspectionId defectCode description openedAt openedBy closedAt closedBy
        closingNote decision { disposition reason decidedAt decidedBy position }
        part { partId } lot { lotId } inspection { inspectionId verdict }""",
    ),
    Kind(
        "instrument",
        "instrument",
        "instruments",
        "instrumentId",
        """state title calibratedUntil retiredAt retirementReason calibration { validUntil }
        calibrations { calibratedAt validUntil certificate certificateRevision { name } }""",
    ),
    Kind(
        "model",
        "model",
        "models",
        "modelId",
        """state servingVersion modelVersion(version: "1") { name }
        versions { name version stage purpose artefactSha256 trainingFromPosition
            trainingToPosition seed codeVersion metrics { name value } trainedAt trainedBy
            promotedAt promotionReason retiredAt retirementReason position
            drifts { subject test statistic limit detectedAt position } }""",
    ),
    Kind(
        "prediction",
        "prediction",
        "predictions",
        "predictionId",
        f"""state kind assetId componentId modelName predictedAt health failureMode probability
        component {{ componentId }} confidence inputFromPosition inputToPosition asset {{ assetId
        }} model {{ modelId }}
        horizon {QUANTITY} remainingLife {QUANTITY} remainingLifeLower {QUANTITY}
        remainingLifeUpper {QUANTITY} explanation {{ feature value contribution }}
        outcome {{ outcome workOrderId workOrder {{ workOrderId }} knownAt recordedBy position
        }}""",
    ),
    Kind(
        "scenario",
        "scenario",
        "scenarios",
        "scenarioId",
        """state assetId title fromPosition futures seed runAt runBy asset { assetId }
        assumptions { name value unit } deltas { indicator mean lower upper confidence unit }""",
    ),
    Kind(
        "setpoint-proposal",
        "setpointProposal",
        "setpointProposals",
        "proposalId",
        """state assetId setpoint reason scenarioId proposedAt proposedBy approvedAt approvedBy
        approvalNote endedAt refusalReason value appliedValue siUnit asset { assetId }
        scenario { scenarioId }""",
    ),
    Kind(
        "spare-part",
        "sparePart",
        "spareParts",
        "itemNumber",
        """state pieces free reservations { workOrderId pieces workOrder { workOrderId } }
        movements(first: 5) { nodes { kind pieces workOrderId unitCost currency occurredAt position
            workOrder { workOrderId }
        } }""",
    ),
)


def of_kind(kind: Kind) -> str:
    return kind.category


def listed(kind: Kind, fields: str = "") -> str:
    return f"""
        query($first: Int!, $after: Cursor, $asOf: AsOf) {{
          {kind.many}(first: $first, after: $after, asOf: $asOf) {{
            position pageInfo {{ hasNextPage endCursor }} nodes {{ {kind.key} {fields} }}
          }}
        }}
    """


async def all_of(
    server: Server, kind: Kind, fields: str = "", **asked: Any
) -> list[dict[str, Any]]:
    """Return all objects of a kind, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = (await server.ask(listed(kind, fields), **{"first": 40, "after": after, **asked}))[
            kind.many
        ]
        found += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def keys_in_log(server: Server, category: str, position: int) -> list[str]:
    rows = await server.ledger.pool.fetch(
        "select distinct stream from event where ledger_id = $1 and position <= $2 "
        "and split_part(stream, ':', 1) = $3",
        server.ledger.ledger_id,
        position,
        category,
    )
    return sorted(row["stream"].partition(":")[2] for row in rows)


def test_every_kind_that_is_indexed_is_asked_for_here() -> None:
    assert {kind.category for kind in ALL} == {*KINDS, "inspection"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL, ids=of_kind)
async def test_a_list_holds_what_the_log_holds_and_each_is_what_is_found_by_its_key_and_its_id(
    plant: Server, kind: Kind
) -> None:
    head = await plant.ledger.head()
    for position in (head, head // 3):
        as_of = {"position": position}
        found = await all_of(plant, kind, COMMON + kind.fields, asOf=as_of)
        keys = [one[kind.key] for one in found]
        assert sorted(keys) == await keys_in_log(plant, kind.category, position)
        for one in found[:10]:
            assert one["__typename"] == kind.title
            assert one["position"] == position
            document = f"""
                query($key: ID!, $id: ID!, $asOf: AsOf) {{
                  one: {kind.one}({kind.key}: $key, asOf: $asOf) {{
                    {kind.key} {COMMON} {kind.fields} }}
                  node(id: $id, asOf: $asOf) {{
                    ... on {kind.title} {{ {kind.key} {COMMON} {kind.fields} }} }}
                }}
            """
            again = await plant.ask(document, key=one[kind.key], id=one["id"], asOf=as_of)
            assert again["one"] == one
            assert again["node"] == one


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL, ids=of_kind)
async def test_fifty_objects_take_as_many_statements_as_one(plant: Server, kind: Kind) -> None:
    document = listed(kind, COMMON + kind.fields)
    counts = {}
    for first in (1, 25, 50):
        async with plant.statements() as statements:
            await plant.ask(document, first=first)
        counts[first] = Counter(shape(statement) for statement in statements)
    assert counts[25] == counts[50]
    assert set(counts[1]) <= set(counts[50])
    # What one does not lead to, many may: once for each place where it is asked for, and no more.
    assert counts[50].total() - counts[1].total() <= document.count("{ ")


def shape(statement: str) -> str:
    return " ".join(statement.split())


@pytest.mark.slow
async def test_nodes_of_all_kinds_are_found_together(plant: Server) -> None:
    ids = []
    for kind in ALL:
        found = (await plant.ask(listed(kind, "id"), first=3))[kind.many]["nodes"]
        ids += [one["id"] for one in found]
    document = "query($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }"
    async with plant.statements() as statements:
        found = (await plant.ask(document, ids=ids))["nodes"]
    assert [one["id"] for one in found] == ids
    assert len({one["__typename"] for one in found}) >= len(ALL) - 1
    assert len([s for s in statements if "payload, head" in shape(s)]) == 1
    code = await plant.code(document, ids=ids[:1] * 101)
    assert code == "node.too_many"
    assert await plant.code(document, ids=["nonsense"]) == "id.malformed"


@pytest.mark.slow
async def test_what_was_true_at_a_time_is_listed_by_how_it_stood_then(plant: Server) -> None:
    lots = await all_of(
        plant, ALL[0], "state createdAt bookings(first: 2) { nodes { occurredAt } }"
    )
    times = sorted(lot["createdAt"] for lot in lots)
    at = times[len(times) // 2]
    then = await all_of(plant, ALL[0], "state createdAt", asOf={"validAt": at})
    assert {lot["lotId"] for lot in then} == {
        lot["lotId"] for lot in lots if lot["createdAt"] <= at
    }
    states = Counter(lot["state"] for lot in then)
    document = """
        query($at: DateTime!, $states: [LotState!], $after: Cursor) {
          lots(first: 20, after: $after, asOf: { validAt: $at }, filter: { states: $states }) {
            nodes { lotId state } pageInfo { hasNextPage endCursor } } }
    """
    for state, count in states.items():
        found, after = [], None
        while True:
            page = (await plant.ask(document, at=at, states=[state], after=after))["lots"]
            found += page["nodes"]
            if not page["pageInfo"]["hasNextPage"]:
                break
            after = page["pageInfo"]["endCursor"]
        assert len(found) == count
        assert {lot["state"] for lot in found} == {state}
    now = Counter(lot["state"] for lot in lots)
    assert states != now


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL, ids=of_kind)
async def test_what_is_out_of_sight_is_in_no_list_and_found_by_nothing(
    plant: Server, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (await plant.ask(listed(kind, "id"), first=1))[kind.many]["nodes"]
    asset = await plant.ledger.pool.fetchval(
        "select asset_id from twin_asset where ledger_id = $1 limit 1", plant.ledger.ledger_id
    )
    seen = Sight(asset_ids=frozenset({asset}), location_ids=frozenset(), ledger=plant.ledger)

    async def sight(_context: OperationContext) -> Sight:
        return seen

    monkeypatch.setattr(OperationContext, "sight", sight)
    found = await all_of(plant, kind, "id stream")
    visible = await seen.visible([one["stream"] for one in found])
    assert visible == {one["stream"] for one in found}
    everything = await keys_in_log(plant, kind.category, await plant.ledger.head())
    expected = await seen.visible([f"{kind.category}:{key}" for key in everything])
    assert {one["stream"] for one in found} == expected
    if kind.category in ("document", "instrument", "model"):
        assert len(found) == len(everything)
    for one in first:
        document = f"""
            query($key: ID!, $id: ID!) {{
              one: {kind.one}({kind.key}: $key) {{ {kind.key} }} node(id: $id) {{ id }} }}
        """
        hidden = f"{kind.category}:{one[kind.key]}" not in expected
        answer = await plant.ask(document, key=one[kind.key], id=one["id"])
        assert (answer["one"] is None) == (answer["node"] is None) == hidden


@pytest.mark.slow
async def test_the_trace_of_an_object_is_the_trace_of_the_thread(plant: Server) -> None:
    parts = (await plant.ask(listed(ALL[1], "stream"), first=3))["parts"]["nodes"]
    document = """
        query($key: ID!, $root: String!) {
          part(partId: $key) { trace(direction: BACK) { nodes { key state } links { kind cause } } }
          trace(roots: [$root], direction: BACK) { nodes { key state } links { kind cause } }
        }
    """
    for part in parts:
        found = await plant.ask(document, key=part["partId"], root=part["stream"])
        assert found["part"]["trace"] == found["trace"]
        assert len(found["trace"]["nodes"]) > 1
    designs = (await plant.ask(listed(ALL[2], "revisions { name }"), first=1))["documents"]
    (design,) = designs["nodes"]
    traced = await plant.ask(
        "query($key: ID!) { document(documentId: $key) { trace(direction: FORWARD) "
        "{ nodes { key depth } } } }",
        key=design["documentId"],
    )
    roots = {n["key"] for n in traced["document"]["trace"]["nodes"] if n["depth"] == 0}
    assert roots == {f"document:{revision['name']}" for revision in design["revisions"]}


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["BACK", "FORWARD", "BOTH"])
@pytest.mark.parametrize("kind", [ALL[0], ALL[1], ALL[2], ALL[6]], ids=of_kind)
async def test_traces_of_many_objects_are_those_of_each_in_as_many_statements(
    plant: Server, kind: Kind, direction: str
) -> None:
    graph = f"""trace(direction: {direction}, first: 20000) {{ position cut unknownRoots
        nodes: nodeColumns {{ keys states kinds depths firstPositions }}
        links: linkColumns {{ kinds causes effects quantities units validFrom validTo positions }}
    }}"""
    document = listed(kind, graph)
    async with plant.statements() as for_many:
        many = (await plant.ask(document, first=40))[kind.many]["nodes"]
    for one in many[:12]:
        alone = await plant.ask(
            f"query($key: ID!) {{ {kind.one}({kind.key}: $key) {{ {kind.key} {graph} }} }}",
            key=one[kind.key],
        )
        assert told(alone[kind.one]["trace"]) == told(one["trace"])
    async with plant.statements() as for_one:
        await plant.ask(document, first=1)
    held_to(for_one, for_many)


def told(graph: dict[str, Any]) -> dict[str, Any]:
    """Return a graph without the order of what stands equal in it."""
    return {
        name: sorted(zip(*column.values(), strict=True), key=repr)
        if isinstance(column, dict)
        else column
        for name, column in graph.items()
    }


@pytest.mark.slow
async def test_a_trace_of_many_is_cut_as_that_of_one_is(plant: Server) -> None:
    graph = "trace(direction: BACK, depth: 2) { cut nodes { key depth } }"
    many = (await plant.ask(listed(ALL[1], graph), first=30))["parts"]["nodes"]
    assert {one["trace"]["cut"] for one in many} >= {"DEPTH"}
    for one in many:
        assert max(node["depth"] for node in one["trace"]["nodes"]) <= 2
        document = f"query($key: ID!) {{ part(partId: $key) {{ {graph} }} }}"
        alone = (await plant.ask(document, key=one["partId"]))["part"]["trace"]
        assert alone["cut"] == one["trace"]["cut"]
        assert {n["key"] for n in alone["nodes"]} == {n["key"] for n in one["trace"]["nodes"]}
    few = "trace(direction: BACK, first: 3) { cut nodeCount }"
    cut = (await plant.ask(listed(ALL[1], few), first=30))["parts"]["nodes"]
    assert {one["trace"]["cut"] for one in cut} == {"NODES"}
    assert max(one["trace"]["nodeCount"] for one in cut) == 3


async def test_what_cannot_be_asked_has_its_code(server: Server) -> None:
    async def code(document: str, **variables: Any) -> str:
        return await server.code(document, **variables)

    assert await code('{ lot(lotId: "a b") { lotId } }') == "lot.malformed_name"
    assert await code("{ lots(first: 0) { position } }") == "page.first"
    assert await code('{ lots(first: 1, after: "x") { position } }') == "cursor.malformed"
    assert await code("{ lots(first: 1, asOf: { position: 9 }) { position } }") == (
        "as_of.beyond_log"
    )
    assert await code('{ lot(lotId: "L", minPosition: 9) { lotId } }') == "projection.behind"
    assert await code('{ documentRevision(name: "DRW-7") { name } }') == (
        "document.malformed_revision_name"
    )
    nothing = await server.ask('{ lot(lotId: "L-9") { lotId } part(partId: "P-9") { partId } }')
    assert nothing == {"lot": None, "part": None}
