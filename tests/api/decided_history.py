"""A made-up history asked of the real deciders: each event as the command that leads to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, Final

from api.plant_history import HistoryEvent
from domain.catalogue import DECIDERS, decider_of_command, decider_of_stream
from domain.records import RecordCorrected

COMMAND_OF: Final = {
    "AlertAcknowledged": "AcknowledgeAlert",
    "AlertCleared": "ClearAlert",
    "AlertRaised": "RaiseAlert",
    "AssetCommissioned": "CommissionAsset",
    "AssetPlaced": "PlaceAsset",
    "AssetRegistered": "RegisterAsset",
    "ComponentInstalled": "InstallComponent",
    "ComponentRegistered": "RegisterComponent",
    "ComponentRemoved": "RemoveComponent",
    "DocumentReleased": "ReleaseDocument",
    "DocumentSuperseded": "SupersedeDocument",
    "DriftDetected": "DetectDrift",
    "FailurePredicted": "PredictFailure",
    "InspectionRecorded": "RecordInspection",
    "InstrumentCalibrated": "CalibrateInstrument",
    "InstrumentRegistered": "RegisterInstrument",
    "LocationDefined": "DefineLocation",
    "LotConsumed": "ConsumeLot",
    "LotCreated": "CreateLot",
    "LotMerged": "MergeLot",
    "LotQuarantined": "QuarantineLot",
    "LotReceived": "ReceiveLot",
    "LotReleased": "ReleaseLot",
    "LotScrapped": "ScrapLot",
    "LotSplit": "SplitLot",
    "ModelPromoted": "PromoteModel",
    "ModelRetired": "RetireModel",
    "ModelTrained": "TrainModel",
    "NonconformanceClosed": "CloseNonconformance",
    "NonconformanceDispositioned": "DispositionNonconformance",
    "NonconformanceOpened": "OpenNonconformance",
    "OutcomeRecorded": "RecordOutcome",
    "PartAssembled": "AssemblePart",
    "PartCreated": "CreatePart",
    "PartFailureReported": "ReportPartFailure",
    "PartProcessed": "ProcessPart",
    "PartQuarantined": "QuarantinePart",
    "PartReceived": "ReceivePart",
    "PartReleased": "ReleasePart",
    "PartRemoved": "RemovePart",
    "PartReturned": "ReturnPart",
    "PartReworked": "ReworkPart",
    "PartScrapped": "ScrapPart",
    "PartShipped": "ShipPart",
    "PartStocked": "StockPart",
    "ProcessRunAborted": "AbortProcessRun",
    "ProcessRunCompleted": "CompleteProcessRun",
    "ProcessRunStarted": "StartProcessRun",
    "RemainingLifePredicted": "PredictRemainingLife",
    "ScenarioRun": "RunScenario",
    "SetpointApplied": "ApplySetpoint",
    "SetpointApproved": "ApproveSetpoint",
    "SetpointDesired": "DesireSetpoint",
    "SetpointProposed": "ProposeSetpoint",
    "SetpointRefused": "RefuseSetpoint",
    "SetpointReported": "ReportSetpoint",
    "SparePartConsumed": "ConsumeSparePart",
    "SparePartReserved": "ReserveSparePart",
    "SparePartStocked": "StockSparePart",
    "WorkOrderApproved": "ApproveWorkOrder",
    "WorkOrderCancelled": "CancelWorkOrder",
    "WorkOrderCompleted": "CompleteWorkOrder",
    "WorkOrderPaused": "PauseWorkOrder",
    "WorkOrderRequested": "RequestWorkOrder",
    "WorkOrderResumed": "ResumeWorkOrder",
    "WorkOrderScheduled": "ScheduleWorkOrder",
    "WorkOrderStarted": "StartWorkOrder",
}
"""What an event's class is called: what the class of the command that asks for it is called."""

COMMANDS: Final = {
    command.__name__: command for decider in DECIDERS for command in decider.command_types
}
TIMES: Final = ("calibrated_at", "completed_at", "inspected_at", "retired_at")
"""Fields of commands that say when: the `occurred_at` of their events."""


def command_of(event: HistoryEvent, *, late: bool) -> Any:
    """Return the command that asks for `event`."""
    command = COMMANDS[COMMAND_OF[type(event.fact).__name__]]
    asked: dict[str, Any] = {}
    for field in fields(command):
        if field.name in TIMES:
            asked[field.name] = event.occurred_at
        elif field.name == "late":
            asked["late"] = late
        elif hasattr(event.fact, field.name):
            asked[field.name] = getattr(event.fact, field.name)
        else:
            assert field.default is not MISSING, f"{command.__name__} asks for {field.name}"
    return command(**asked)


class Decided:
    """The objects of a history, each as its events make it."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}
        self.entries: dict[str, list[tuple[datetime, Any]]] = {}
        self.decisions = 0
        self.told_late = 0
        self.corrections = 0

    def decide_all(self, history: Iterable[HistoryEvent]) -> None:
        """Ask for every event of `history`, and require just these events for an answer."""
        due: list[tuple[str, Any]] = []
        for event in history:
            if isinstance(event.fact, RecordCorrected):
                self.corrections += 1
                continue
            if due:
                assert due.pop(0) == (event.stream, event.fact)
            else:
                due = self._decide(event)
                assert due.pop(0) == (event.stream, event.fact), event
            self._evolve(event)
        assert due == []

    def _decide(self, event: HistoryEvent) -> list[tuple[str, Any]]:
        flagged = bool(getattr(event.fact, "flags", ()))
        behind = self._is_behind(event)
        command = command_of(event, late=flagged or behind)
        decider = decider_of_command(command)
        subject = decider.subject(command)
        state = self._state_at(subject, event.occurred_at) if behind else self._state(subject)
        others: dict[str, Any] = {}
        while missing := [s for s in decider.looks_at(command, state, others) if s not in others]:
            others |= {stream: self._state(stream) for stream in missing}
        self.decisions += 1
        self.told_late += behind
        decided = decider.decide(command, state, others)
        return [(decider.stream_of(fact), fact) for fact in decided]

    def _is_behind(self, event: HistoryEvent) -> bool:
        entries = self.entries.get(event.stream)
        return entries is not None and event.occurred_at < entries[-1][0]

    def _evolve(self, event: HistoryEvent) -> None:
        decider = decider_of_stream(event.stream)
        assert decider is not None
        behind = self._is_behind(event)
        entries = self.entries.setdefault(event.stream, [])
        entries.append((event.occurred_at, event.fact))
        if behind:
            entries.sort(key=lambda entry: entry[0])
            self.states[event.stream] = decider.fold(fact for _, fact in entries)
        else:
            self.states[event.stream] = decider.evolve(self._state(event.stream), event.fact)

    def _state_at(self, stream: str, moment: datetime) -> Any:
        decider = decider_of_stream(stream)
        assert decider is not None
        return decider.fold(fact for at, fact in self.entries[stream] if at <= moment)

    def _state(self, stream: str) -> Any:
        decider = decider_of_stream(stream)
        return self.states.get(stream, None if decider is None else decider.initial)
