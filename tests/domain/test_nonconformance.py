"""Non-conformances: opened, dispositioned once, and closed after that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.quality.inspection import InspectionRecorded, Judge, Verdict
from domain.quality.nonconformance import (
    DECIDER,
    Closed,
    CloseNonconformance,
    Disposition,
    DispositionNonconformance,
    NonconformanceClosed,
    NonconformanceCommand,
    NonconformanceDispositioned,
    NonconformanceOpened,
    OpenNonconformance,
    Unopened,
    nonconformance_stream,
)
from domain.texts import NOTE_LENGTH_MAX
from domain.thread import Link, LinkKind, NodeState, Standing
from tests.domain.specification import given_of

NC, INSPECTION = "NC-318", "INS-7"
opened = NonconformanceOpened(NC, "part:SN-1042", INSPECTION, "BORE-WIDE", "13 um too wide")
dispositioned = NonconformanceDispositioned(NC, Disposition.REWORK, "sleeve it")
closed = NonconformanceClosed(NC, "sleeved")

DISPOSITION = DispositionNonconformance(NC, Disposition.REWORK, " sleeve it ")
CLOSE = CloseNonconformance(NC, "sleeved")


def open_it(**changes: Any) -> OpenNonconformance:
    command = OpenNonconformance(NC, "part:SN-1042", "BORE-WIDE", "13 um too wide", INSPECTION)
    return replace(command, **changes)


def inspected(verdict: Verdict) -> InspectionRecorded:
    return InspectionRecorded(
        INSPECTION, "part:SN-1042", None, None, (), (), (), verdict, Judge.PERSON, None, ()
    )


def beside(*inspections: InspectionRecorded) -> Any:
    return given_of(DECIDER).beside(f"inspection:{INSPECTION}", *inspections)


@pytest.mark.parametrize("verdict", [Verdict.DEFECTIVE, Verdict.CRITICAL])
def test_what_an_inspection_found_wrong_is_opened(verdict: Verdict) -> None:
    beside(inspected(verdict)).when(open_it()).then(opened)


def test_an_inspection_that_is_not_recorded_yet_may_have_found_it() -> None:
    beside().when(open_it()).then(opened)


def test_an_inspection_that_found_nothing_found_no_nonconformance() -> None:
    beside(inspected(Verdict.GOOD)).when(open_it()).then_rejected(
        CommandRejected, "nonconformance.inspection_good", INSPECTION
    )


def test_a_nonconformance_needs_no_inspection() -> None:
    given_of(DECIDER).when(open_it(inspection_id=None)).then(replace(opened, inspection_id=None))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nonconformance_id": "NC 318"}, "nonconformance.malformed_name"),
        ({"subject": "instrument:CMM-2"}, "nonconformance.subject"),
        ({"subject": "lot:"}, "lot.malformed_name"),
        ({"defect_code": ""}, "defect_code.malformed_name"),
        ({"inspection_id": "INS 7"}, "inspection.malformed_name"),
        ({"description": "x" * (NOTE_LENGTH_MAX + 1)}, "text.too_long"),
    ],
)
def test_what_is_malformed_is_not_opened(changes: dict[str, Any], code: str) -> None:
    command = open_it(**{"inspection_id": None, **changes})
    given_of(DECIDER).when(command).then_rejected(InvalidInput, code)


@pytest.mark.parametrize("past", [(opened,), (opened, dispositioned, closed)])
def test_a_nonconformance_is_opened_once(past: tuple[Any, ...]) -> None:
    given_of(DECIDER, *past).when(open_it(inspection_id=None)).then_rejected(
        CommandRejected, "nonconformance.already_opened", NC
    )


@pytest.mark.parametrize("disposition", Disposition)
def test_an_open_nonconformance_is_dispositioned(disposition: Disposition) -> None:
    command = replace(DISPOSITION, disposition=disposition)
    given_of(DECIDER, opened).when(command).then(replace(dispositioned, disposition=disposition))


@pytest.mark.parametrize("disposition", [Disposition.REWORK, Disposition.USE_AS_IS])
def test_a_nonconformance_is_dispositioned_once(disposition: Disposition) -> None:
    command = replace(DISPOSITION, disposition=disposition)
    given_of(DECIDER, opened, dispositioned).when(command).then_rejected(
        CommandRejected, "nonconformance.already_dispositioned", disposition.value
    )


def test_a_disposition_has_a_reason() -> None:
    given_of(DECIDER, opened).when(replace(DISPOSITION, reason=" ")).then_rejected(
        InvalidInput, "text.empty"
    )


def test_a_nonconformance_is_closed_after_its_disposition_alone() -> None:
    given_of(DECIDER, opened, dispositioned).when(CLOSE).then(closed)
    given_of(DECIDER, opened).when(CLOSE).then_rejected(
        CommandRejected, "nonconformance.not_dispositioned", NC
    )
    given_of(DECIDER, opened, dispositioned).when(
        replace(CLOSE, note="x" * (NOTE_LENGTH_MAX + 1))
    ).then_rejected(InvalidInput, "text.too_long", NOTE_LENGTH_MAX + 1)


@pytest.mark.parametrize("command", [DISPOSITION, CLOSE])
def test_nothing_more_happens_to_what_is_closed(command: NonconformanceCommand) -> None:
    given_of(DECIDER, opened, dispositioned, closed).when(command).then_rejected(
        CommandRejected, "nonconformance.closed", NC
    )


@pytest.mark.parametrize("command", [DISPOSITION, CLOSE])
def test_what_nobody_opened_is_neither_dispositioned_nor_closed(
    command: NonconformanceCommand,
) -> None:
    given_of(DECIDER).when(command).then_rejected(NotFound, "nonconformance.unknown", NC)


def test_what_corrections_leave_of_a_history_folds() -> None:
    assert DECIDER.fold((dispositioned, closed)) == Unopened()
    assert DECIDER.fold((opened, closed)) == Closed(opened, None)


def test_what_a_nonconformance_says_of_the_thread() -> None:
    node = nonconformance_stream(NC)
    assert set(opened.thread()) == {
        Standing(node, NodeState.ACTIVE),
        Link(LinkKind.CONCERNS, node, "part:SN-1042"),
        Link(LinkKind.FOUND, f"inspection:{INSPECTION}", node),
    }
    assert closed.thread() == (Standing(node, NodeState.CLOSED),)
