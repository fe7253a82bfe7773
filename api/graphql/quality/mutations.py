"""Mutations of quality: inspections, non-conformances, instruments."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.quality.types import (
    Inspection,
    Instrument,
    Nonconformance,
    find_inspection,
    find_instrument,
    find_nonconformance,
)
from domain.quality.inspection import RecordInspection
from domain.quality.instrument import CalibrateInstrument, RegisterInstrument, RetireInstrument
from domain.quality.nonconformance import (
    CloseNonconformance,
    DispositionNonconformance,
    OpenNonconformance,
)

InspectionMutations = mutations(
    "InspectionMutations",
    Declared(
        RecordInspection,
        Right.INSPECT,
        "Record an inspection of a part, a lot or a run.",
        "The inspection is recorded.",
    ),
    answer=answer_by_key("inspection", Inspection, find_inspection),
)

NonconformanceMutations = mutations(
    "NonconformanceMutations",
    Declared(
        OpenNonconformance,
        Right.INSPECT,
        "Say that something is not as specified.",
        "The non-conformance is open.",
    ),
    Declared(
        DispositionNonconformance,
        Right.INSPECT,
        "Decide what is done with what does not conform, and why.",
        "It is decided.",
    ),
    Declared(
        CloseNonconformance,
        Right.INSPECT,
        "Say that what was decided has been done.",
        "The non-conformance is closed.",
    ),
    answer=answer_by_key("nonconformance", Nonconformance, find_nonconformance),
)

InstrumentMutations = mutations(
    "InstrumentMutations",
    Declared(
        RegisterInstrument,
        Right.INSPECT,
        "Make an instrument known.",
        "The instrument is known.",
    ),
    Declared(
        CalibrateInstrument,
        Right.INSPECT,
        "Say that an instrument was calibrated.",
        "The calibration is recorded.",
    ),
    Declared(
        RetireInstrument,
        Right.INSPECT,
        "Say that an instrument is not used any more.",
        "The instrument is retired.",
    ),
    answer=answer_by_key("instrument", Instrument, find_instrument),
)
