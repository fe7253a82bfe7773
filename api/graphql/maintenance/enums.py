"""Enumerations of maintenance."""

from __future__ import annotations

from api.graphql.scalars import described_enum
from domain.maintenance.work_order import Finding, Priority
from projections.maintenance.projection import WorkOrderState
from projections.maintenance.work_orders import WorkOrderOrder

described_enum(
    Priority,
    "How soon work has to be done.",
    {
        "LOW": "When there is time.",
        "NORMAL": "In its turn.",
        "HIGH": "Before what is normal.",
        "EMERGENCY": "Now.",
    },
)
described_enum(
    Finding,
    "What was found of the failure that a work order was opened for.",
    {
        "FAILURE_CONFIRMED": "It was there; `failureMode` says which. Learning takes it for true.",
        "NO_FAULT_FOUND": "It was not there.",
        "NOT_APPLICABLE": "There was none to look for: preventive work.",
    },
)
described_enum(
    WorkOrderState,
    "How far a work order is.",
    {
        "REQUESTED": "Somebody or something wants it.",
        "APPROVED": "It may be done.",
        "SCHEDULED": "It is planned, and has not begun.",
        "IN_PROGRESS": "It is being done.",
        "PAUSED": "It has begun, and rests.",
        "COMPLETED": "It was done.",
        "CANCELLED": "It was given up.",
    },
)
described_enum(
    WorkOrderOrder,
    "In which order work orders are listed.",
    {
        "NEWEST": "The latest request first.",
        "DUE": "The earliest planned start first; those without a plan last.",
        "PRIORITY": "The most urgent first, and of the same urgency the oldest request.",
    },
)
