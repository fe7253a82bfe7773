"""Mutations of material: lots and parts."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.material.types import Lot, Part, find_lot, find_part
from domain.material.lot import (
    ConsumeLot,
    CreateLot,
    MergeLot,
    QuarantineLot,
    ReceiveLot,
    ReleaseLot,
    ScrapLot,
    ShipLot,
    SplitLot,
)
from domain.material.part import (
    AssemblePart,
    CreatePart,
    ProcessPart,
    QuarantinePart,
    ReceivePart,
    ReleasePart,
    RemovePart,
    ReportPartFailure,
    ReturnPart,
    ReworkPart,
    ScrapPart,
    ShipPart,
    StockPart,
)

LotMutations = mutations(
    "LotMutations",
    Declared(
        ReceiveLot,
        Right.OPERATE,
        "Take in a supplier's lot.",
        "The lot is in stock.",
    ),
    Declared(
        CreateLot,
        Right.OPERATE,
        "Make a lot here, by a run or without one.",
        "The lot is made.",
    ),
    Declared(
        ConsumeLot,
        Right.OPERATE,
        "Use so much of a lot in a run.",
        "So much of it is used.",
    ),
    Declared(
        SplitLot,
        Right.OPERATE,
        "Make so much of a lot a lot of its own.",
        "The lot is split.",
    ),
    Declared(
        MergeLot,
        Right.OPERATE,
        "Put all that is left of a lot into another one of the same material.",
        "The lot is merged.",
    ),
    Declared(
        QuarantineLot,
        Right.INSPECT,
        "Let nothing of a lot be used until it is released.",
        "The lot is in quarantine.",
    ),
    Declared(
        ReleaseLot,
        Right.INSPECT,
        "Let a lot be used again.",
        "The lot may be used.",
    ),
    Declared(
        ScrapLot,
        Right.INSPECT,
        "Throw away what is left of a lot.",
        "The lot is scrapped.",
    ),
    Declared(
        ShipLot,
        Right.OPERATE,
        "Send what is left of a lot to a customer; to send less, split it.",
        "The lot is shipped.",
    ),
    answer=answer_by_key("lot", Lot, find_lot),
)

PartMutations = mutations(
    "PartMutations",
    Declared(
        CreatePart,
        Right.OPERATE,
        "Make a part, by a run or from a lot where no run is known.",
        "The part is made.",
    ),
    Declared(
        ReceivePart,
        Right.OPERATE,
        "Take in a part from a supplier.",
        "The part is in stock.",
    ),
    Declared(
        ProcessPart,
        Right.OPERATE,
        "Put a part through a run.",
        "The part is in process.",
    ),
    Declared(
        StockPart,
        Right.OPERATE,
        "Lay a finished part in stock.",
        "The part is in stock.",
    ),
    Declared(
        AssemblePart,
        Right.OPERATE,
        "Put a part into another one.",
        "The part is assembled.",
    ),
    Declared(
        RemovePart,
        Right.OPERATE,
        "Take a part out of the one it is in.",
        "The part is out.",
    ),
    Declared(
        ReworkPart,
        Right.OPERATE,
        "Put a part through a run to mend it; out of quarantine only for a non-conformance.",
        "The part is reworked.",
    ),
    Declared(
        QuarantinePart,
        Right.INSPECT,
        "Let a part not be used until it is released.",
        "The part is in quarantine.",
    ),
    Declared(
        ReleasePart,
        Right.INSPECT,
        "Let a part be used again.",
        "The part may be used.",
    ),
    Declared(
        ScrapPart,
        Right.INSPECT,
        "Throw a part away.",
        "The part is scrapped.",
    ),
    Declared(
        ShipPart,
        Right.OPERATE,
        "Send a part to a customer, with all that is in it.",
        "The part is shipped.",
    ),
    Declared(
        ReturnPart,
        Right.OPERATE,
        "Take a part back from a customer, with all that is in it.",
        "The part is back.",
    ),
    Declared(
        ReportPartFailure,
        Right.OPERATE,
        "Say that a part, shipped by itself or in another one, failed in the field.",
        "The failure is reported.",
    ),
    answer=answer_by_key("part", Part, find_part),
)
