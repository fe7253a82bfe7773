"""What lists tell and find of each kind of object: how it stands, and by what it is found.

One description a kind. How an object stands follows from its decider's state; what it is found by
(its attributes: material, supplier, model …) from its facts, and where it may change again, from
the state. Kinds with a projection of their own (assets, alerts, work orders, process runs,
components, locations, inspections) are not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from domain.documents.document import Document, DocumentReleased
from domain.maintenance.spare_part import Stocked
from domain.material.lot import LotCreated, LotReceived, LotShipped
from domain.material.lot_decider import LotGone, LotInQuarantine, LotInStock
from domain.material.part import (
    PartCreated,
    PartFailureReported,
    PartReceived,
    PartShipped,
)
from domain.material.part_decider import Part
from domain.opinions.model import DriftDetected, Model, ModelTrained, Stage
from domain.opinions.prediction import (
    FailurePredicted,
    HealthAssessed,
    Made,
    OutcomeRecorded,
    RemainingLifePredicted,
    Settled,
)
from domain.opinions.scenario import Run, ScenarioRun
from domain.opinions.setpoint_proposal import (
    Applied,
    Approved,
    Proposed,
    Refused,
    SetpointProposed,
)
from domain.quality import instrument, nonconformance
from domain.quality.nonconformance import NonconformanceOpened

Attribute = tuple[str, str]
"""What an object is found by: a name, such as ``material``, and a value."""


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """How lists see one kind of object.

    Parameters
    ----------
    category : what stands before the colon of its streams
    state_of : the word for a decider's state; UNKNOWN where nobody has said what it is, or what
        was said was corrected away
    told : the attributes that a fact gives, which stay
    standing : the attributes that a state has, which go with it
    due_at : when something about it runs out
    """

    category: str
    state_of: Callable[[Any], StrEnum]
    told: Callable[[Any], Iterator[Attribute]]
    standing: Callable[[Any], Iterator[Attribute]] = lambda _state: iter(())
    due_at: Callable[[Any], datetime | None] = lambda _state: None


# --- material -----------------------------------------------------------------------------


class LotState(StrEnum):
    """How a lot stands."""

    UNKNOWN = "UNKNOWN"
    IN_STOCK = "IN_STOCK"
    QUARANTINED = "QUARANTINED"
    MERGED = "MERGED"
    SCRAPPED = "SCRAPPED"
    SHIPPED = "SHIPPED"


def lot_state(lot: Any) -> LotState:
    """Return how a lot stands."""
    match lot:
        case LotInStock():
            return LotState.IN_STOCK
        case LotInQuarantine():
            return LotState.QUARANTINED
        case LotGone(end=end):
            return LotState[end.name]
        case _:
            return LotState.UNKNOWN


def _lot_told(fact: Any) -> Iterator[Attribute]:
    match fact:
        case LotReceived():
            yield "material", fact.material
            yield "supplier", fact.supplier
            yield "supplier_lot", fact.supplier_lot
            if fact.certificate is not None:
                yield "certificate", fact.certificate
        case LotCreated():
            yield "material", fact.material
            if fact.run_id is not None:
                yield "run", fact.run_id
        case LotShipped():
            yield "shipment", fact.shipment_id
            yield "customer", fact.customer


class PartState(StrEnum):
    """How a part stands."""

    UNKNOWN = "UNKNOWN"
    IN_PROCESS = "IN_PROCESS"
    IN_STOCK = "IN_STOCK"
    ASSEMBLED = "ASSEMBLED"
    QUARANTINED = "QUARANTINED"
    SCRAPPED = "SCRAPPED"
    SHIPPED = "SHIPPED"
    RETURNED = "RETURNED"
    FAILED = "FAILED"


def part_state(part: Any) -> PartState:
    """Return how a part stands."""
    return PartState[part.standing.name] if isinstance(part, Part) else PartState.UNKNOWN


def _part_told(fact: Any) -> Iterator[Attribute]:
    match fact:
        case PartCreated():
            yield "part_number", fact.part_number
            if fact.design is not None:
                yield "design", fact.design
            if fact.run_id is not None:
                yield "run", fact.run_id
            if fact.lot_id is not None:
                yield "lot", fact.lot_id
        case PartReceived():
            yield "part_number", fact.part_number
            yield "supplier", fact.supplier
            if fact.certificate is not None:
                yield "certificate", fact.certificate
        case PartShipped():
            yield "shipment", fact.shipment_id
            yield "customer", fact.customer
        case PartFailureReported():
            yield "failure_mode", fact.failure_mode


def _part_standing(part: Any) -> Iterator[Attribute]:
    if part.inside is not None:
        yield "inside", part.inside


# --- documents ----------------------------------------------------------------------------


class DocumentState(StrEnum):
    """How a document stands, by its revisions."""

    UNKNOWN = "UNKNOWN"
    RELEASED = "RELEASED"
    WITHDRAWN = "WITHDRAWN"


def document_state(document: Document) -> DocumentState:
    """Return how a document stands: it may be used while one of its revisions may."""
    if not document.revisions:
        return DocumentState.UNKNOWN
    usable = any(not revision.withdrawn for revision in document.revisions.values())
    return DocumentState.RELEASED if usable else DocumentState.WITHDRAWN


def _document_told(fact: Any) -> Iterator[Attribute]:
    if isinstance(fact, DocumentReleased):
        yield "kind", fact.kind.value
        yield "sha256", fact.sha256
        if fact.part_number is not None:
            yield "part_number", fact.part_number


# --- quality ------------------------------------------------------------------------------


class InstrumentState(StrEnum):
    """How an instrument stands."""

    UNKNOWN = "UNKNOWN"
    REGISTERED = "REGISTERED"
    RETIRED = "RETIRED"


def instrument_state(found: Any) -> InstrumentState:
    """Return how an instrument stands."""
    if not isinstance(found, instrument.Registered):
        return InstrumentState.UNKNOWN
    return InstrumentState.REGISTERED if found.retired_at is None else InstrumentState.RETIRED


def _instrument_told(fact: Any) -> Iterator[Attribute]:
    if isinstance(fact, instrument.InstrumentCalibrated) and fact.certificate is not None:
        yield "certificate", fact.certificate


def _calibrated_until(found: Any) -> datetime | None:
    calibrations = getattr(found, "calibrations", ())
    return calibrations[-1].valid_until if calibrations else None


class NonconformanceState(StrEnum):
    """How far a non-conformance has come."""

    UNKNOWN = "UNKNOWN"
    OPEN = "OPEN"
    DISPOSITIONED = "DISPOSITIONED"
    CLOSED = "CLOSED"


def nonconformance_state(found: Any) -> NonconformanceState:
    """Return how far a non-conformance has come."""
    match found:
        case nonconformance.Opened():
            return NonconformanceState.OPEN
        case nonconformance.Dispositioned():
            return NonconformanceState.DISPOSITIONED
        case nonconformance.Closed():
            return NonconformanceState.CLOSED
        case _:
            return NonconformanceState.UNKNOWN


def _nonconformance_told(fact: Any) -> Iterator[Attribute]:
    if isinstance(fact, NonconformanceOpened):
        yield "subject", fact.subject
        yield "defect_code", fact.defect_code
        if fact.inspection_id is not None:
            yield "inspection", fact.inspection_id


def _nonconformance_standing(found: Any) -> Iterator[Attribute]:
    disposition = getattr(found, "disposition", None)
    if disposition is not None:
        yield "disposition", disposition.value


# --- learning -----------------------------------------------------------------------------


class ModelState(StrEnum):
    """How a model stands, by its versions."""

    UNKNOWN = "UNKNOWN"
    TRAINED = "TRAINED"
    SERVING = "SERVING"
    RETIRED = "RETIRED"


def model_state(model: Model) -> ModelState:
    """Return how a model stands: it serves while one of its versions does."""
    stages = set(model.versions.values())
    if Stage.SERVING in stages:
        return ModelState.SERVING
    if Stage.TRAINED in stages:
        return ModelState.TRAINED
    return ModelState.RETIRED if stages else ModelState.UNKNOWN


def _model_told(fact: Any) -> Iterator[Attribute]:
    match fact:
        case ModelTrained():
            yield "purpose", fact.purpose
        case DriftDetected():
            yield "drift", fact.version


def _model_standing(model: Model) -> Iterator[Attribute]:
    if model.serving is not None:
        yield "serving", model.serving


class PredictionState(StrEnum):
    """How far a prediction has come."""

    UNKNOWN = "UNKNOWN"
    OPEN = "OPEN"
    SETTLED = "SETTLED"


class PredictionKind(StrEnum):
    """What a prediction says."""

    HEALTH = "HEALTH"
    FAILURE = "FAILURE"
    REMAINING_LIFE = "REMAINING_LIFE"


_KINDS_OF_PREDICTION: Final[Mapping[type, PredictionKind]] = {
    HealthAssessed: PredictionKind.HEALTH,
    FailurePredicted: PredictionKind.FAILURE,
    RemainingLifePredicted: PredictionKind.REMAINING_LIFE,
}


def prediction_state(prediction: Any) -> PredictionState:
    """Return how far a prediction has come."""
    match prediction:
        case Made():
            return PredictionState.OPEN
        case Settled():
            return PredictionState.SETTLED
        case _:
            return PredictionState.UNKNOWN


def prediction_kind(fact: Any) -> PredictionKind | None:
    """Return what the prediction `fact` says; None where it is none."""
    return _KINDS_OF_PREDICTION.get(type(fact))


def _prediction_told(fact: Any) -> Iterator[Attribute]:
    match fact:
        case HealthAssessed() | FailurePredicted() | RemainingLifePredicted():
            yield "kind", _KINDS_OF_PREDICTION[type(fact)].value
            yield "asset", fact.asset_id
            yield "model", fact.model
            yield "model_id", fact.model.partition("@")[0]
            if fact.component_id is not None:
                yield "component", fact.component_id
            if not isinstance(fact, HealthAssessed):
                yield "failure_mode", fact.failure_mode
        case OutcomeRecorded():
            yield "outcome", fact.outcome.value


# --- scenarios ----------------------------------------------------------------------------


class ScenarioState(StrEnum):
    """Whether a scenario is recorded."""

    UNKNOWN = "UNKNOWN"
    RUN = "RUN"


def scenario_state(scenario: Any) -> ScenarioState:
    """Return whether a scenario is recorded."""
    return ScenarioState.RUN if isinstance(scenario, Run) else ScenarioState.UNKNOWN


def _scenario_told(fact: Any) -> Iterator[Attribute]:
    if isinstance(fact, ScenarioRun):
        yield "asset", fact.asset_id


class SetpointProposalState(StrEnum):
    """How far a set-point proposal has come."""

    UNKNOWN = "UNKNOWN"
    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    APPLIED = "APPLIED"
    REFUSED = "REFUSED"


def setpoint_proposal_state(proposal: Any) -> SetpointProposalState:
    """Return how far a set-point proposal has come."""
    match proposal:
        case Proposed():
            return SetpointProposalState.PROPOSED
        case Approved():
            return SetpointProposalState.APPROVED
        case Applied():
            return SetpointProposalState.APPLIED
        case Refused():
            return SetpointProposalState.REFUSED
        case _:
            return SetpointProposalState.UNKNOWN


def _setpoint_proposal_told(fact: Any) -> Iterator[Attribute]:
    if isinstance(fact, SetpointProposed):
        yield "asset", fact.asset_id
        yield "setpoint", fact.setpoint
        if fact.scenario_id is not None:
            yield "scenario", fact.scenario_id


# --- maintenance --------------------------------------------------------------------------


class SparePartState(StrEnum):
    """Whether there are pieces of a spare part."""

    UNKNOWN = "UNKNOWN"
    IN_STOCK = "IN_STOCK"
    OUT_OF_STOCK = "OUT_OF_STOCK"


def spare_part_state(spare_part: Any) -> SparePartState:
    """Return whether there are pieces of a spare part."""
    if not isinstance(spare_part, Stocked):
        return SparePartState.UNKNOWN
    return SparePartState.IN_STOCK if spare_part.pieces else SparePartState.OUT_OF_STOCK


def _spare_part_standing(spare_part: Any) -> Iterator[Attribute]:
    for work_order_id in getattr(spare_part, "reserved", ()):
        yield "work_order", work_order_id


# --- all ----------------------------------------------------------------------------------


def _untold(_fact: Any) -> Iterator[Attribute]:
    return iter(())


KINDS: Final[Mapping[str, ObjectKind]] = {
    kind.category: kind
    for kind in (
        ObjectKind("lot", lot_state, _lot_told),
        ObjectKind("part", part_state, _part_told, _part_standing),
        ObjectKind("document", document_state, _document_told),
        ObjectKind("instrument", instrument_state, _instrument_told, due_at=_calibrated_until),
        ObjectKind(
            "nonconformance",
            nonconformance_state,
            _nonconformance_told,
            _nonconformance_standing,
        ),
        ObjectKind("model", model_state, _model_told, _model_standing),
        ObjectKind("prediction", prediction_state, _prediction_told),
        ObjectKind("scenario", scenario_state, _scenario_told),
        ObjectKind("setpoint-proposal", setpoint_proposal_state, _setpoint_proposal_told),
        ObjectKind("spare-part", spare_part_state, _untold, _spare_part_standing),
    )
}
"""By category."""
