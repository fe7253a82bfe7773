"""Every event type and every decider there is: whoever imports this can read all of a log.

A type is known once its module was imported; a reader that lacks one would stop at its events.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from domain import (
    access_events,
    application_events,
    asset,
    asset_decider,
    ledger_events,
    records,
    webhooks,
)
from domain.deciders import Decider
from domain.documents import document
from domain.maintenance import spare_part, work_order, work_order_decider
from domain.material import lot, lot_decider, part, part_decider, process_run
from domain.opinions import model, prediction, scenario, setpoint_proposal
from domain.plant import component, location
from domain.quality import inspection, instrument, nonconformance

EVENT_MODULES: Final[tuple[ModuleType, ...]] = (
    access_events,
    application_events,
    asset,
    component,
    document,
    inspection,
    instrument,
    ledger_events,
    location,
    lot,
    model,
    nonconformance,
    part,
    prediction,
    process_run,
    records,
    scenario,
    setpoint_proposal,
    spare_part,
    webhooks,
    work_order,
)
"""Modules that declare events."""

DECIDERS: Final[tuple[Decider[Any, Any, Any], ...]] = (
    asset_decider.DECIDER,
    component.DECIDER,
    document.DECIDER,
    inspection.DECIDER,
    instrument.DECIDER,
    location.DECIDER,
    lot_decider.DECIDER,
    model.DECIDER,
    nonconformance.DECIDER,
    part_decider.DECIDER,
    prediction.DECIDER,
    process_run.DECIDER,
    scenario.DECIDER,
    setpoint_proposal.DECIDER,
    spare_part.DECIDER,
    work_order_decider.DECIDER,
)

_BY_CATEGORY: Final = {decider.category: decider for decider in DECIDERS}
_BY_COMMAND: Final = {command: decider for decider in DECIDERS for command in decider.command_types}


def decider_of_command(command: Any) -> Decider[Any, Any, Any]:
    """Return who decides `command`."""
    return _BY_COMMAND[type(command)]


def decider_of_command_type(command: type) -> Decider[Any, Any, Any]:
    """Return who decides commands of the class `command`."""
    return _BY_COMMAND[command]


def decider_of_stream(stream: str) -> Decider[Any, Any, Any] | None:
    """Return the decider of the object that `stream` belongs to, or None where nothing decides."""
    return _BY_CATEGORY.get(stream.partition(":")[0])
