"""Two plants in one ledger: whoever belongs to one never hears of the other, whatever he asks."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from graphql import GraphQLInputObjectType, get_named_type

from api.access.keys import create_key
from api.access.rights import Role
from api.access.sight import REFERENCE_CATEGORIES
from api.app import projections
from api.graphql.node import FINDERS
from api.graphql.relay import encode_id
from api.graphql.schema import create_schema
from api.history_recording import record_history
from api.plant_history import HistoryName
from domain.quality.nonconformance import OpenNonconformance
from domain.thread import NODE_KIND_OF_CATEGORY
from eventlog.commands import handle
from projections.running.projection import Policy
from tests.api.graphql.schema_walk import Walk, texts
from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

OURS, THEIRS = 471_100, 812_300
PARTS, MONTHS = 40, 6
WAIT_S = 120.0
SCHEMA = create_schema().core
assert SCHEMA.query_type is not None
ROOTS: Final = SCHEMA.query_type.fields
TOKEN: Final = re.compile(rf"[A-Za-z0-9._@-]*-{THEIRS}[A-Za-z0-9._@-]*")
UNKNOWN: Final = "NOBODY-KNOWS"

KEYED: Final = {
    "asset": "asset",
    "location": "location",
    "component": "component",
    "workOrder": "work-order",
    "processRun": "process-run",
    "lot": "lot",
    "part": "part",
    "inspection": "inspection",
    "nonconformance": "nonconformance",
    "prediction": "prediction",
    "scenario": "scenario",
    "setpointProposal": "setpoint-proposal",
    "sparePart": "spare-part",
    "evidenceBundle": "part",
}
"""Root fields that take one natural key, and the category of the streams that it names."""

SHARED: Final = {
    "assetType",
    "alert",
    "document",
    "documentRevision",
    "instrument",
    "model",
    "webhook",
    "apiKey",
}
"""Root fields that take one key, of what is everybody's; or a random number is their key."""


WITHOUT_STREAMS: Final = {"alert", "failure", "shipment"}
"""Things of the thread that other things' events tell of."""


@dataclass
class Plants:
    """A server with the histories of two plants, and a person who belongs to one of them."""

    server: Server
    key: str
    shared: frozenset[str]
    theirs: Mapping[str, str]
    ours: Mapping[str, str]

    async def post(self, document: str, **variables: Any) -> dict[str, Any]:
        return await self.server.post(document, variables, authorization=f"Bearer {self.key}")

    def leaked(self, answer: Any) -> set[str]:
        """Return the names of the other plant in an answer, but for what everybody works with."""
        found = {token for text in texts(answer) for token in TOKEN.findall(text)}
        return {token for token in found if token.partition("@")[0] not in self.shared}


@pytest.fixture(scope="module")
async def plants(shared_database_url: str) -> AsyncIterator[Plants]:
    folded = [each for each in projections() if not isinstance(each, Policy)]
    settings: dict[str, Any] = {
        "api_keys": True,
        "graphql_rate": 1e9,
        "graphql_burst": 1e9,
        "graphql_cost_max": 10_000_000,
    }
    async with serving(
        shared_database_url, projections=folded, ledger="two-plants", **settings
    ) as server:
        for seed in (OURS, THEIRS):
            history = await record_history(
                server.ledger, HistoryName(parts=PARTS, seed=seed, months=MONTHS)
            )
            await _open_nonconformance(server, seed)
        key, _ = await create_key(
            server.ledger,
            name="one-plant",
            roles=[Role.ENGINEER, Role.AUDITOR, Role.QUALITY],
            locations=[f"site-{OURS}"],
            assets=None,
            expires_at=None,
            created_by="user:test",
            now=datetime.now(UTC),
        )
        head = await server.ledger.head()
        assert head > history.position
        for runner in server.services.runners.values():
            await runner.wait_for(head, WAIT_S)
        rows = await server.ledger.pool.fetch(
            # Those that belong somewhere last: they stand for their kind.
            "select h.stream from stream_head h where h.ledger_id = $1 order by exists (select "
            "from stream_place p where p.ledger_id = $1 and p.stream = h.stream), h.stream",
            server.ledger.ledger_id,
        )
        streams = [row["stream"].partition(":")[::2] for row in rows]
        server.clock.now = await server.ledger.pool.fetchval(
            "select max(occurred_at) from event where ledger_id = $1 and type like 'part.%'",
            server.ledger.ledger_id,
        )
        yield Plants(
            server,
            key,
            frozenset(name for kind, name in streams if kind in REFERENCE_CATEGORIES),
            {kind: name for kind, name in streams if str(THEIRS) in name},
            {kind: name for kind, name in streams if str(OURS) in name},
        )


async def _open_nonconformance(server: Server, seed: int) -> None:
    """Find something wrong with a part of the plant `seed`: a made-up plant has none open."""
    part = await server.ledger.pool.fetchval(
        "select min(stream) from stream_head where ledger_id = $1 and stream like $2",
        server.ledger.ledger_id,
        f"part:%{seed}%",
    )
    await handle(
        server.ledger,
        OpenNonconformance(f"NC-{seed}", part, "SCRATCH", "a scratch"),
        actor="user:test",
        occurred_at=datetime.now(UTC),
        event_id=lambda _: uuid.uuid4(),
    )


def arguments(names: Mapping[str, str]) -> dict[str, str]:
    """Return values of arguments that name things of one plant."""
    return {
        "first": "5",
        "direction": "BOTH",
        "from": '"2024-01-01T00:00:00Z"',
        "to": '"2027-01-01T00:00:00Z"',
        "period": '{from: "2024-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z"}',
        "roots": json.dumps([f"part:{names['part']}", f"lot:{names['lot']}"]),
        "ids": json.dumps([encode_id("Part", names["part"])]),
        "id": json.dumps(encode_id("Asset", names["asset"])),
    }


def keys_of(name: str, key: str) -> dict[str, str]:
    """Return the argument of the root field `name` that takes a natural key."""
    (argument,) = [a for a in ROOTS[name].args if a not in ("asOf", "minPosition")]
    return {argument: json.dumps(key)}


# --- whatever is asked ----------------------------------------------------------------------


@pytest.mark.parametrize(("first", "depth"), [(200, 3), (3, 5)])
@pytest.mark.parametrize("name", sorted(ROOTS))
async def test_no_root_field_tells_of_the_other_plant(
    plants: Plants, name: str, first: int, depth: int
) -> None:
    given = arguments(plants.ours) | {"first": str(first)}
    walk = Walk(SCHEMA, given, depth)
    own = keys_of(name, plants.ours.get(KEYED[name], UNKNOWN)) if name in KEYED else {}
    document = walk.document(name, ROOTS[name], own)
    answer = await plants.post(document)
    codes = {error["extensions"]["code"] for error in answer.get("errors", ())}
    assert not codes & {"graphql.invalid", "graphql.syntax", "internal"}, answer["errors"][:3]
    assert plants.leaked(answer) == set()


@pytest.mark.parametrize("kind", sorted(FINDERS))
async def test_a_node_of_each_kind_tells_of_its_own_plant_alone(plants: Plants, kind: str) -> None:
    for names in (plants.ours, plants.theirs):
        for category, key in sorted(names.items()):
            given = {"id": json.dumps(encode_id(kind, key))}
            walk = Walk(SCHEMA, arguments(plants.ours), 3, only=kind)
            answer = await plants.post(walk.document("node", ROOTS["node"], given))
            assert plants.leaked(answer) - {key} == set(), category


async def test_the_walk_finds_what_is_in_sight(plants: Plants) -> None:
    """What is found nowhere would prove nothing by its absence."""
    seen = set()
    for name in ROOTS:
        own = keys_of(name, plants.ours.get(KEYED[name], UNKNOWN)) if name in KEYED else {}
        walk = Walk(SCHEMA, arguments(plants.ours), 2)
        answer = await plants.post(walk.document(name, ROOTS[name], own))
        if any(str(OURS) in text for text in texts(answer)):
            seen.add(name)
    lists = {"assets", "parts", "lots", "workOrders", "processRuns", "inspections", "events"}
    graphs = {"trace", "recall", "node", "nodes"}
    have = {name for name, category in KEYED.items() if category in plants.ours}
    assert lists | graphs | have <= seen


# --- as if it did not exist -----------------------------------------------------------------


def told(answer: Any, key: str) -> str:
    """Return an answer with `key` made unrecognisable."""
    spelled = json.dumps(answer, sort_keys=True).replace(key, "KEY")
    return re.sub(r'"position": "?\d+"?', '"position": 0', spelled)


def test_every_root_field_that_takes_a_key_is_known_here() -> None:
    keyed = {
        name
        for name, root in ROOTS.items()
        if len([a for a in root.args if a not in ("asOf", "minPosition")]) == 1
        and not root.args.keys() & {"filter", "roots", "ids", "id", "period"}
        and "first" not in root.args
    }
    assert keyed <= KEYED.keys() | SHARED


@pytest.mark.parametrize("name", sorted(KEYED))
async def test_what_belongs_to_the_other_plant_is_answered_as_what_nobody_knows(
    plants: Plants, name: str
) -> None:
    key = plants.theirs[KEYED[name]]
    walk = Walk(SCHEMA, arguments(plants.ours), 2)
    found = [
        told(await plants.post(walk.document(name, ROOTS[name], keys_of(name, k))), k)
        for k in (key, UNKNOWN)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "category", sorted(NODE_KIND_OF_CATEGORY.keys() - REFERENCE_CATEGORIES - WITHOUT_STREAMS)
)
async def test_a_trace_begins_at_nothing_of_the_other_plant(plants: Plants, category: str) -> None:
    key = plants.theirs[category]
    for name in ("trace", "recall"):
        walk = Walk(SCHEMA, arguments(plants.ours), 2)
        found = [
            told(
                await plants.post(
                    walk.document(name, ROOTS[name], {"roots": json.dumps([f"{category}:{k}"])})
                ),
                k,
            )
            for k in (key, UNKNOWN)
        ]
        assert found[0] == found[1]
        beside = json.dumps([f"part:{plants.ours['part']}", f"{category}:{key}"])
        answer = await plants.post(walk.document(name, ROOTS[name], {"roots": beside}))
        assert answer["data"][name]["unknownRoots"] == [f"{category}:{key}"]
        assert plants.leaked(answer) <= {key}


def filters() -> list[tuple[str, str]]:
    """Return (root field, field of its filter) for every filter that names things."""
    found = []
    for name, root in ROOTS.items():
        for argument in ("filter", "assets"):
            kind = get_named_type(root.args[argument].type) if argument in root.args else None
            if isinstance(kind, GraphQLInputObjectType):
                found += [
                    (name, f"{argument}.{each}")
                    for each, told in kind.fields.items()
                    if get_named_type(told.type).name in ("String", "ID")
                ]
    return found


@pytest.mark.parametrize(("name", "field"), filters())
async def test_no_filter_finds_what_is_out_of_sight(plants: Plants, name: str, field: str) -> None:
    argument, _, each = field.partition(".")
    kind = get_named_type(ROOTS[name].args[argument].type)
    assert isinstance(kind, GraphQLInputObjectType)
    many = "[" in str(kind.fields[each].type)
    for category, key in sorted(plants.theirs.items()):
        if category in REFERENCE_CATEGORIES:
            continue
        for spelled in (key, f"{category}:{key}"):
            found = []
            for given in (spelled, spelled.replace(key, UNKNOWN)):
                value = json.dumps([given] if many else given)
                walk = Walk(SCHEMA, arguments(plants.ours), 3)
                document = walk.document(name, ROOTS[name], {argument: f"{{{each}: {value}}}"})
                answer = await plants.post(document)
                found.append(told(answer, key if given == spelled else UNKNOWN))
                assert plants.leaked(answer) <= {key}
            assert found[0] == found[1], (category, spelled)


# --- as it happens --------------------------------------------------------------------------


async def test_a_subscription_tells_every_event_in_sight_and_no_other(plants: Plants) -> None:
    wanted: list[int] = []
    after = None
    while True:
        page = await plants.post(
            "query($after: Cursor) { events(first: 500, after: $after) "
            "{ nodes { position stream } pageInfo { hasNextPage endCursor } } }",
            after=after,
        )
        events = page["data"]["events"]
        wanted += [int(node["position"]) for node in events["nodes"]]
        assert plants.leaked(events["nodes"]) == set()
        if not events["pageInfo"]["hasNextPage"]:
            break
        after = events["pageInfo"]["endCursor"]
    assert len(wanted) > 100
    start = plants.server.cursor(0)
    async with plants.server.socket({"authorization": f"Bearer {plants.key}"}) as socket:
        await socket.subscribe(
            "subscription($after: Cursor) { events(after: $after) "
            "{ event { position stream fact } } }",
            after=start,
        )
        for position in wanted:
            message = await socket.next()
            assert int(message["events"]["event"]["position"]) == position
            assert plants.leaked(message) == set()


# --- beside the queries -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mutation", "category", "fields"),
    [
        ("quarantineLot", "lot", {"lotId": "KEY", "reason": "suspect"}),
        ("scrapPart", "part", {"partId": "KEY", "reason": "broken"}),
        ("retireAsset", "asset", {"assetId": "KEY", "reason": "worn out"}),
        ("startWorkOrder", "work-order", {"workOrderId": "KEY", "assetDown": False}),
        ("abortProcessRun", "process-run", {"runId": "KEY", "reason": "broken"}),
    ],
)
async def test_nothing_of_the_other_plant_can_be_commanded(
    plants: Plants, mutation: str, category: str, fields: dict[str, Any]
) -> None:
    title = mutation[0].upper() + mutation[1:]
    document = (
        f"mutation($input: {title}Input!) {{ {mutation}(input: $input) "
        "{ __typename ... on Error { code message hint value } } }"
    )
    head = await plants.server.ledger.head()
    found = []
    for key in (plants.theirs[category], UNKNOWN):
        given = {name: key if value == "KEY" else value for name, value in fields.items()}
        answer = await plants.post(document, input={**given, "idempotencyKey": f"{mutation} {key}"})
        assert answer["data"][mutation]["__typename"] == "NotFoundError"
        found.append(told(answer, key))
    assert found[0] == found[1]
    assert await plants.server.ledger.head() == head


@pytest.mark.parametrize("table", ["events", "readings", "rollups", "reliability", "energy"])
async def test_export_holds_nothing_of_the_other_plant(plants: Plants, table: str) -> None:
    period = {"from": "2000-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z"}
    response = await plants.server.http.get(
        f"/v1/export/{table}",
        params={"format": "ndjson", **({} if table == "events" else period)},
        headers={"Authorization": f"Bearer {plants.key}"},
    )

    assert response.status_code == 200, response.text
    assert plants.leaked(response.text) == set()
    if table in ("events", "reliability"):
        assert str(OURS) in response.text


async def test_no_event_of_the_other_plant_can_be_corrected(plants: Plants) -> None:
    theirs = await plants.server.ledger.pool.fetchval(
        "select event_id from event where ledger_id = $1 and stream = $2 order by position limit 1",
        plants.server.ledger.ledger_id,
        f"lot:{plants.theirs['lot']}",
    )
    document = (
        "mutation($input: CorrectRecordInput!) { correctRecord(input: $input) "
        "{ __typename ... on Error { code message hint value } } }"
    )
    for stream in (f"lot:{plants.theirs['lot']}", f"lot:{plants.ours['lot']}"):
        found = []
        for event_id in (str(theirs), str(uuid.UUID(int=7))):
            given = {"stream": stream, "correctedEventId": event_id, "reason": "wrong"}
            answer = await plants.post(
                document, input={**given, "idempotencyKey": f"{stream} {event_id}"}
            )
            found.append(told(answer, event_id))
        assert "correction.unknown_event" in found[0]
        assert found[0] == found[1]
