"""Mutations of maintenance: work orders and spare parts."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.maintenance.spare_parts_types import SparePart, find_spare_part
from api.graphql.maintenance.types import WorkOrder, find_work_order
from domain.maintenance.spare_part import (
    ConsumeSparePart,
    ReserveSparePart,
    StockSparePart,
    UnreserveSparePart,
)
from domain.maintenance.work_order import (
    ApproveWorkOrder,
    CancelWorkOrder,
    CompleteWorkOrder,
    PauseWorkOrder,
    RequestWorkOrder,
    ResumeWorkOrder,
    ScheduleWorkOrder,
    StartWorkOrder,
)
from projections.maintenance.projection import MaintenanceProjection

WorkOrderMutations = mutations(
    "WorkOrderMutations",
    Declared(
        RequestWorkOrder,
        Right.OPERATE,
        "Ask for work on an asset.",
        "The work order is requested.",
    ),
    Declared(
        ApproveWorkOrder,
        Right.MAINTAIN,
        "Let work be done.",
        "The work order is approved.",
    ),
    Declared(
        ScheduleWorkOrder,
        Right.MAINTAIN,
        "Plan work, or plan it anew; before its approval that is a proposal.",
        "The work order is scheduled.",
    ),
    Declared(
        StartWorkOrder,
        Right.MAINTAIN,
        "Say that work began.",
        "Work goes on.",
    ),
    Declared(
        PauseWorkOrder,
        Right.MAINTAIN,
        "Say that work rests.",
        "Work rests.",
    ),
    Declared(
        ResumeWorkOrder,
        Right.MAINTAIN,
        "Say that work goes on.",
        "Work goes on.",
    ),
    Declared(
        CompleteWorkOrder,
        Right.MAINTAIN,
        "Say that work is done, and what was found.",
        "Work is done.",
    ),
    Declared(
        CancelWorkOrder,
        Right.MAINTAIN,
        "Say that work will not be done.",
        "The work order is cancelled.",
    ),
    answer=answer_by_key("work_order", WorkOrder, find_work_order, MaintenanceProjection.name),
)

SparePartMutations = mutations(
    "SparePartMutations",
    Declared(
        StockSparePart,
        Right.MAINTAIN,
        "Bring pieces of a spare part into stock.",
        "The pieces are in stock.",
    ),
    Declared(
        ReserveSparePart,
        Right.MAINTAIN,
        "Keep free pieces for a work order that has not ended.",
        "The pieces are reserved.",
    ),
    Declared(
        UnreserveSparePart,
        Right.MAINTAIN,
        "Give pieces free that were kept for a work order.",
        "The pieces are free.",
    ),
    Declared(
        ConsumeSparePart,
        Right.MAINTAIN,
        "Say that a work order used pieces: first what is kept for it, then what is free.",
        "The pieces are used.",
    ),
    answer=answer_by_key("spare_part", SparePart, find_spare_part),
)
