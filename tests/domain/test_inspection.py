"""Inspections: a verdict follows from what was measured, with what could be trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.quality.inspection import (
    CHARACTERISTICS_MAX,
    DECIDER,
    DEFECT_CODES_MAX,
    IMAGES_MAX,
    INSTRUMENTS_MAX,
    Characteristic,
    Image,
    InspectionRecorded,
    Judge,
    RecordInspection,
    Verdict,
    inspection_stream,
)
from domain.quality.instrument import InstrumentCalibrated, InstrumentRegistered, InstrumentRetired
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import given_of

INSPECTION, CMM, GAUGE = "INS-7", "CMM-2", "GAUGE-1"
MARCH = datetime(2025, 3, 3, tzinfo=UTC)
NOON = datetime(2025, 6, 3, 12, tzinfo=UTC)
NEXT_MARCH = datetime(2026, 3, 3, tzinfo=UTC)
PICTURE = Image("ab" * 32, "image/png")

BORE = Characteristic("bore", 25.0, 24.98, 25.02, 25.01, "mm", CMM)
BORE_TOO_WIDE = replace(BORE, measured=25.03)

CMM_CALIBRATED = (
    InstrumentRegistered(CMM, "Measuring machine"),
    InstrumentCalibrated(CMM, MARCH, NEXT_MARCH, None),
)
CMM_RETIRED = (*CMM_CALIBRATED, InstrumentRetired(CMM, NOON, "crash"))
GAUGE_REGISTERED = (InstrumentRegistered(GAUGE, "Gauge"),)


def record(*characteristics: Characteristic, **changes: Any) -> RecordInspection:
    command = RecordInspection(
        INSPECTION, "part:SN-1042", NOON, Verdict.GOOD, Judge.PERSON,
        characteristics=characteristics,
    )  # fmt: skip
    return replace(command, **changes)


def recorded(*characteristics: Characteristic, **changes: Any) -> InspectionRecorded:
    event = InspectionRecorded(
        INSPECTION, "part:SN-1042", None, None, characteristics, (), (), Verdict.GOOD,
        Judge.PERSON, None, (),
    )  # fmt: skip
    return replace(event, **changes)


def with_cmm(*past: InspectionRecorded) -> Any:
    return given_of(DECIDER, *past).beside(f"instrument:{CMM}", *CMM_CALIBRATED)


# --- recording ----------------------------------------------------------------------------


def test_an_inspection_is_recorded_as_it_is_told() -> None:
    command = record(
        BORE,
        run_id="RUN-3",
        plan="IP-12@C",
        images=(PICTURE,),
        verdict=Verdict.DEFECTIVE,
        defect_codes=("SCRATCH",),
        judge=Judge.MODEL,
        model="scratches@4",
    )
    with_cmm().when(command).then(
        recorded(
            BORE,
            run_id="RUN-3",
            plan="IP-12@C",
            images=(PICTURE,),
            verdict=Verdict.DEFECTIVE,
            defect_codes=("SCRATCH",),
            judge=Judge.MODEL,
            model="scratches@4",
        )
    )


@pytest.mark.parametrize("subject", ["part:SN-1", "lot:L-1", "process-run:RUN-1"])
def test_parts_lots_and_runs_are_inspected(subject: str) -> None:
    given_of(DECIDER).when(record(subject=subject)).then(recorded(subject=subject))


def test_an_inspection_is_recorded_once() -> None:
    with_cmm(recorded(BORE)).when(record(BORE)).then_rejected(
        CommandRejected, "inspection.already_recorded", INSPECTION
    )
    with_cmm(recorded(BORE)).when(record(BORE, late=True)).then_rejected(
        CommandRejected, "inspection.already_recorded", INSPECTION
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"inspection_id": "INS 7"}, "inspection.malformed_name"),
        ({"subject": "asset:press-1"}, "inspection.subject"),
        ({"subject": "SN-1042"}, "inspection.subject"),
        ({"subject": "part:"}, "part.malformed_name"),
        ({"subject": "process-run:RUN 1"}, "process_run.malformed_name"),
        ({"inspected_at": datetime(2025, 6, 3)}, "event.naive_time"),  # noqa: DTZ001
        ({"run_id": "RUN 3"}, "process_run.malformed_name"),
        ({"plan": "IP-12"}, "document.malformed_revision_name"),
        ({"judge": Judge.MODEL}, "inspection.model"),
        ({"model": "scratches@4"}, "inspection.model"),
        ({"judge": Judge.MODEL, "model": "scratches"}, "inspection.model"),
        ({"judge": Judge.MODEL, "model": "a b@4"}, "model.malformed_name"),
        ({"judge": Judge.MODEL, "model": "scratches@"}, "model_version.malformed_name"),
        ({"images": (Image("ab", "image/png"),)}, "sha256.malformed"),
        ({"images": (Image("ab" * 32, "png"),)}, "media_type.malformed"),
        ({"verdict": Verdict.CRITICAL, "defect_codes": ("a b",)}, "defect_code.malformed_name"),
        ({"images": (PICTURE,) * (IMAGES_MAX + 1)}, "inspection.too_many"),
        ({"defect_codes": ("A",) * (DEFECT_CODES_MAX + 1)}, "inspection.too_many"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_is_malformed_is_refused_late_or_not(
    changes: dict[str, Any], code: str, late: bool
) -> None:
    given_of(DECIDER).when(record(**changes, late=late)).then_rejected(InvalidInput, code)


@pytest.mark.parametrize(
    ("changes", "code", "value"),
    [
        ({"name": " "}, "text.empty", None),
        ({"name": "x" * 65}, "text.too_long", 65),
        ({"unit": "furlong"}, "unit.unknown", "furlong"),
        ({"measured": math.nan}, "inspection.value_not_finite", "nan"),
        ({"nominal": math.inf}, "inspection.value_not_finite", "inf"),
        ({"lower_limit": -math.inf}, "inspection.value_not_finite", "-inf"),
        ({"upper_limit": math.nan}, "inspection.value_not_finite", "nan"),
        ({"lower_limit": 25.03}, "inspection.limits", 25.03),
        ({"instrument_id": "CMM 2"}, "instrument.malformed_name", None),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_cannot_be_measured_is_refused_late_or_not(
    changes: dict[str, Any], code: str, value: Any, late: bool
) -> None:
    command = record(replace(BORE, **changes), late=late)
    with_cmm().when(command).then_rejected(InvalidInput, code, value)


def test_an_inspection_has_bounds() -> None:
    many = (replace(BORE, instrument_id=None),) * CHARACTERISTICS_MAX
    given_of(DECIDER).when(record(*many)).then(recorded(*many))
    given_of(DECIDER).when(record(*many, many[0])).then_rejected(
        InvalidInput, "inspection.too_many", CHARACTERISTICS_MAX + 1
    )
    various = [replace(BORE, instrument_id=f"CMM-{n}") for n in range(INSTRUMENTS_MAX + 1)]
    given_of(DECIDER).when(record(*various)).then_rejected(
        InvalidInput, "inspection.too_many", INSTRUMENTS_MAX + 1
    )


# --- the verdict --------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [24.98, 25.0, 25.02])
def test_what_lies_on_a_limit_conforms(measured: float) -> None:
    good = replace(BORE, measured=measured)
    with_cmm().when(record(good)).then(recorded(good))


@pytest.mark.parametrize(
    "measured", [math.nextafter(24.98, 0), math.nextafter(25.02, 26), -25.0, 1e300]
)
def test_what_lies_outside_is_never_good(measured: float) -> None:
    outside = replace(BORE, measured=measured)
    with_cmm().when(record(outside)).then_rejected(
        CommandRejected, "inspection.verdict_contradicts", measured
    )
    for verdict in (Verdict.DEFECTIVE, Verdict.CRITICAL):
        with_cmm().when(record(outside, verdict=verdict)).then(recorded(outside, verdict=verdict))


def test_what_has_a_defect_is_never_good() -> None:
    given_of(DECIDER).when(record(defect_codes=("SCRATCH",))).then_rejected(
        CommandRejected, "inspection.verdict_contradicts", ["SCRATCH"]
    )


def test_a_judgement_needs_no_measurement() -> None:
    for verdict in Verdict:
        given_of(DECIDER).when(record(verdict=verdict)).then(recorded(verdict=verdict))


def test_the_nominal_of_a_fit_lies_outside_its_limits() -> None:
    shaft = Characteristic("shaft 25 f7", 25.0, 24.959, 24.980, 24.97, "mm", None)  # ISO 286-2
    given_of(DECIDER).when(record(shaft)).then(recorded(shaft))


_value = st.floats(-1e6, 1e6)


@given(st.none() | _value, st.none() | _value, _value)
def test_conforming_is_lying_between_what_limits_there_are(
    lower: float | None, upper: float | None, measured: float
) -> None:
    found = Characteristic("bore", None, lower, upper, measured, "mm", None)
    wide = (-math.inf if lower is None else lower, math.inf if upper is None else upper)
    assert found.conforms == (wide[0] <= measured <= wide[1])


# --- instruments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("past", "at", "error", "code"),
    [
        ((), NOON, NotFound, "instrument.unknown"),
        (CMM_CALIBRATED[:1], NOON, CommandRejected, "inspection.instrument_uncalibrated"),
        (CMM_CALIBRATED, NEXT_MARCH, CommandRejected, "inspection.instrument_uncalibrated"),
        (
            CMM_CALIBRATED,
            MARCH - timedelta(seconds=1),
            CommandRejected,
            "inspection.instrument_uncalibrated",
        ),
        (CMM_RETIRED, NOON, CommandRejected, "inspection.instrument_uncalibrated"),
    ],
)
def test_an_instrument_that_cannot_be_trusted_is_refused_or_flagged(
    past: tuple[Any, ...], at: datetime, error: type[HeddleError], code: str
) -> None:
    history = given_of(DECIDER).beside(f"instrument:{CMM}", *past)
    command = record(BORE, inspected_at=at)
    history.when(command).then_rejected(error, code, CMM)
    history.when(replace(command, late=True)).then(recorded(BORE, flags=(code,)))


def test_a_trusted_instrument_gives_no_flag_however_late() -> None:
    with_cmm().when(record(BORE, late=True)).then(recorded(BORE))
    given_of(DECIDER).beside(f"instrument:{CMM}", *CMM_RETIRED).when(
        record(BORE, inspected_at=NOON - timedelta(seconds=1))
    ).then(recorded(BORE))


def test_what_is_wrong_in_several_ways_is_flagged_with_each_once() -> None:
    tilted = replace(BORE, name="tilt", instrument_id=GAUGE)
    command = record(BORE_TOO_WIDE, tilted, tilted, replace(BORE, instrument_id="X-1"), late=True)
    with_cmm().beside(f"instrument:{GAUGE}", *GAUGE_REGISTERED).beside("instrument:X-1").when(
        command
    ).then(
        recorded(
            *command.characteristics,
            flags=(
                "inspection.instrument_uncalibrated",
                "inspection.verdict_contradicts",
                "instrument.unknown",
            ),
        )
    )


# --- the thread ---------------------------------------------------------------------------


def test_what_an_inspection_says_of_the_thread() -> None:
    node = inspection_stream(INSPECTION)
    event = recorded(
        BORE, replace(BORE, name="depth"), run_id="RUN-3", plan="IP-12@C", model="scratches@4",
        verdict=Verdict.CRITICAL,
    )  # fmt: skip
    assert set(event.thread()) == {
        Standing(node, NodeState.CRITICAL),
        Link(LinkKind.INSPECTED_BY, "part:SN-1042", node),
        Link(LinkKind.INSPECTED_BY, "process-run:RUN-3", node),
        Link(LinkKind.SPECIFIED, "document:IP-12@C", node),
        Link(LinkKind.PREDICTED, "model:scratches@4", node),
        Link(LinkKind.MEASURED_WITH, f"instrument:{CMM}", node),
    }
    assert len(event.thread()) == 6
