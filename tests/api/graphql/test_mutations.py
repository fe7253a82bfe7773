"""Mutations: what they record, once a key, and each of their failures as a member of the union."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from domain.asset import ClearAlert, RetireAsset
from eventlog.reading import read_page
from projections.twins.projection import TwinProjection
from tests.api.graphql.server import PUMP_TYPE, Server
from tests.api.graphql.test_alerts import raise_alert

pytestmark = pytest.mark.anyio

COMMON = """
  __typename
  ... on CommandSuccess { position version duplicate dryRun }
  ... on Error { code message hint path value limit }
"""
ASSET = "... on AssetCommandSuccess { asset { assetId title lifecycle version } }"
ALERT = "... on AcknowledgeAlertSuccess { alert { alertId state acknowledgedBy note } }"
NAMES = {
    "registerAsset": "RegisterAssetInput",
    "commissionAsset": "CommissionAssetInput",
    "retireAsset": "RetireAssetInput",
    "desireSetpoint": "DesireSetpointInput",
    "acknowledgeAlert": "AcknowledgeAlertInput",
}


def document_of(mutation: str) -> str:
    """Return the document that sends `mutation` with its input as a variable."""
    selection = COMMON + (ALERT if mutation == "acknowledgeAlert" else ASSET)
    field = f"{mutation}(input: $input) {{ {selection} }}"
    return f"mutation($input: {NAMES[mutation]}!) {{ {field} }}"


async def mutate(
    server: Server, mutation: str, input: dict[str, Any], *, key: str | None = None, **headers: str
) -> dict[str, Any]:
    """Return the result of a mutation under `key`, a fresh one where it is None."""
    answer = await server.post(
        document_of(mutation),
        {"input": {"idempotencyKey": key or str(uuid.uuid4()), **input}},
        **headers,
    )
    assert "errors" not in answer, answer["errors"]
    result: dict[str, Any] = answer["data"][mutation]
    return result


def registration(asset_id: str = "pump-1", **more: Any) -> dict[str, Any]:
    return {"assetId": asset_id, "assetType": PUMP_TYPE, **more}


# --- what they do -------------------------------------------------------------------------


async def test_registered_asset_is_in_the_answer(server: Server) -> None:
    result = await mutate(server, "registerAsset", registration(title="The blue one"))

    assert result == {
        "__typename": "RegisterAssetSuccess",
        "position": 1,
        "version": 1,
        "duplicate": False,
        "dryRun": False,
        "asset": {
            "assetId": "pump-1",
            "title": "The blue one",
            "lifecycle": "REGISTERED",
            "version": 1,
        },
    }


@pytest.mark.parametrize("title", [{}, {"title": None}, {"title": ""}])
async def test_title_is_the_natural_key_unless_one_is_given(
    server: Server, title: dict[str, Any]
) -> None:
    result = await mutate(server, "registerAsset", registration(**title))

    assert result["asset"]["title"] == "pump-1"


async def test_asset_is_commissioned_and_retired(server: Server) -> None:
    await server.register("pump-1")

    commissioned = await mutate(server, "commissionAsset", {"assetId": "pump-1"})
    retired = await mutate(server, "retireAsset", {"assetId": "pump-1", "reason": "worn out"})

    assert commissioned["__typename"] == "CommissionAssetSuccess"
    assert (commissioned["asset"]["lifecycle"], commissioned["version"]) == ("IN_SERVICE", 2)
    assert retired["__typename"] == "RetireAssetSuccess"
    assert (retired["asset"]["lifecycle"], retired["version"]) == ("RETIRED", 3)


@pytest.mark.parametrize(
    "wanted",
    [
        {"value": 0.0005},
        {"value": 0.0005, "unit": None},
        {"value": 30, "unit": "l/min"},
        {"value": 1.8, "unit": "m3/h"},
    ],
)
async def test_setpoint_is_kept_in_si(server: Server, wanted: dict[str, Any]) -> None:
    await server.register("pump-1")

    result = await mutate(
        server, "desireSetpoint", {"assetId": "pump-1", "setpoint": "flow", **wanted}
    )

    assert result["__typename"] == "DesireSetpointSuccess"
    (event,) = await read_page(server.ledger, 1)
    assert event.fact.value == pytest.approx(0.0005)


async def test_bound_of_a_setpoint_may_be_desired_in_the_unit_it_was_declared_in(
    server: Server,
) -> None:
    await server.register("pump-1")

    for value in (10, 150):
        wanted = {"assetId": "pump-1", "setpoint": "flow", "value": value, "unit": "l/min"}
        result = await mutate(server, "desireSetpoint", wanted)
        assert result["__typename"] == "DesireSetpointSuccess"


async def test_alert_is_acknowledged_by_whoever_acts(server: Server) -> None:
    await server.register("pump-1")
    alert_id = str(await raise_alert(server, "pump-1"))

    result = await mutate(
        server,
        "acknowledgeAlert",
        {"alertId": alert_id, "note": "seen"},
        **{"X-Heddle-Actor": "jane@example.com"},
    )

    assert result["__typename"] == "AcknowledgeAlertSuccess"
    assert result["alert"] == {
        "alertId": alert_id,
        "state": "ACKNOWLEDGED",
        "acknowledgedBy": "user:jane@example.com",
        "note": "seen",
    }


async def test_second_acknowledgement_changes_nothing(server: Server) -> None:
    await server.register("pump-1")
    alert_id = str(await raise_alert(server, "pump-1"))
    await mutate(server, "acknowledgeAlert", {"alertId": alert_id, "note": "first"})

    result = await mutate(server, "acknowledgeAlert", {"alertId": alert_id, "note": None})

    assert result["__typename"] == "AcknowledgeAlertSuccess"
    assert (result["position"], result["version"]) == (3, 3)
    assert result["alert"]["note"] == "first"
    assert await server.ledger.head() == 3


async def test_event_says_who_when_and_in_which_trace(server: Server) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    await mutate(server, "registerAsset", registration(), traceparent=traceparent)

    (event,) = await read_page(server.ledger, 0)
    assert event.actor == "user:local"
    assert event.occurred_at == server.clock.now
    assert event.traceparent is not None
    assert event.traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c-")


@pytest.mark.parametrize("name", ["", "a b", "-x", "é", "x" * 101])
async def test_malformed_actor_is_refused(empty_server: Server, name: str) -> None:
    response = await empty_server.http.post(
        "/graphql",
        json={"query": "{ log { position } }"},
        headers={b"X-Heddle-Actor": name.encode("latin-1")},
    )

    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert error["extensions"]["code"] == "actor.malformed_name"


async def test_several_mutations_are_carried_out_in_order_and_each_sees_its_own_write(
    server: Server,
) -> None:
    data = await server.ask(
        """
        mutation {
          first: registerAsset(input: {
            idempotencyKey: "a", assetId: "pump-1", assetType: "skab-pump-loop"
          }) { ... on RegisterAssetSuccess { asset { lifecycle version } } }
          second: commissionAsset(input: { idempotencyKey: "b", assetId: "pump-1" }) {
            ... on CommissionAssetSuccess { asset { lifecycle version twin { position } } }
          }
          third: retireAsset(input: { idempotencyKey: "c", assetId: "pump-1", reason: "" }) {
            ... on RetireAssetSuccess { asset { lifecycle version twin { position } } }
          }
        }
        """
    )

    assert data["first"]["asset"] == {"lifecycle": "REGISTERED", "version": 1}
    assert data["second"]["asset"]["lifecycle"] == "IN_SERVICE"
    assert data["third"]["asset"] == {
        "lifecycle": "RETIRED",
        "version": 3,
        "twin": {"position": 3},
    }


# --- once a key ---------------------------------------------------------------------------


async def test_same_key_with_the_same_content_is_carried_out_once(server: Server) -> None:
    first = await mutate(server, "registerAsset", registration(), key="k")
    await server.command(RetireAsset("pump-1", "worn"))
    again = await mutate(server, "registerAsset", registration(title=None), key="k")

    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert (again["position"], again["version"]) == (first["position"], first["version"])
    assert again["asset"]["lifecycle"] == "RETIRED"
    assert await server.ledger.head() == 2


async def test_same_key_with_other_content_is_refused(server: Server) -> None:
    await mutate(server, "registerAsset", registration("pump-1"), key="k")

    for mutation, input in (
        ("registerAsset", registration("pump-2")),
        ("registerAsset", registration("pump-1", title="other")),
        ("commissionAsset", {"assetId": "pump-1"}),
    ):
        result = await mutate(server, mutation, input, key="k")
        assert result["__typename"] == "ConflictError"
        assert result["code"] == "idempotency_key.reused"
        assert result["path"] == ["input", "idempotencyKey"]
    assert await server.ledger.head() == 1


async def test_same_key_sent_many_times_at_once_is_carried_out_once(server: Server) -> None:
    results = await asyncio.gather(
        *(mutate(server, "registerAsset", registration(), key="k") for _ in range(8))
    )

    assert {result["__typename"] for result in results} == {"RegisterAssetSuccess"}
    assert {result["position"] for result in results} == {1}
    assert [result["duplicate"] for result in results].count(False) == 1
    assert await server.ledger.head() == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", "a\0b"])
async def test_malformed_key_is_refused(server: Server, key: str) -> None:
    answer = await server.post(
        document_of("registerAsset"),
        {"input": {"idempotencyKey": key, **registration()}},
    )

    result = answer["data"]["registerAsset"]
    assert result["__typename"] == "ValidationError"
    assert result["code"] == "idempotency_key.malformed"
    assert result["path"] == ["input", "idempotencyKey"]
    assert await server.ledger.head() == 0


@pytest.mark.parametrize("given", [{}, {"idempotencyKey": None}])
async def test_key_is_required(empty_server: Server, given: dict[str, Any]) -> None:
    answer = await empty_server.post(
        "mutation($input: RegisterAssetInput!) { registerAsset(input: $input) { __typename } }",
        {"input": {**registration(), **given}},
    )

    assert answer["errors"][0]["extensions"]["code"] == "graphql.invalid"
    assert "data" not in answer


# --- only if, only as if ------------------------------------------------------------------


async def test_expected_version_that_stands_is_accepted(server: Server) -> None:
    registered = await mutate(server, "registerAsset", registration(expectedVersion=0))
    commissioned = await mutate(
        server, "commissionAsset", {"assetId": "pump-1", "expectedVersion": registered["version"]}
    )

    assert commissioned["__typename"] == "CommissionAssetSuccess"


@pytest.mark.parametrize("version", [0, 2, 2**53 - 1])
async def test_expected_version_that_has_passed_is_a_conflict(server: Server, version: int) -> None:
    await server.register("pump-1")

    result = await mutate(
        server, "commissionAsset", {"assetId": "pump-1", "expectedVersion": version}
    )

    assert result["__typename"] == "ConflictError"
    assert result["code"] == "stream.version_conflict"
    assert result["path"] == ["input", "expectedVersion"]
    assert (result["value"], result["limit"]) == (version, 1)
    assert result["hint"]


async def test_dry_run_decides_and_records_nothing(server: Server) -> None:
    tried = await mutate(server, "registerAsset", registration(dryRun=True), key="k")
    assert tried == {
        "__typename": "RegisterAssetSuccess",
        "position": 0,
        "version": 0,
        "duplicate": False,
        "dryRun": True,
        "asset": None,
    }
    assert await server.ledger.head() == 0

    # A trial does not use up its key.
    done = await mutate(server, "registerAsset", registration(dryRun=False), key="k")
    assert (done["duplicate"], done["asset"]["assetId"]) == (False, "pump-1")

    refused = await mutate(server, "registerAsset", registration(dryRun=True))
    assert refused["code"] == "asset.already_registered"


async def test_dry_run_shows_the_asset_as_it_stands(server: Server) -> None:
    await server.register("pump-1")

    tried = await mutate(server, "commissionAsset", {"assetId": "pump-1", "dryRun": True})

    assert tried["asset"]["lifecycle"] == "REGISTERED"


# --- failures -----------------------------------------------------------------------------

UNKNOWN_ALERT = str(uuid.UUID(int=7))


@pytest.mark.parametrize(
    ("mutation", "input", "member", "code", "path"),
    [
        (
            "registerAsset",
            registration("no spaces"),
            "ValidationError",
            "asset.malformed_name",
            ["input", "assetId"],
        ),
        (
            "registerAsset",
            {"assetId": "pump-9", "assetType": "toaster"},
            "NotFoundError",
            "asset_type.unknown",
            ["input", "assetType"],
        ),
        (
            "registerAsset",
            registration("pump-9", title="x" * 201),
            "ValidationError",
            "text.too_long",
            ["input", "title"],
        ),
        (
            "registerAsset",
            registration("pump-9", title="a\0b", dryRun=True),
            "ValidationError",
            "event.text_malformed",
            ["input", "title"],
        ),
        (
            "registerAsset",
            registration("pump-1"),
            "RejectedError",
            "asset.already_registered",
            ["input", "assetId"],
        ),
        (
            "commissionAsset",
            {"assetId": "pump-9"},
            "NotFoundError",
            "asset.unknown",
            ["input", "assetId"],
        ),
        (
            "commissionAsset",
            {"assetId": "pump-1"},
            "RejectedError",
            "asset.already_commissioned",
            ["input", "assetId"],
        ),
        (
            "commissionAsset",
            {"assetId": "pump-2"},
            "RejectedError",
            "asset.retired",
            ["input", "assetId"],
        ),
        (
            "retireAsset",
            {"assetId": "pump-1", "reason": "x" * 2001},
            "ValidationError",
            "text.too_long",
            ["input", "reason"],
        ),
        (
            "desireSetpoint",
            {"assetId": "pump-9", "setpoint": "flow", "value": 30, "unit": "l/min"},
            "NotFoundError",
            "asset.unknown",
            ["input", "assetId"],
        ),
        (
            "desireSetpoint",
            {"assetId": "a b", "setpoint": "flow", "value": 30, "unit": "l/min"},
            "ValidationError",
            "asset.malformed_name",
            ["input", "assetId"],
        ),
        (
            "desireSetpoint",
            {"assetId": "pump-1", "setpoint": "colour", "value": 30},
            "NotFoundError",
            "setpoint.unknown",
            ["input", "setpoint"],
        ),
        (
            "desireSetpoint",
            {"assetId": "pump-1", "setpoint": "colour", "value": 30, "unit": "l/min"},
            "NotFoundError",
            "setpoint.unknown",
            ["input", "setpoint"],
        ),
        (
            "desireSetpoint",
            {"assetId": "pump-1", "setpoint": "flow", "value": 30, "unit": "bar"},
            "ValidationError",
            "unit.quantity_mismatch",
            ["input", "unit"],
        ),
        (
            "desireSetpoint",
            {"assetId": "pump-1", "setpoint": "flow", "value": 30, "unit": "gallon"},
            "ValidationError",
            "unit.unknown",
            ["input", "unit"],
        ),
        (
            "desireSetpoint",
            {"assetId": "pump-1", "setpoint": "flow", "value": 151, "unit": "l/min"},
            "ValidationError",
            "setpoint.out_of_bounds",
            ["input", "value"],
        ),
        (
            "desireSetpoint",
            {"assetId": "pump-2", "setpoint": "flow", "value": 30, "unit": "l/min"},
            "RejectedError",
            "asset.retired",
            ["input", "assetId"],
        ),
        (
            "acknowledgeAlert",
            {"alertId": UNKNOWN_ALERT},
            "NotFoundError",
            "alert.unknown",
            ["input", "alertId"],
        ),
    ],
)
async def test_expected_failure_is_a_member_of_the_union(
    server: Server, mutation: str, input: dict[str, Any], member: str, code: str, path: list[str]
) -> None:
    await server.register("pump-1", "pump-2", commission=True)
    await server.command(RetireAsset("pump-2", "worn"))
    head = await server.ledger.head()

    result = await mutate(server, mutation, input)

    assert (result["__typename"], result["code"]) == (member, code)
    assert result["path"] == path
    assert result["message"]
    assert await server.ledger.head() == head


async def test_cleared_alert_cannot_be_acknowledged(server: Server) -> None:
    await server.register("pump-1")
    alert_id = await raise_alert(server, "pump-1")
    await server.command(ClearAlert("pump-1", alert_id, 1.0))

    result = await mutate(server, "acknowledgeAlert", {"alertId": str(alert_id)})

    assert (result["__typename"], result["code"]) == ("NotFoundError", "alert.unknown")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e400"])
async def test_number_that_is_not_finite_never_reaches_the_log(server: Server, number: str) -> None:
    await server.register("pump-1")
    body = (
        '{"query": "mutation($v: Float!) { desireSetpoint(input: {idempotencyKey: \\"k\\", '
        'assetId: \\"pump-1\\", setpoint: \\"flow\\", value: $v}) { __typename } }", '
        f'"variables": {{"v": {number}}}}}'
    )
    response = await server.http.post(
        "/graphql", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "body.malformed"

    answer = await server.post(
        'mutation { desireSetpoint(input: {idempotencyKey: "k", assetId: "pump-1", '
        f'setpoint: "flow", value: {number}}}) {{ __typename ... on Error {{ code }} }} }}'
    )
    outcome = answer.get("data") or answer["errors"][0]["extensions"]
    assert outcome in (
        {"code": "graphql.invalid"},
        {"code": "graphql.syntax"},
        {"desireSetpoint": {"__typename": "ValidationError", "code": "setpoint.out_of_bounds"}},
    )
    assert await server.ledger.head() == 1


async def test_command_stands_although_its_projection_is_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.graphql.context.PROJECTION_WAIT_S_MAX", 0.2)
    await server.services.runners[TwinProjection.name].close()

    answer = await server.post(
        document_of("registerAsset"),
        {"input": {"idempotencyKey": "k", **registration()}},
    )

    result = answer["data"]["registerAsset"]
    assert (result["__typename"], result["position"]) == ("RegisterAssetSuccess", 1)
    assert result["asset"] is None
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "projection.behind"
    assert error["path"] == ["registerAsset", "asset"]


async def test_min_position_reads_ones_own_write(server: Server) -> None:
    result = await mutate(server, "registerAsset", registration())
    document = """
        query($at: Position) {
          asset(assetId: "pump-1", minPosition: $at) { assetId }
          assets(first: 1, minPosition: $at) { position }
          alerts(first: 1, minPosition: $at) { position }
        }
    """

    data = await server.ask(document, at=result["position"])

    assert data["asset"] == {"assetId": "pump-1"}
    assert data["assets"]["position"] >= result["position"]
    assert data["alerts"]["position"] >= result["position"]
    assert (await server.ask(document, at=None))["asset"] == {"assetId": "pump-1"}
    assert (await server.ask(document))["asset"] == {"assetId": "pump-1"}


async def test_min_position_that_is_not_reached_in_time_is_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.graphql.context.PROJECTION_WAIT_S_MAX", 0.1)

    error = await server.error('{ asset(assetId: "pump-1", minPosition: 99) { assetId } }')

    assert error["extensions"]["code"] == "projection.behind"
    assert error["extensions"]["value"] == 99
    assert error["extensions"]["hint"]
    assert error["path"] == ["asset"]


@pytest.mark.parametrize("position", [-1, 2**53, "1", 1.5, True])
async def test_position_that_is_none_is_refused(empty_server: Server, position: object) -> None:
    document = "query($at: Position) { assets(first: 1, minPosition: $at) { position } }"

    assert await empty_server.code(document, at=position) == "position.malformed"
