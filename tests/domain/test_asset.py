"""An asset's life: which command causes which events, and what each event makes of the asset."""

from __future__ import annotations

import math
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from domain.asset import (
    AcknowledgeAlert,
    AlertAcknowledged,
    AlertCleared,
    AlertEscalated,
    AlertRaised,
    AssetCommand,
    AssetCommissioned,
    AssetRegistered,
    AssetRetired,
    ClearAlert,
    CommissionAsset,
    DeclineSetpoint,
    DesireSetpoint,
    EscalateAlert,
    RaiseAlert,
    ReadingsLost,
    RegisterAsset,
    ReportReadingsLost,
    ReportSetpoint,
    RetireAsset,
    SetpointDeclined,
    SetpointDesired,
    SetpointReported,
    asset_stream,
    telemetry_stream,
)
from domain.asset_decider import (
    ESCALATION_LEVEL_MAX,
    Registered,
    Retired,
    Unregistered,
    decide,
    evolve,
    fold,
)
from domain.asset_model import Severity
from domain.asset_types import asset_type
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.texts import NOTE_LENGTH_MAX, TITLE_LENGTH_MAX
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import given

LOOP = "loop-1"
PUMP_LOOP = "skab-pump-loop"
ALERT = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
OTHER_ALERT = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8058")
SINCE = datetime(2020, 3, 9, 10, 34, 33, tzinfo=UTC)
FLOW = asset_type(PUMP_LOOP).setpoint("flow")

registered = AssetRegistered(LOOP, PUMP_LOOP, "Loop one")
commissioned = AssetCommissioned(LOOP)
retired = AssetRetired(LOOP, "worn out")


def alert_raised(alert_id: uuid.UUID = ALERT) -> AlertRaised:
    return AlertRaised(
        LOOP, alert_id, "flow_low", Severity.CRITICAL, "flow", 4e-4, 5e-4, SINCE, "flow is low"
    )


def raise_alert(alert_id: uuid.UUID = ALERT) -> RaiseAlert:
    return RaiseAlert(
        LOOP, alert_id, "flow_low", Severity.CRITICAL, "flow", 4e-4, 5e-4, SINCE, "flow is low"
    )


EVERY_OTHER_COMMAND: tuple[AssetCommand, ...] = (
    CommissionAsset(LOOP),
    RetireAsset(LOOP, "worn out"),
    DesireSetpoint(LOOP, "flow", FLOW.safe_min),
    ReportSetpoint(LOOP, "flow", FLOW.safe_min),
    raise_alert(),
    AcknowledgeAlert(LOOP, ALERT),
    ClearAlert(LOOP, ALERT, 6e-4),
)


# --- registering --------------------------------------------------------------------------


def test_an_asset_is_registered() -> None:
    given().when(RegisterAsset(LOOP, PUMP_LOOP, " Loop one ")).then(registered)


def test_an_asset_without_a_title_is_called_by_its_name() -> None:
    given().when(RegisterAsset(LOOP, PUMP_LOOP, "  ")).then(AssetRegistered(LOOP, PUMP_LOOP, LOOP))


def test_an_asset_is_registered_once() -> None:
    again = RegisterAsset(LOOP, PUMP_LOOP, "Loop one")
    given(registered).when(again).then_rejected(CommandRejected, "asset.already_registered", LOOP)


def test_a_retired_asset_is_not_registered_again() -> None:
    again = RegisterAsset(LOOP, PUMP_LOOP, "Loop one")
    given(registered, retired).when(again).then_rejected(
        CommandRejected, "asset.already_registered", LOOP
    )


def test_an_asset_of_an_unknown_type_is_not_registered() -> None:
    given().when(RegisterAsset(LOOP, "teapot", "")).then_rejected(
        NotFound, "asset_type.unknown", "teapot"
    )


@pytest.mark.parametrize("name", ["", "-loop", "loop 1", "asset:loop", "löop", "x" * 65, "a\n"])
def test_a_malformed_name_is_refused(name: str) -> None:
    given().when(RegisterAsset(name, PUMP_LOOP, "")).then_rejected(
        InvalidInput, "asset.malformed_name"
    )


def test_a_title_has_a_limit() -> None:
    long = "x" * (TITLE_LENGTH_MAX + 1)
    given().when(RegisterAsset(LOOP, PUMP_LOOP, long)).then_rejected(
        InvalidInput, "text.too_long", TITLE_LENGTH_MAX + 1
    )
    given().when(RegisterAsset(LOOP, PUMP_LOOP, long[1:])).then(
        AssetRegistered(LOOP, PUMP_LOOP, long[1:])
    )


# --- what only a registered asset accepts -------------------------------------------------


@pytest.mark.parametrize("command", EVERY_OTHER_COMMAND, ids=lambda c: type(c).__name__)
def test_an_unregistered_asset_accepts_nothing_but_its_registration(command: AssetCommand) -> None:
    given().when(command).then_rejected(NotFound, "asset.unknown", LOOP)


@pytest.mark.parametrize("command", EVERY_OTHER_COMMAND, ids=lambda c: type(c).__name__)
def test_a_retired_asset_accepts_nothing(command: AssetCommand) -> None:
    given(registered, alert_raised(), retired).when(command).then_rejected(
        CommandRejected, "asset.retired", LOOP
    )


def test_an_asset_is_put_into_service_once() -> None:
    given(registered).when(CommissionAsset(LOOP)).then(commissioned)
    given(registered, commissioned).when(CommissionAsset(LOOP)).then_rejected(
        CommandRejected, "asset.already_commissioned", LOOP
    )


def test_an_asset_is_retired_in_service_or_not() -> None:
    given(registered).when(RetireAsset(LOOP, "worn out")).then(retired)
    given(registered, commissioned).when(RetireAsset(LOOP, "worn out")).then(retired)


def test_a_reason_has_a_limit() -> None:
    given(registered).when(RetireAsset(LOOP, "x" * (NOTE_LENGTH_MAX + 1))).then_rejected(
        InvalidInput, "text.too_long", NOTE_LENGTH_MAX + 1
    )


# --- set-points ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [FLOW.safe_min, FLOW.safe_max])
def test_a_setpoint_may_be_desired_up_to_its_safe_bounds(value: float) -> None:
    given(registered).when(DesireSetpoint(LOOP, "flow", value)).then(
        SetpointDesired(LOOP, "flow", value)
    )


@pytest.mark.parametrize(
    "value",
    [
        math.nextafter(FLOW.safe_min, -math.inf),
        math.nextafter(FLOW.safe_max, math.inf),
        -math.inf,
        math.inf,
    ],
)
def test_a_setpoint_beyond_its_safe_bounds_is_refused(value: float) -> None:
    given(registered).when(DesireSetpoint(LOOP, "flow", value)).then_rejected(
        InvalidInput, "setpoint.out_of_bounds", value
    )


def test_a_setpoint_that_is_no_number_is_refused() -> None:
    given(registered).when(DesireSetpoint(LOOP, "flow", math.nan)).then_rejected(
        InvalidInput, "setpoint.out_of_bounds"
    )


def test_a_machine_may_report_a_setpoint_beyond_its_safe_bounds() -> None:
    given(registered).when(ReportSetpoint(LOOP, "flow", 1.0)).then(
        SetpointReported(LOOP, "flow", 1.0)
    )


def test_a_setpoint_that_was_not_set_changes_nothing_of_the_asset() -> None:
    declined = SetpointDeclined(LOOP, "flow", 1e-3, "interlock.open", "the guard is open")
    given(registered).when(DeclineSetpoint(**vars(declined))).then(declined)
    assert fold((registered, declined)) == fold((registered,))
    for change in ({"code": ""}, {"reason": " "}, {"code": "x" * 101}):
        told = DeclineSetpoint(**(vars(declined) | change))
        with pytest.raises(InvalidInput):
            decide(told, fold((registered,)))
    with pytest.raises(NotFound):
        decide(DeclineSetpoint(LOOP, "colour", 1.0, "x", "y"), fold((registered,)))


def test_lost_readings_are_told_with_when_and_why() -> None:
    lost = ReadingsLost(LOOP, "loop-1", "outbox.full", SINCE, SINCE + timedelta(minutes=1), 600)
    given(registered).when(ReportReadingsLost(**vars(lost))).then(lost)
    assert fold((registered, lost)) == fold((registered,))
    backwards = ReportReadingsLost(LOOP, "loop-1", "x", SINCE, SINCE - timedelta(seconds=1))
    given(registered).when(backwards).then_rejected(InvalidInput, "loss.ends_before_it_begins")
    negative = ReportReadingsLost(LOOP, "loop-1", "x", SINCE, SINCE, -1)
    given(registered).when(negative).then_rejected(InvalidInput, "loss.negative_count", -1)


@pytest.mark.parametrize("command", [DesireSetpoint, ReportSetpoint])
def test_an_unknown_setpoint_is_refused(
    command: type[DesireSetpoint] | type[ReportSetpoint],
) -> None:
    given(registered).when(command(LOOP, "colour", 1.0)).then_rejected(
        NotFound, "setpoint.unknown", "colour"
    )


# --- alerts -------------------------------------------------------------------------------


def test_an_alert_is_raised_once() -> None:
    given(registered).when(raise_alert()).then(alert_raised())
    given(registered, alert_raised()).when(raise_alert()).then()


def test_an_alert_is_acknowledged_once() -> None:
    acknowledged = AlertAcknowledged(LOOP, ALERT, "seen")
    given(registered, alert_raised()).when(AcknowledgeAlert(LOOP, ALERT, "seen")).then(acknowledged)
    given(registered, alert_raised(), acknowledged).when(
        AcknowledgeAlert(LOOP, ALERT, "seen again")
    ).then()


def test_an_alert_is_escalated_upwards_while_it_is_open() -> None:
    first = EscalateAlert(LOOP, ALERT, 1, "shift lead", "nobody came")
    escalated = AlertEscalated(**vars(first))
    given(registered, alert_raised()).when(first).then(escalated)
    past = (registered, alert_raised(), escalated)
    for level in (-1, 0, 1, ESCALATION_LEVEL_MAX + 1):
        again = replace(first, level=level)
        given(*past).when(again).then_rejected(InvalidInput, "alert.level_out_of_range", level)
    higher = replace(first, level=ESCALATION_LEVEL_MAX)
    given(*past).when(higher).then(AlertEscalated(**vars(higher)))
    given(registered, alert_raised()).when(replace(first, to=" ")).then_rejected(
        InvalidInput, "text.empty"
    )
    cleared = AlertCleared(LOOP, ALERT, 6e-4)
    given(*past, cleared).when(higher).then_rejected(NotFound, "alert.unknown")
    assert fold([*past, cleared]) == fold([registered])


def test_an_alert_is_a_node_of_the_thread_until_it_clears() -> None:
    node = f"alert:{ALERT}"
    assert alert_raised().thread() == (
        Standing(node, NodeState.ACTIVE),
        Link(LinkKind.RAISED, "asset:loop-1", node),
    )
    assert AlertCleared(LOOP, ALERT, 6e-4).thread() == (Standing(node, NodeState.CLOSED),)


def test_an_alert_clears_acknowledged_or_not() -> None:
    cleared = AlertCleared(LOOP, ALERT, 6e-4)
    clear = ClearAlert(LOOP, ALERT, 6e-4)
    given(registered, alert_raised()).when(clear).then(cleared)
    given(registered, alert_raised(), AlertAcknowledged(LOOP, ALERT, "")).when(clear).then(cleared)


@pytest.mark.parametrize("command", [AcknowledgeAlert(LOOP, ALERT), ClearAlert(LOOP, ALERT, 0.0)])
def test_an_alert_that_is_not_open_is_unknown(command: AssetCommand) -> None:
    given(registered).when(command).then_rejected(NotFound, "alert.unknown", str(ALERT))
    given(registered, alert_raised(OTHER_ALERT)).when(command).then_rejected(
        NotFound, "alert.unknown", str(ALERT)
    )
    given(registered, alert_raised(), AlertCleared(LOOP, ALERT, 6e-4)).when(command).then_rejected(
        NotFound, "alert.unknown", str(ALERT)
    )


# --- the fold -----------------------------------------------------------------------------


def test_the_fold_of_a_life() -> None:
    life = (
        registered,
        commissioned,
        SetpointDesired(LOOP, "flow", 1e-3),
        SetpointDesired(LOOP, "flow", 2e-3),
        SetpointReported(LOOP, "flow", 1.9e-3),
        alert_raised(),
        alert_raised(OTHER_ALERT),
        AlertAcknowledged(LOOP, OTHER_ALERT, "seen"),
        AlertCleared(LOOP, ALERT, 6e-4),
    )
    assert fold(()) == Unregistered()
    assert fold(life) == Registered(
        LOOP,
        PUMP_LOOP,
        "Loop one",
        in_service=True,
        desired={"flow": 2e-3},
        reported={"flow": 1.9e-3},
        open_alerts={OTHER_ALERT: True},
    )
    assert fold((*life, retired)) == Retired(LOOP, PUMP_LOOP, "Loop one")


def test_an_event_leaves_the_earlier_state_as_it_was() -> None:
    before = fold((registered, alert_raised()))
    evolve(before, AlertCleared(LOOP, ALERT, 6e-4))
    assert before == fold((registered, alert_raised()))


@pytest.mark.parametrize("past", [(), (registered, retired)])
def test_what_cannot_have_happened_stops_the_fold(past: tuple[AssetRegistered, ...]) -> None:
    with pytest.raises(ValueError, match="cannot happen"):
        evolve(fold(past), commissioned)


def test_decisions_and_readings_live_in_streams_of_their_own() -> None:
    assert asset_stream(LOOP) == "asset:loop-1"
    assert telemetry_stream(LOOP) == "telemetry:loop-1"
