"""The audit trail over GraphQL, and evidence: what a bundle would hold, and the bundle itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from api.access.sight import Sight, Sights
from api.evidence_route import evidence_routes
from api.graphql.context import OperationContext
from eventlog.bundles.trace_reading import read_trace_bundle
from eventlog.transparency.notes import VerifierKey
from eventlog.transparency.signing import CheckpointPublisher
from tests.api.graphql.server import Server
from tests.eventlog.signing import signer_for

pytestmark = pytest.mark.anyio

TRAIL = """
query($first: Int!, $after: Cursor, $filter: AuditFilter, $asOf: AsOf) {
  auditTrail(first: $first, after: $after, filter: $filter, asOf: $asOf) {
    nodes {
      position eventId recordedAt occurredAt actor key type words correctedBy
      signatures { position signer signerName meaning signedAt }
      change { correctedPosition previousPosition reason previousErased
        fields { field previous now } }
    }
    pageInfo { hasNextPage endCursor } position
  }
}
"""


async def test_every_fact_is_in_the_trail_once_newest_first(plant: Server) -> None:
    ledger = plant.ledger
    facts = await ledger.pool.fetch(
        "select position from event where ledger_id = $1 and window_end_ns is null "
        "order by position desc",
        ledger.ledger_id,
    )
    found: list[int] = []
    after = None
    while True:
        page = (await plant.ask(TRAIL, first=500, after=after))["auditTrail"]
        found += [node["position"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert found == [row["position"] for row in facts]


async def test_the_trail_goes_by_actor_object_kind_and_time(plant: Server) -> None:
    async def trail(**wanted: Any) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = (await plant.ask(TRAIL, first=5, filter=wanted))[
            "auditTrail"
        ]["nodes"]
        return nodes

    assert {n["actor"] for n in await trail(actors=["user:inspector"])} == {"user:inspector"}
    done = await trail(types=["work_order.completed"])
    assert len(done) == 5
    assert all(n["words"].startswith("Work order completed") for n in done)
    of_one = await trail(keys=[done[0]["key"]])
    assert of_one[-1]["type"] == "work_order.requested"
    until = done[-1]["recordedAt"]
    earlier = await trail(types=["work_order.completed"], recordedUntil=until)
    assert earlier[0]["position"] >= done[-1]["position"]
    half = await plant.ledger.head() // 2
    then = (await plant.ask(TRAIL, first=1, asOf={"position": half}))["auditTrail"]
    assert then["position"] == then["nodes"][0]["position"] == half
    valid = {"validAt": "2026-01-01T00:00:00Z"}
    assert await plant.code(TRAIL, first=1, asOf=valid) == "as_of.not_by_valid_time"


async def test_a_correction_tells_what_it_changed(plant: Server) -> None:
    wanted = {"types": ["record.corrected"]}
    nodes = (await plant.ask(TRAIL, first=100, filter=wanted))["auditTrail"]["nodes"]

    assert nodes
    assert all(node["change"]["reason"] for node in nodes)
    told = [node for node in nodes if node["change"]["fields"]]
    assert told
    for node in told:
        assert all(each["previous"] != each["now"] for each in node["change"]["fields"])
    change = told[0]["change"]
    wanted = {"keys": [told[0]["key"]]}
    entries = (await plant.ask(TRAIL, first=100, filter=wanted))["auditTrail"]["nodes"]
    (corrected,) = [e for e in entries if e["position"] == change["correctedPosition"]]
    assert told[0]["position"] in corrected["correctedBy"]


async def test_what_was_done_out_of_sight_is_not_in_the_trail(
    plant: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfOneAsset(Sight):
        async def visible(self, streams: Any) -> frozenset[str]:
            return frozenset(s for s in streams if s == "asset:furnace-3-1")

    async def sight(_: OperationContext) -> Sight:
        return OfOneAsset(frozenset({"furnace-3-1"}), frozenset())

    monkeypatch.setattr(OperationContext, "sight", sight)

    after, keys = None, set()
    for _ in range(50):
        page = (await plant.ask(TRAIL, first=500, after=after))["auditTrail"]
        keys |= {node["key"] for node in page["nodes"]}
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert keys <= {"asset:furnace-3-1"}


# --- evidence -----------------------------------------------------------------------------

EVIDENCE = """
query($part: ID!, $asOf: AsOf) { evidenceBundle(part: $part, asOf: $asOf) {
  root position nodes links events complete href mediaType
} }
"""


@pytest.fixture
async def part(plant: Server) -> str:
    """A part that went through several runs."""
    found: str = await plant.ledger.pool.fetchval(
        "select unit_id from run_unit where ledger_id = $1 and unit_id like 'part:%' "
        "group by unit_id order by count(*) desc, unit_id limit 1",
        plant.ledger.ledger_id,
    )
    return found.partition(":")[2]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the log's signing key lies: one log has one."""
    return tmp_path_factory.mktemp("keys")


@asynccontextmanager
async def evidence_server(plant: Server, keys: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serve bundles of the plant."""
    publisher = CheckpointPublisher(signer_for(plant.ledger, keys), interval_s=60.0)
    try:
        services = replace(plant.services, checkpoints=publisher)
        app = Starlette(routes=evidence_routes(services))
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000"
        ) as client:
            yield client
    finally:
        await publisher.close()


async def test_bundle_is_what_was_said_that_it_holds(plant: Server, part: str, keys: Path) -> None:
    told = (await plant.ask(EVIDENCE, part=part))["evidenceBundle"]

    assert told["root"] == f"part:{part}"
    assert told["complete"]
    assert told["nodes"] > 3 < told["links"]
    async with evidence_server(plant, keys) as client:
        response = await client.get(told["href"])
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(told["mediaType"])
    assert "attachment" in response.headers["content-disposition"]
    header = json.loads(response.content.split(b"\n", 1)[0])
    assert (header["nodes"], header["edges"], header["events"]) == (
        told["nodes"],
        told["links"],
        told["events"],
    )
    assert header["trace"]["position"] == told["position"]


async def test_bundle_verifies_without_the_log(
    plant: Server, part: str, keys: Path, tmp_path: Path
) -> None:
    async with evidence_server(plant, keys) as client:
        response = await client.get(f"/v1/evidence?root=part:{part}&direction=BACK")
    path = tmp_path / "part.bundle"
    await asyncio.to_thread(path.write_bytes, response.content)
    header = json.loads(response.content.split(b"\n", 1)[0])

    report, evidence, events = await asyncio.to_thread(
        read_trace_bundle, path, [VerifierKey.parse(header["vkey"])]
    )

    assert report.findings == []
    assert len(events) == header["events"]
    assert evidence.selection.direction == "BACK"


@pytest.mark.parametrize(
    "query", ["", "root=part:X&colour=red", "root=part:X&position=-1", "root=part:X&direction=UP"]
)
async def test_bundle_of_a_malformed_question_is_refused(
    plant: Server, query: str, keys: Path
) -> None:
    async with evidence_server(plant, keys) as client:
        response = await client.get(f"/v1/evidence?{query}")

    assert response.status_code == 400
    assert response.json()["code"] == "evidence.query"


async def test_evidence_that_leads_beyond_sight_is_refused(
    plant: Server, part: str, monkeypatch: pytest.MonkeyPatch, keys: Path
) -> None:
    class OfOnePart(Sight):
        async def visible(self, streams: Any) -> frozenset[str]:
            return frozenset(streams) & {f"part:{part}"}

    async def sight(*_: Any) -> Sight:
        return OfOnePart(frozenset(), frozenset())

    monkeypatch.setattr(OperationContext, "sight", sight)
    monkeypatch.setattr(Sights, "of", sight)

    assert await plant.code(EVIDENCE, part=part) == "evidence.out_of_sight"
    assert await plant.code(EVIDENCE, part="SN-3-2") == "thread.unknown_node"
    async with evidence_server(plant, keys) as client:
        refused = await client.get(f"/v1/evidence?root=part:{part}")
        unknown = await client.get("/v1/evidence?root=part:SN-3-2")
    assert refused.status_code == 403
    assert unknown.status_code == 404
