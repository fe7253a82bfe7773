"""Commands over GraphQL: every one that the domain decides, batches of them, corrections."""

from __future__ import annotations

import dataclasses
import types
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from graphql import GraphQLInputObjectType

from api.access.development import ISSUER, KEY_FILE, audience_of, make_token
from api.access.rights import Role
from api.access.step_up import nonce_of
from api.graphql.commands import camel
from api.graphql.declared import MUTATIONS
from api.graphql.schema import create_schema
from domain.asset import AcknowledgeAlert, DesireSetpoint, RegisterAsset
from domain.catalogue import DECIDERS
from domain.records import Meaning
from eventlog.commands import load
from eventlog.reading import read_page
from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

SCHEMA = create_schema().core
OWN_INPUTS = {AcknowledgeAlert, DesireSetpoint, RegisterAsset}
"""Commands whose inputs are not their fields: tested in test_mutations.py."""
BATCH = """
mutation($items: [CommandItem!]!) {
  batch(input: {items: $items}) {
    succeeded position
    items {
      index mutation idempotencyKey
      outcome {
        __typename
        ... on CommandSuccess { position version duplicate dryRun }
        ... on Error { code path value }
      }
    }
  }
}
"""


async def send(server: Server, mutation: str, **input: Any) -> dict[str, Any]:
    """Return the result of `mutation`."""
    title = mutation[0].upper() + mutation[1:]
    answer = await server.ask(
        f"mutation($input: {title}Input!) {{ {mutation}(input: $input) {{ __typename "
        "... on CommandSuccess { position version duplicate dryRun } "
        "... on Error { code message path value limit } } }",
        input={"idempotencyKey": str(uuid.uuid4()), **input},
    )
    result: dict[str, Any] = answer[mutation]
    return result


async def done(server: Server, mutation: str, **input: Any) -> dict[str, Any]:
    """Return the success of `mutation`, which must succeed."""
    result = await send(server, mutation, **input)
    title = mutation[0].upper() + mutation[1:]
    assert result["__typename"] == f"{title}Success", result
    return result


# --- all of them --------------------------------------------------------------------------


def test_every_command_that_the_domain_decides_is_a_mutation() -> None:
    decided = {command for decider in DECIDERS for command in decider.command_types}

    assert {made.declared.command for made in MUTATIONS.values()} == decided
    mutation_type = SCHEMA.mutation_type
    assert mutation_type is not None
    assert set(MUTATIONS) <= set(mutation_type.fields)


@pytest.mark.parametrize(
    "name",
    sorted(name for name, made in MUTATIONS.items() if made.declared.command not in OWN_INPUTS),
)
def test_input_has_the_fields_of_its_command(name: str) -> None:
    made = MUTATIONS[name]
    input_type = SCHEMA.type_map[f"{name[0].upper()}{name[1:]}Input"]
    assert isinstance(input_type, GraphQLInputObjectType)

    fields = {camel(field.name) for field in dataclasses.fields(made.declared.command)}

    common = {"idempotencyKey", "expectedVersion", "dryRun", "occurredAt"}
    assert set(input_type.fields) - common == fields


@pytest.mark.parametrize("name", sorted(MUTATIONS))
async def test_every_mutation_answers_with_a_member_of_its_union(
    empty_server: Server, name: str
) -> None:
    """On an empty log most are refused; what counts is that each is decided, and says so."""
    made = MUTATIONS[name]
    input = _example(made.declared.command)
    if made.declared.command is AcknowledgeAlert:
        del input["assetId"]

    result = await send(empty_server, name, dryRun=True, **input)

    assert result["__typename"] in {
        f"{name[0].upper()}{name[1:]}Success",
        "NotFoundError",
        "RejectedError",
        "ValidationError",
    }
    if "code" in result:
        assert "." in result["code"]
        assert result["path"][0] == "input"
    assert await empty_server.ledger.head() == 0


def _example(record: type) -> dict[str, Any]:
    """Return a GraphQL input for `record` with every required field."""
    hints = get_type_hints(record)
    return {
        camel(field.name): _value(field.name, hints[field.name])
        for field in dataclasses.fields(record)
        if field.default is dataclasses.MISSING
    }


def _value(name: str, hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return None
    if get_origin(hint) is tuple:
        return [_value(name, get_args(hint)[0])]
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return _example(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint)).name
    samples: Mapping[type, Any] = {
        bool: True,
        datetime: "2020-03-09T10:00:00Z",
        float: 0.5,
        int: 1,
        uuid.UUID: "0198c5a6-7e10-7000-8000-000000000001",
    }
    if hint is str:
        texts = {"subject": "part:SN-1", "sha256": "0" * 64, "artefact_sha256": "0" * 64}
        return texts.get(name, "a-1")
    return samples[hint]


# --- a part's way -------------------------------------------------------------------------


async def test_part_is_made_inspected_and_dispositioned(server: Server) -> None:
    await server.register("lathe-1", commission=True)
    await done(
        server,
        "receiveLot",
        lotId="L-1",
        material="42CrMo4",
        quantity=10,
        unit="kg",
        supplier="Saarstahl",
        supplierLot="4711",
    )
    await done(server, "startProcessRun", runId="R-1", assetId="lathe-1", operation="turning")
    await done(server, "consumeLot", lotId="L-1", runId="R-1", quantity=2.5, unit="kg")
    await done(server, "createPart", partId="SN-1", partNumber="SHAFT", runId="R-1")
    await done(
        server,
        "completeProcessRun",
        runId="R-1",
        energyJ=3.6e6,
        parameters=[
            {"name": "speed", "mean": 1200, "minimum": 1190, "maximum": 1210, "unit": "rpm"}
        ],
    )
    await done(server, "registerInstrument", instrumentId="MIC-1", title="Micrometer")
    await done(
        server,
        "calibrateInstrument",
        instrumentId="MIC-1",
        calibratedAt="2020-01-01T00:00:00Z",
        validUntil="2021-01-01T00:00:00Z",
    )
    await done(
        server,
        "recordInspection",
        inspectionId="I-1",
        subject="part:SN-1",
        inspectedAt="2020-03-09T12:00:00Z",
        verdict="DEFECTIVE",
        judge="PERSON",
        defectCodes=["OVERSIZE"],
        characteristics=[
            {
                "name": "diameter",
                "nominal": 25,
                "lowerLimit": 24.98,
                "upperLimit": 25.02,
                "measured": 25.05,
                "unit": "mm",
                "instrumentId": "MIC-1",
            }
        ],
    )
    await done(
        server,
        "openNonconformance",
        nonconformanceId="N-1",
        subject="part:SN-1",
        defectCode="OVERSIZE",
        description="0.03 mm too thick",
        inspectionId="I-1",
    )
    last = await done(
        server,
        "dispositionNonconformance",
        nonconformanceId="N-1",
        disposition="REWORK",
        reason="can be turned again",
    )

    lot, _ = await load(server.ledger, "lot:L-1")
    assert lot.left == pytest.approx(7.5)
    (event,) = await read_page(server.ledger, last["position"] - 1)
    assert event.type == "nonconformance.dispositioned"
    assert event.fact.disposition.value == "REWORK"
    assert event.actor == "user:local"


async def test_success_shows_the_object_as_the_command_left_it(server: Server) -> None:
    lot = {"lotId": "L-1", "material": "steel", "quantity": 10, "unit": "kg"}
    document = """
      mutation($input: CreateLotInput!) {
        createLot(input: $input) { ... on LotCommandSuccess { version lot { lotId version } } }
      }
    """

    trial = await server.ask(document, input={**lot, "idempotencyKey": "a", "dryRun": True})
    told = await server.ask(document, input={**lot, "idempotencyKey": "b"})

    assert trial["createLot"] == {"version": 0, "lot": None}
    assert told["createLot"] == {"version": 1, "lot": {"lotId": "L-1", "version": 1}}


async def test_command_of_the_past_is_recorded_as_of_then(server: Server) -> None:
    told = await done(
        server,
        "receivePart",
        partId="SN-2",
        partNumber="BOLT",
        supplier="Bolts Ltd",
        occurredAt="2020-03-01T08:00:00Z",
    )

    (event,) = await read_page(server.ledger, told["position"] - 1)

    assert event.occurred_at == datetime(2020, 3, 1, 8, tzinfo=UTC)


async def test_command_of_the_future_is_refused(server: Server) -> None:
    told = await send(
        server,
        "receivePart",
        partId="SN-2",
        partNumber="BOLT",
        supplier="Bolts Ltd",
        occurredAt="2030-03-01T08:00:00Z",
    )

    assert (told["__typename"], told["code"]) == ("ValidationError", "command.in_future")
    assert told["path"] == ["input", "occurredAt"]
    assert await server.ledger.head() == 0


async def test_lot_that_would_be_overdrawn_is_refused_unless_there_is_a_reason(
    server: Server,
) -> None:
    await server.register("lathe-1", commission=True)
    await done(server, "createLot", lotId="L-1", material="steel", quantity=1, unit="kg")
    await done(server, "startProcessRun", runId="R-1", assetId="lathe-1", operation="turning")
    use = {"lotId": "L-1", "runId": "R-1", "quantity": 2, "unit": "kg"}

    refused = await send(server, "consumeLot", **use)
    accepted = await send(server, "consumeLot", **use, excessReason="the scale was wrong")

    assert (refused["__typename"], refused["code"]) == ("RejectedError", "lot.exceeded")
    assert accepted["__typename"] == "ConsumeLotSuccess"


async def test_nul_deep_in_an_input_is_refused_before_anything_is_recorded(server: Server) -> None:
    told = await send(
        server,
        "startProcessRun",
        runId="R-1",
        assetId="lathe-1",
        operation="turning",
        parameters=[{"name": "sp\0eed", "value": 1, "unit": "rpm"}],
    )

    assert (told["__typename"], told["code"]) == ("ValidationError", "event.text_malformed")


async def test_work_order_goes_its_way(server: Server) -> None:
    await server.register("pump-1", commission=True)
    order = {"workOrderId": "WO-1"}
    await done(
        server,
        "requestWorkOrder",
        **order,
        assetId="pump-1",
        title="Replace the bearing",
        failureMode="bearing_wear",
        priority="HIGH",
    )
    await done(server, "approveWorkOrder", **order)
    await done(
        server,
        "scheduleWorkOrder",
        **order,
        plannedStart="2020-03-10T06:00:00Z",
        plannedEnd="2020-03-10T08:00:00Z",
        assignee="jane",
    )
    await done(server, "startWorkOrder", **order, assetDown=True)
    server.clock.move(3600)
    completion = {
        **order,
        "completedAt": "2020-03-09T13:00:00Z",
        "finding": "NO_FAULT_FOUND",
        "replacements": [],
        "labourS": 3600,
        "cost": 80,
        "currency": "EUR",
    }
    stale = await send(server, "completeWorkOrder", **completion, expectedVersion=2)
    await done(server, "completeWorkOrder", **completion)
    twice = await send(
        server, "completeWorkOrder", **{**completion, "completedAt": "2020-03-09T13:00:01Z"}
    )

    assert (stale["__typename"], stale["code"]) == ("ConflictError", "stream.version_conflict")
    assert stale["path"] == ["input", "expectedVersion"]
    assert twice["__typename"] == "RejectedError"


# --- batches ------------------------------------------------------------------------------


def received(part_id: str, *, key: str | None = None) -> dict[str, Any]:
    return {
        "receivePart": {
            "idempotencyKey": key or f"receive {part_id}",
            "partId": part_id,
            "partNumber": "BOLT",
            "supplier": "Bolts Ltd",
        }
    }


async def test_batch_carries_out_each_and_a_refused_one_takes_no_other_with_it(
    server: Server,
) -> None:
    items = [
        received("SN-1"),
        {"stockPart": {"idempotencyKey": "s", "partId": "SN-unknown"}},
        received("SN-2"),
    ]

    told = (await server.ask(BATCH, items=items))["batch"]
    again = (await server.ask(BATCH, items=items))["batch"]

    assert [item["mutation"] for item in told["items"]] == [
        "receivePart",
        "stockPart",
        "receivePart",
    ]
    assert [item["outcome"]["__typename"] for item in told["items"]] == [
        "BatchItemSuccess",
        "NotFoundError",
        "BatchItemSuccess",
    ]
    assert (told["succeeded"], told["position"]) == (2, 2)
    assert told["items"][1]["outcome"]["code"] == "part.unknown"
    assert [item["outcome"].get("duplicate") for item in again["items"]] == [True, None, True]
    assert await server.ledger.head() == 2


async def test_batch_shares_its_keys_with_the_mutations(server: Server) -> None:
    item = received("SN-1", key="k")
    await done(server, "receivePart", **item["receivePart"])

    told = (await server.ask(BATCH, items=[item]))["batch"]

    assert told["items"][0]["outcome"]["duplicate"] is True
    assert await server.ledger.head() == 1


async def test_item_of_a_batch_is_exactly_one_command(server: Server) -> None:
    both = received("SN-1") | {"stockPart": {"idempotencyKey": "s", "partId": "SN-1"}}

    for item in ({}, both):
        answer = await server.post(BATCH, {"items": [item]})
        assert "data" not in answer
        assert answer["errors"]
    assert await server.ledger.head() == 0


@pytest.mark.parametrize("count", [0, 201])
async def test_batch_has_a_bound(server: Server, count: int) -> None:
    items = [received(f"SN-{n}") for n in range(count)]

    assert await server.code(BATCH, items=items) == "batch.size"
    assert await server.ledger.head() == 0


# --- corrections --------------------------------------------------------------------------


async def test_correction_says_what_is_true_instead(server: Server) -> None:
    told = await done(server, "createLot", lotId="L-1", material="steel", quantity=10, unit="kg")
    (event,) = await read_page(server.ledger, told["position"] - 1)
    answer = await server.ask("{ events(first: 1) { nodes { fact } } }")
    fact = answer["events"]["nodes"][0]["fact"]
    correction = {
        "stream": "lot:L-1",
        "correctedEventId": str(event.event_id),
        "reason": "the scale was wrong",
        "replacement": {"type": event.type, "fact": {**fact, "quantity": 9.5}},
    }

    trial = await done(server, "correctRecord", **correction, dryRun=True)
    corrected = await done(server, "correctRecord", **correction)

    assert trial["dryRun"] is True
    assert corrected["version"] == 2
    lot, _ = await load(server.ledger, "lot:L-1")
    assert lot.left == pytest.approx(9.5)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"replacement": {"type": "lot.no_such", "fact": {}}}, "correction.malformed_replacement"),
        ({"replacement": {"type": "lot.created", "fact": []}}, "correction.malformed_replacement"),
        (
            {"correctedEventId": "0198c5a6-7e10-7000-8000-000000000009"},
            "correction.unknown_event",
        ),
        ({"occurredAt": "2030-01-01T00:00:00Z"}, "command.in_future"),
    ],
)
async def test_correction_that_makes_no_sense_is_refused(
    server: Server, change: dict[str, Any], code: str
) -> None:
    told = await done(server, "createLot", lotId="L-1", material="steel", quantity=10, unit="kg")
    (event,) = await read_page(server.ledger, told["position"] - 1)
    correction = {"stream": "lot:L-1", "correctedEventId": str(event.event_id), "reason": "wrong"}

    refused = await send(server, "correctRecord", **correction | change)

    assert refused["code"] == code
    assert await server.ledger.head() == 1


# --- signatures ---------------------------------------------------------------------------


async def test_signature_needs_somebody_who_vouches_for_the_signer(server: Server) -> None:
    told = await done(server, "createLot", lotId="L-1", material="steel", quantity=10, unit="kg")

    refused = await send(server, "signRecord", **signature(told["position"], "none"))

    assert (refused["__typename"], refused["code"]) == (
        "UnavailableError",
        "signature.no_authority",
    )


def signature(position: int, authentication: str) -> dict[str, Any]:
    return {
        "stream": "lot:L-1",
        "position": position,
        "signerName": "Jane Doe",
        "meaning": "APPROVED",
        "authentication": authentication,
    }


@pytest.fixture
async def signing(shared_database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that accepts tokens of this machine, and a client who has one."""
    async with serving(
        shared_database_url,
        ledger=f"signing-{uuid.uuid4().hex[:8]}",
        dev_tokens=True,
        data_dir=tmp_path,
    ) as running:
        token = make_token(
            tmp_path,
            running.ledger.name,
            actor="jane",
            roles=[Role.QUALITY],
            locations=None,
            life=timedelta(hours=1),
            now=datetime.now(UTC),
        )
        running.http.headers["Authorization"] = f"Bearer {token}"
        running.clock.now = datetime.now(UTC)
        yield running


def proof(server: Server, position: int, **claims: Any) -> str:
    """Return a token as an identity provider would give it for a signature."""
    now = datetime.now(UTC)
    key = load_pem_private_key(
        (server.services.settings.data_dir / KEY_FILE).read_bytes(), password=None
    )
    return jwt.encode(
        {
            "iss": ISSUER,
            "aud": audience_of(server.ledger.name),
            "sub": "jane",
            "exp": now + timedelta(minutes=5),
            "auth_time": int(now.timestamp()),
            "amr": ["pwd", "otp", "mfa"],
            "nonce": nonce_of("lot:L-1", position, Meaning.APPROVED),
            **claims,
        },
        cast("Ed25519PrivateKey", key),
        algorithm="EdDSA",
    )


async def test_record_is_signed_by_whoever_has_just_proved_who_he_is(signing: Server) -> None:
    told = await done(signing, "createLot", lotId="L-1", material="steel", quantity=10, unit="kg")
    position = told["position"]
    given = signature(position, proof(signing, position))

    trial = await done(signing, "signRecord", **given, dryRun=True)
    signed = await done(signing, "signRecord", **given)

    assert trial["dryRun"] is True
    (event,) = await read_page(signing.ledger, signed["position"] - 1)
    assert event.type == "record.signed"
    assert (event.fact.signer, event.fact.meaning) == ("user:jane", Meaning.APPROVED)
    assert event.fact.components == ("otp", "pwd")
    assert given["authentication"].encode() not in (event.payload or b"")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"sub": "joe"}, "signature.signer_mismatch"),
        ({"amr": ["pwd", "mfa"]}, "signature.components_missing"),
        ({"amr": "pwd otp"}, "signature.authentication_refused"),
        ({"auth_time": 1_500_000_000}, "signature.stale_authentication"),
        ({"auth_time": "now"}, "signature.authentication_refused"),
        ({"nonce": "another"}, "signature.authentication_refused"),
        ({"nonce": None}, "signature.authentication_refused"),
        ({"aud": "urn:heddle:ledger:another"}, "signature.authentication_refused"),
    ],
)
async def test_proof_that_proves_something_else_signs_nothing(
    signing: Server, claims: dict[str, Any], code: str
) -> None:
    told = await done(signing, "createLot", lotId="L-1", material="steel", quantity=10, unit="kg")
    position = told["position"]

    refused = await send(
        signing, "signRecord", **signature(position, proof(signing, position, **claims))
    )

    assert (refused["__typename"], refused["code"]) == ("RejectedError", code)
    assert await signing.ledger.head() == position


async def test_command_takes_its_right_also_in_a_batch(signing: Server) -> None:
    release = {
        "approveWorkOrder": {"idempotencyKey": "a", "workOrderId": "WO-1"},
    }

    told = (await signing.ask(BATCH, items=[release, received("SN-1")]))["batch"]

    outcomes = [item["outcome"] for item in told["items"]]
    assert (outcomes[0]["__typename"], outcomes[0]["code"]) == (
        "NotAllowedError",
        "access.denied",
    )
    assert outcomes[1]["__typename"] == "BatchItemSuccess"
