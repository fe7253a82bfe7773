"""Instruments: known, calibrated for a time, and retired."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.quality.instrument import (
    DECIDER,
    CalibrateInstrument,
    Instrument,
    InstrumentCalibrated,
    InstrumentRegistered,
    InstrumentRetired,
    RegisterInstrument,
    RetireInstrument,
    calibration_at,
    instrument_stream,
)
from domain.texts import TITLE_LENGTH_MAX
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import given_of

CMM = "CMM-2"
MARCH, JUNE, SEPTEMBER, NEXT_MARCH = (
    datetime(2025, 3, 3, 7, 30, tzinfo=UTC),
    datetime(2025, 6, 3, tzinfo=UTC),
    datetime(2025, 9, 3, tzinfo=UTC),
    datetime(2026, 3, 3, tzinfo=UTC),
)
INSTANT = timedelta(microseconds=1)

registered = InstrumentRegistered(CMM, "Measuring machine")
calibrated = InstrumentCalibrated(CMM, MARCH, NEXT_MARCH, "CAL-12@A")
retired = InstrumentRetired(CMM, SEPTEMBER, "crash")


def calibrate(**changes: Any) -> CalibrateInstrument:
    return replace(CalibrateInstrument(CMM, MARCH, NEXT_MARCH, "CAL-12@A"), **changes)


def test_an_instrument_is_registered_once() -> None:
    register = RegisterInstrument(CMM, " Measuring machine ")
    given_of(DECIDER).when(register).then(registered)
    given_of(DECIDER).when(RegisterInstrument(CMM, "")).then(InstrumentRegistered(CMM, CMM))
    given_of(DECIDER, registered).when(register).then_rejected(
        CommandRejected, "instrument.already_registered", CMM
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (RegisterInstrument("CMM 2", ""), "instrument.malformed_name"),
        (RegisterInstrument(CMM, "x" * (TITLE_LENGTH_MAX + 1)), "text.too_long"),
    ],
)
def test_a_malformed_registration_is_refused(command: RegisterInstrument, code: str) -> None:
    given_of(DECIDER).when(command).then_rejected(InvalidInput, code)


def test_a_known_instrument_is_calibrated() -> None:
    given_of(DECIDER, registered).when(calibrate()).then(calibrated)
    given_of(DECIDER, registered, calibrated).when(calibrate()).then()
    given_of(DECIDER).when(calibrate()).then_rejected(NotFound, "instrument.unknown", CMM)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"valid_until": MARCH}, "instrument.validity"),
        ({"valid_until": MARCH - INSTANT}, "instrument.validity"),
        ({"calibrated_at": datetime(2025, 3, 3)}, "event.naive_time"),  # noqa: DTZ001
        ({"valid_until": datetime(2026, 3, 3)}, "event.naive_time"),  # noqa: DTZ001
        ({"certificate": "CAL-12"}, "document.malformed_revision_name"),
    ],
)
def test_a_malformed_calibration_is_refused(changes: dict[str, Any], code: str) -> None:
    given_of(DECIDER, registered).when(calibrate(**changes)).then_rejected(InvalidInput, code)


def test_a_retired_instrument_is_not_calibrated_any_more() -> None:
    past = (registered, retired)
    for at in (SEPTEMBER, SEPTEMBER + INSTANT):
        given_of(DECIDER, *past).when(calibrate(calibrated_at=at)).then_rejected(
            CommandRejected, "instrument.retired", CMM
        )
    # That it was calibrated while in use may well be told later.
    given_of(DECIDER, *past).when(calibrate()).then(calibrated)


def test_an_instrument_is_retired_once_and_with_a_reason() -> None:
    retire = RetireInstrument(CMM, SEPTEMBER, "crash")
    given_of(DECIDER, registered).when(retire).then(retired)
    given_of(DECIDER, registered, retired).when(retire).then_rejected(
        CommandRejected, "instrument.retired", CMM
    )
    given_of(DECIDER).when(retire).then_rejected(NotFound, "instrument.unknown", CMM)
    given_of(DECIDER, registered).when(replace(retire, reason="")).then_rejected(
        InvalidInput, "text.empty"
    )


# --- calibrated at a time -----------------------------------------------------------------


def state(*events: Any) -> Instrument:
    return DECIDER.fold(events)


def test_a_calibration_counts_from_its_moment_to_before_its_end() -> None:
    instrument = state(registered, calibrated)
    assert calibration_at(instrument, MARCH - INSTANT) is None
    assert calibration_at(instrument, MARCH) == calibrated
    assert calibration_at(instrument, NEXT_MARCH - INSTANT) == calibrated
    assert calibration_at(instrument, NEXT_MARCH) is None


def test_nothing_is_calibrated_that_nobody_calibrated() -> None:
    assert calibration_at(state(), MARCH) is None
    assert calibration_at(state(registered), MARCH) is None


def test_a_shorter_calibration_ends_a_longer_one() -> None:
    shorter = InstrumentCalibrated(CMM, JUNE, SEPTEMBER, None)
    instrument = state(registered, calibrated, shorter)
    assert calibration_at(instrument, JUNE - INSTANT) == calibrated
    assert calibration_at(instrument, SEPTEMBER) is None


def test_a_retired_instrument_is_not_to_be_trusted() -> None:
    instrument = state(registered, calibrated, retired)
    assert calibration_at(instrument, SEPTEMBER - INSTANT) == calibrated
    assert calibration_at(instrument, SEPTEMBER) is None


@given(
    st.permutations(
        [
            InstrumentCalibrated(CMM, MARCH + timedelta(days=30 * n), until, None)
            for n, until in enumerate((JUNE, SEPTEMBER, SEPTEMBER, NEXT_MARCH))
        ]
    ),
    st.datetimes(datetime(2025, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_the_order_in_which_calibrations_become_known_changes_nothing(
    calibrations: list[InstrumentCalibrated], at: datetime
) -> None:
    in_order = sorted(calibrations, key=lambda one: one.calibrated_at)
    assert state(registered, *calibrations) == state(registered, *in_order)
    found = calibration_at(state(registered, *calibrations), at)
    assert found is None or found.calibrated_at <= at < found.valid_until


def test_what_follows_a_registration_that_was_corrected_away_says_nothing() -> None:
    assert state(calibrated, retired) == state()


def test_what_an_instrument_says_of_the_thread() -> None:
    node = instrument_stream(CMM)
    assert registered.thread() == (Standing(node, NodeState.ACTIVE),)
    assert calibrated.thread() == (Link(LinkKind.CERTIFIED, "document:CAL-12@A", node),)
    assert replace(calibrated, certificate=None).thread() == ()
    assert retired.thread() == (Standing(node, NodeState.RETIRED),)
