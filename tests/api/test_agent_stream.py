"""What an agent is told: its own assets' set-points, signed, once and in order, resumable."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from api.access.keys import create_key
from api.access.rights import Role
from api.app import create_app, open_services
from api.services import Services
from api.settings import ServerSettings
from domain.asset import (
    CommissionAsset,
    DeclineSetpoint,
    DesireSetpoint,
    RegisterAsset,
    ReportSetpoint,
    asset_stream,
)
from domain.directives import (
    ModelDirective,
    ModelRetirement,
    SetpointDirective,
    decode_directive,
    signed_text,
)
from domain.errors import InvalidInput
from domain.opinions.model import PromoteModel, RetireModel, TrainModel
from domain.opinions.setpoint_proposal import ApproveSetpoint, ProposeSetpoint
from domain.records import CorrectRecord
from eventlog.commands import Handled, handle
from eventlog.corrections import handle_correction
from eventlog.documents import ContentStore
from eventlog.reading import read_event
from eventlog.transparency.notes import Signature, VerifierKey
from tests.api.graphql.server import listening

pytestmark = pytest.mark.anyio

AGENT = "edge-1"
WAIT_S = 20.0


@dataclass
class Told:
    """One event of the stream."""

    id: int
    event: str
    data: dict[str, str] = field(default_factory=dict)


@dataclass
class Plant:
    """A served log, and who commands in it."""

    services: Services
    http: httpx.AsyncClient
    documents: Path

    async def command(self, command: Any, actor: str = "user:mara") -> Handled:
        return await handle(
            self.services.ledger,
            command,
            actor=actor,
            occurred_at=datetime.now(UTC),
            event_id=lambda _: uuid.uuid4(),
        )

    async def register(self, *assets: str) -> None:
        for asset in assets:
            await self.command(RegisterAsset(asset, "skab-pump-loop", asset))
            await self.command(CommissionAsset(asset))

    async def verifier(self) -> VerifierKey:
        assert self.services.checkpoints is not None
        return self.services.checkpoints.signer.keys.current().verifier

    @asynccontextmanager
    async def stream(
        self, after: int | None = None, agent: str = AGENT, **query: Any
    ) -> AsyncIterator[Stream]:
        headers = {} if after is None else {"last-event-id": str(after)}
        async with self.http.stream(
            "GET", f"/v1/agents/{agent}/commands", params=query, headers=headers
        ) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield Stream(response.aiter_lines())


@dataclass
class Stream:
    """A client of server-sent events, after the HTML standard."""

    lines: AsyncIterator[str]

    async def next(self) -> Told:
        """Return the next event."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(WAIT_S):
            while True:
                line = await anext(self.lines)
                name, _, value = line.partition(":")
                if line and name:
                    fields[name] = value.removeprefix(" ")
                elif not line and "id" in fields:
                    data = fields.get("data", "")
                    return Told(int(fields["id"]), fields["event"], orjson.loads(data or "{}"))
                elif not line:
                    fields = {}


@asynccontextmanager
async def plant_at(database_url: str, folder: Path, **settings: Any) -> AsyncIterator[Plant]:
    configured = ServerSettings(data_dir=folder, **settings)
    async with open_services(configured, database_url) as services:
        application = create_app(services)
        async with (
            listening(application) as url,
            httpx.AsyncClient(base_url=url, timeout=WAIT_S, trust_env=False) as http,
        ):
            yield Plant(services, http, folder / "documents")
            await application.drain(0)


@pytest.fixture
async def plant(database_url: str, tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant_at(database_url, tmp_path) as running:
        await running.register("pump-7", "pump-8")
        yield running


async def checked(plant: Plant, told: Told) -> SetpointDirective | ModelDirective | ModelRetirement:
    """Return what was told, once its signature is found to be the ledger's."""
    key = await plant.verifier()
    name, _, key_id = told.data["key"].rpartition("+")
    signature = Signature(name, bytes.fromhex(key_id), base64.b64decode(told.data["signature"]))
    assert (key.name, key.key_id) == (name, signature.key_id)
    key.check(signed_text(told.data["directive"]), signature)
    directive = decode_directive(told.data["directive"])
    assert directive.position == told.id
    assert directive.agent == AGENT
    return directive


async def test_desired_setpoint_is_told_signed_and_with_its_end(plant: Plant) -> None:
    async with plant.stream(asset="pump-7") as stream:
        ready = await stream.next()
        assert (ready.event, ready.data) == ("ready", {})
        await plant.command(DesireSetpoint("pump-8", "flow", 0.0004))
        desired = await plant.command(DesireSetpoint("pump-7", "flow", 0.0005), "user:jo")
        directive = await checked(plant, await stream.next())
    assert isinstance(directive, SetpointDirective)
    assert directive.position == desired.position
    assert (directive.asset_id, directive.setpoint, directive.value) == ("pump-7", "flow", 0.0005)
    assert (directive.proposal_id, directive.proposed_by) == (None, None)
    assert directive.approved_by == "user:jo"
    assert directive.expires_at - directive.issued_at == timedelta(seconds=300)


async def test_signature_is_of_this_very_text(plant: Plant) -> None:
    async with plant.stream(asset="pump-7") as stream:
        await stream.next()
        await plant.command(DesireSetpoint("pump-7", "flow", 0.0005))
        told = await stream.next()
        await checked(plant, told)
        told.data["directive"] = told.data["directive"].replace("pump-7", "pump-8")
        with pytest.raises(InvalidInput) as refused:
            await checked(plant, told)
    assert refused.value.code == "note.signature_bad"


async def test_approved_proposal_is_told_once_with_both_who_decided(plant: Plant) -> None:
    async with plant.stream(asset="pump-7") as stream:
        await stream.next()
        await plant.command(
            ProposeSetpoint("sp-1", "pump-7", "flow", 0.0005, "less wear"), "user:jo"
        )
        await plant.command(ApproveSetpoint("sp-1"), "user:mara")
        await plant.command(DesireSetpoint("pump-7", "flow", 0.0006), "user:mara")
        directive = await checked(plant, await stream.next())
        following = await checked(plant, await stream.next())
    assert isinstance(directive, SetpointDirective)
    assert isinstance(following, SetpointDirective)
    assert (directive.proposal_id, directive.value) == ("sp-1", 0.0005)
    assert (directive.proposed_by, directive.approved_by) == ("user:jo", "user:mara")
    assert (following.proposal_id, following.value) == (None, 0.0006)


async def test_stream_resumes_beyond_the_last_event_id(plant: Plant) -> None:
    first = await plant.command(DesireSetpoint("pump-7", "flow", 0.0004))
    second = await plant.command(DesireSetpoint("pump-7", "flow", 0.0005))
    async with plant.stream(after=first.position, asset="pump-7") as stream:
        assert (await stream.next()).id == first.position
        told = await stream.next()
        assert told.id == second.position
        again = told.data
    async with plant.stream(after=first.position, asset="pump-7") as stream:
        await stream.next()
        assert (await stream.next()).data == again, "the same directive is the same bytes"


async def test_what_was_desired_before_an_agent_came_is_told_first(plant: Plant) -> None:
    await plant.command(DesireSetpoint("pump-7", "flow", 0.0004))
    last = await plant.command(DesireSetpoint("pump-7", "flow", 0.0005), "user:jo")
    other = await plant.command(DesireSetpoint("pump-8", "flow", 0.0006))
    async with plant.stream(asset=["pump-7", "pump-8"]) as stream:
        told = [await stream.next() for _ in range(3)]
        assert [(one.id, one.event) for one in told] == [
            (last.position, "directive"),
            (other.position, "directive"),
            (other.position, "ready"),
        ], "of each set-point the last, and where it begins behind them"
        directive = await checked(plant, told[0])
        assert isinstance(directive, SetpointDirective)
        assert (directive.value, directive.approved_by) == (0.0005, "user:jo")
        following = await plant.command(DesireSetpoint("pump-7", "flow", 0.0007))
        assert (await stream.next()).id == following.position
    async with plant.stream(after=other.position, asset="pump-7") as stream:
        assert (await stream.next()).event == "ready", "who has begun is told what comes after"
        assert (await stream.next()).id == following.position


async def test_what_was_answered_or_taken_back_is_not_told_to_who_comes_first(
    plant: Plant,
) -> None:
    await plant.register("pump-9")
    await plant.command(DesireSetpoint("pump-7", "flow", 0.0005))
    await plant.command(ReportSetpoint("pump-7", "flow", 0.0005))
    await plant.command(DesireSetpoint("pump-8", "flow", 0.0005))
    await plant.command(DeclineSetpoint("pump-8", "flow", 0.0005, "interlock.open", "a door"))
    wrong = await plant.command(DesireSetpoint("pump-9", "flow", 0.0005))
    recorded = await read_event(plant.services.ledger, wrong.position)
    assert recorded is not None
    await handle_correction(
        plant.services.ledger,
        CorrectRecord(asset_stream("pump-9"), recorded.event_id, "a slip"),
        actor="user:mara",
        event_id=uuid.uuid4(),
    )
    async with plant.stream(asset=["pump-7", "pump-8", "pump-9"]) as stream:
        assert (await stream.next()).event == "ready"


async def test_position_beyond_the_log_is_refused(plant: Plant) -> None:
    answer = await plant.http.get(
        "/v1/agents/edge-1/commands", params={"asset": "pump-7"}, headers={"last-event-id": "9999"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "position.beyond_head")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({}, {}),
        ({"asset": "pump-7", "colour": "red"}, {}),
        ({"asset": "pump-7"}, {"last-event-id": "-1"}),
        ({"asset": [f"pump-{n}" for n in range(1_001)]}, {}),
    ],
)
async def test_malformed_question_is_refused(
    plant: Plant, query: Mapping[str, Any], headers: dict[str, str]
) -> None:
    answer = await plant.http.get("/v1/agents/edge-1/commands", params=query, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "agents.query")


async def test_key_opens_its_own_stream_for_its_own_assets_alone(
    database_url: str, tmp_path: Path
) -> None:
    async with plant_at(database_url, tmp_path, api_keys=True) as plant:
        await plant.register("pump-7", "pump-8")
        text, _ = await create_key(
            plant.services.ledger,
            name=AGENT,
            roles=[Role.AGENT],
            locations=None,
            assets=["pump-7"],
            expires_at=None,
            created_by="user:mara",
            now=datetime.now(UTC),
        )
        plant.http.headers["authorization"] = f"Bearer {text}"
        for agent, asset in (("edge-2", "pump-7"), (AGENT, "pump-8")):
            answer = await plant.http.get(f"/v1/agents/{agent}/commands", params={"asset": asset})
            assert (answer.status_code, answer.json()["code"]) == (403, "access.denied")
        async with plant.stream(asset="pump-7") as stream:
            await stream.next()
            await plant.command(DesireSetpoint("pump-8", "flow", 0.0004))
            await plant.command(DesireSetpoint("pump-7", "flow", 0.0005))
            directive = await checked(plant, await stream.next())
        assert isinstance(directive, SetpointDirective)
        assert directive.asset_id == "pump-7"
        del plant.http.headers["authorization"]
        answer = await plant.http.get("/v1/agents/edge-1/commands", params={"asset": "pump-7"})
        assert answer.status_code == 401


async def test_promoted_model_is_told_and_its_file_is_served(plant: Plant) -> None:
    artefact = b"an ONNX file" * 1000
    content = ContentStore(str(plant.documents)).put(io.BytesIO(artefact))
    for version in ("1", "2"):
        await plant.command(TrainModel("wear", version, "wear", content.sha256, 1, 4, 1, "abc", ()))
    async with plant.stream(model="wear") as stream:
        await stream.next()
        await plant.command(PromoteModel("wear", "1", "first"))
        await plant.command(PromoteModel("wear", "2", "better"))
        told = [await checked(plant, await stream.next()) for _ in range(2)]
    assert [d.version for d in told if isinstance(d, ModelDirective)] == ["1", "2"]
    answer = await plant.http.get("/v1/agents/edge-1/models/wear")
    serving = await checked(plant, Told(told[1].position, "directive", answer.json()))
    assert serving == told[1]
    assert isinstance(serving, ModelDirective)
    file = await plant.http.get("/v1/agents/edge-1/models/wear/2")
    assert hashlib.sha256(file.content).hexdigest() == serving.artefact_sha256
    for path, code in (("none", "model.none_serves"), ("wear/9", "model.unknown_version")):
        missing = await plant.http.get(f"/v1/agents/edge-1/models/{path}")
        assert (missing.status_code, missing.json()["code"]) == (404, code)


async def test_retired_model_is_told_unless_another_version_serves(plant: Plant) -> None:
    for version in ("1", "2"):
        await plant.command(TrainModel("wear", version, "wear", "0" * 64, 1, 4, 1, "abc", ()))
    async with plant.stream(model="wear") as stream:
        await stream.next()
        await plant.command(PromoteModel("wear", "1", "first"))
        await plant.command(PromoteModel("wear", "2", "better"))
        await plant.command(RetireModel("wear", "2", "it drifts"))
        told = [await checked(plant, await stream.next()) for _ in range(3)]
    assert [type(one) for one in told] == [ModelDirective, ModelDirective, ModelRetirement]
    last = told[2]
    assert isinstance(last, ModelRetirement)
    assert (last.version, last.reason) == ("2", "it drifts")
    answer = await plant.http.get("/v1/agents/edge-1/models/wear")
    standing = await checked(plant, Told(last.position, "directive", answer.json()))
    assert standing == last
    again = await plant.command(PromoteModel("wear", "1", "it did not drift"))
    answer = await plant.http.get("/v1/agents/edge-1/models/wear")
    standing = await checked(plant, Told(again.position, "directive", answer.json()))
    assert isinstance(standing, ModelDirective)
    assert standing.version == "1"
