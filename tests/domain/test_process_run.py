"""A process run: it begins on an asset that is in use, and ends once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from domain.asset import AssetRegistered, AssetRetired
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.material.process_run import (
    DECIDER,
    PARAMETERS_MAX,
    AbortProcessRun,
    ActualParameter,
    CompleteProcessRun,
    Ended,
    ProcessRunAborted,
    ProcessRunCompleted,
    ProcessRunStarted,
    Running,
    SetParameter,
    StartProcessRun,
    UnknownRun,
)
from tests.domain.specification import Given, given_of

SPEED = SetParameter("spindle_speed", 1450.0, "rpm")
REAL_SPEED = ActualParameter("spindle_speed", 151.0, 150.0, 152.0, "rad/s")

start = StartProcessRun(
    "RUN-1", "loop-1", "turn shaft", "RCP-3@C", "DRW-7@B", "T-12", "user:jan", (SPEED,)
)
complete = CompleteProcessRun("RUN-1", (REAL_SPEED,), 1.84e6)
abort = AbortProcessRun("RUN-1", "insert broke")

started = ProcessRunStarted(
    "RUN-1", "loop-1", "turn shaft", "RCP-3@C", "DRW-7@B", "T-12", "user:jan", (SPEED,)
)
completed = ProcessRunCompleted("RUN-1", (REAL_SPEED,), 1.84e6)
aborted = ProcessRunAborted("RUN-1", "insert broke")

registered = AssetRegistered("loop-1", "skab-pump-loop", "Loop one")


def run(*events: Any) -> Given:
    """Start from a run with a past, beside a registered asset."""
    return (
        given_of(DECIDER, *events)
        .beside("asset:loop-1", registered)
        .beside("process-run:RUN-1", *events)
    )


def test_a_run_begins_and_ends() -> None:
    run().when(start).then(started)
    run(started).when(complete).then(completed)
    run(started).when(abort).then(aborted)
    assert DECIDER.fold((started,)) == Running("RUN-1", "loop-1", {"spindle_speed": "rpm"})
    assert DECIDER.fold((started, completed)) == Ended("RUN-1", "loop-1")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("past", [(started,), (started, completed)])
def test_a_run_begins_once(past: tuple[Any, ...], late: bool) -> None:
    run(*past).when(replace(start, late=late)).then_rejected(
        CommandRejected, "process_run.already_started", "RUN-1"
    )


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("end", [complete, abort], ids=["complete", "abort"])
@pytest.mark.parametrize("ended", [completed, aborted], ids=["completed", "aborted"])
def test_a_run_ends_once_told_late_or_not(ended: Any, end: Any, late: bool) -> None:
    run(started, ended).when(replace(end, late=late)).then_rejected(
        CommandRejected, "process_run.ended", "RUN-1"
    )


def test_a_second_end_before_the_known_one_is_refused_too() -> None:
    as_of_then = given_of(DECIDER, started).beside("process-run:RUN-1", started, completed)
    as_of_then.when(replace(abort, late=True)).then_rejected(CommandRejected, "process_run.ended")


def test_a_run_begins_on_an_asset_that_is_in_use() -> None:
    nowhere = given_of(DECIDER)
    nowhere.when(start).then_rejected(NotFound, "asset.unknown", "loop-1")
    retired = nowhere.beside("asset:loop-1", registered, AssetRetired("loop-1", "worn"))
    retired.when(start).then_rejected(CommandRejected, "asset.retired", "loop-1")
    late = replace(start, late=True)
    nowhere.beside("process-run:RUN-1").when(late).then(replace(started, flags=("asset.unknown",)))
    retired.beside("process-run:RUN-1").when(late).then(replace(started, flags=("asset.retired",)))


def test_a_run_that_never_began_does_not_end() -> None:
    for command in (complete, abort):
        run().when(command).then_rejected(NotFound, "process_run.unknown", "RUN-1")


def test_an_end_may_be_told_before_the_start() -> None:
    flagged = replace(completed, flags=("process_run.unknown",))
    run().when(replace(complete, late=True)).then(flagged)
    assert DECIDER.fold((flagged,)) == UnknownRun(ended=True)
    assert DECIDER.fold((flagged, started)) == Ended("RUN-1", "loop-1")
    run(flagged).when(replace(abort, late=True)).then_rejected(CommandRejected, "process_run.ended")
    run(flagged).when(replace(start, late=True)).then(started)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (replace(start, operation=""), "text.empty"),
        (replace(start, tool=" "), "text.empty"),
        (replace(start, operator="x" * 201), "text.too_long"),
        (replace(start, recipe="RCP-3"), "document.malformed_revision_name"),
        (replace(start, design="DRW-7@"), "revision.malformed_name"),
        (replace(start, asset_id="loop 1"), "asset.malformed_name"),
        (replace(start, parameters=(SPEED, SPEED)), "process_run.parameter_repeated"),
        (replace(start, parameters=(replace(SPEED, name="a b"),)), "parameter.malformed_name"),
        (replace(start, parameters=(replace(SPEED, unit="furlong"),)), "unit.unknown"),
        (
            replace(start, parameters=(replace(SPEED, value=math.inf),)),
            "process_run.parameter_not_finite",
        ),
        (
            replace(
                start,
                parameters=tuple(
                    SetParameter(f"p{n}", 1.0, "1") for n in range(PARAMETERS_MAX + 1)
                ),
            ),
            "process_run.too_many_parameters",
        ),
    ],
)
def test_a_malformed_start_is_refused_told_late_or_not(
    command: StartProcessRun, code: str, late: bool
) -> None:
    run().when(replace(command, late=late)).then_rejected(InvalidInput, code)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mean": math.nan}, "process_run.parameter_not_finite"),
        ({"maximum": math.inf}, "process_run.parameter_not_finite"),
        ({"minimum": 151.5}, "process_run.parameter_inconsistent"),
        ({"maximum": 150.5}, "process_run.parameter_inconsistent"),
        ({"unit": "furlong"}, "unit.unknown"),
        ({"unit": "bar"}, "unit.quantity_mismatch"),
    ],
)
def test_what_a_parameter_was_fits_what_it_was_set_to(change: dict[str, Any], code: str) -> None:
    actual = replace(REAL_SPEED, **change)
    run(started).when(replace(complete, parameters=(actual,))).then_rejected(InvalidInput, code)


def test_a_parameter_that_was_not_set_has_any_unit() -> None:
    actual = ActualParameter("coolant_pressure", 2.0, 1.0, 3.0, "bar")
    run(started).when(replace(complete, parameters=(actual,))).then(
        ProcessRunCompleted("RUN-1", (actual,), 1.84e6)
    )


@pytest.mark.parametrize("energy_j", [-1.0, math.nan, math.inf])
def test_a_run_takes_a_finite_amount_of_energy(energy_j: float) -> None:
    run(started).when(replace(complete, energy_j=energy_j)).then_rejected(
        InvalidInput, "process_run.energy_out_of_range", str(energy_j)
    )
    run(started).when(replace(complete, energy_j=0.0)).then(replace(completed, energy_j=0.0))


@pytest.mark.parametrize("life", [(started, started), (completed,), (started, aborted, completed)])
def test_what_no_order_makes_possible_stops_the_fold(life: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="cannot happen"):
        DECIDER.fold(life)
