"""Corrections: which event may be corrected by what, and what counts afterwards."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.asset import AssetCommissioned, AssetRegistered, AssetRetired
from domain.asset_decider import DECIDER as ASSETS
from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.events import encode_fact, type_of
from domain.material.lot import LotConsumed, LotQuarantined, LotReceived, LotReleased
from domain.material.lot_decider import DECIDER as LOTS
from domain.material.lot_decider import LotInStock
from domain.material.part import PartScrapped
from domain.records import (
    CorrectRecord,
    Entry,
    Meaning,
    RecordCorrected,
    RecordSigned,
    correct,
    effective,
    effective_entries,
)

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)
STREAM = "lot:L-1"


def received(quantity: float) -> LotReceived:
    return LotReceived("L-1", "steel", quantity, "kg", "S", "1", None)


def consumed(quantity: float, lot_id: str = "L-1") -> LotConsumed:
    return LotConsumed(lot_id, "RUN-1", quantity, "kg", None)


def event_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def history(*facts: Any) -> list[Entry]:
    """Return events that happened at noon, an hour later, and so on; ids and positions from 1."""
    return [
        Entry(event_id(number), number, NOON + timedelta(hours=number - 1), fact)
        for number, fact in enumerate(facts, start=1)
    ]


def correction(number: int, replacement: Any) -> RecordCorrected:
    """Return the correction of the event of this number."""
    text = None if replacement is None else encode_fact(replacement).decode()
    stored = None if replacement is None else type_of(replacement)
    return RecordCorrected(
        STREAM,
        event_id(number),
        number,
        "misread",
        None if stored is None else stored.name,
        None if stored is None else stored.schema_version,
        text,
    )


def signature(number: int) -> RecordSigned:
    return RecordSigned(
        STREAM,
        number,
        event_id(number),
        "00" * 32,
        None,
        "user:mara",
        "Mara Lindqvist",
        Meaning.REVIEWED,
        NOON,
        ("password", "totp"),
    )


def refused(command: CorrectRecord, past: list[Entry], decider: Any = LOTS) -> HeddleError:
    with pytest.raises(HeddleError) as rejected:
        correct(command, past, decider, NOON)
    return rejected.value


# --- deciding -----------------------------------------------------------------------------


def test_an_event_is_corrected_by_what_was_true() -> None:
    command = CorrectRecord(STREAM, event_id(1), " ticket misread ", received(90.0))
    decided, true_at = correct(command, history(received(100.0), consumed(5.0)), LOTS, NOON)
    assert decided == RecordCorrected(
        STREAM,
        event_id(1),
        1,
        "ticket misread",
        "lot.received",
        1,
        encode_fact(received(90.0)).decode(),
    )
    assert decided.fact() == received(90.0)
    assert true_at == NOON


def test_an_event_that_did_not_happen_is_corrected_by_nothing() -> None:
    command = CorrectRecord(STREAM, event_id(2), "wrong lot scanned")
    decided, _ = correct(command, history(received(100.0), consumed(5.0)), LOTS, None)
    assert (decided.replacement_type, decided.replacement_version, decided.replacement) == (
        *(None, None, None),
    )
    assert decided.fact() is None


def test_a_correction_keeps_the_time_that_was_given_last() -> None:
    past = history(received(100.0), consumed(5.0))
    command = CorrectRecord(STREAM, event_id(2), "misread", consumed(6.0))
    assert correct(command, past, LOTS, None)[1] == NOON + timedelta(hours=1)
    moved = NOON + timedelta(minutes=30)
    again = [*past, Entry(event_id(3), 3, moved, correction(2, consumed(6.0)))]
    assert correct(command, again, LOTS, None)[1] == moved


def test_a_correction_is_never_corrected() -> None:
    past = history(received(100.0), consumed(5.0), correction(2, consumed(6.0)))
    error = refused(CorrectRecord(STREAM, event_id(3), "misread", consumed(7.0)), past)
    assert type(error) is CommandRejected
    assert (error.code, error.value, error.limit) == (
        *("correction.of_correction", str(event_id(3)), str(event_id(2))),
    )
    assert str(event_id(2)) in error.hint


def test_a_signature_is_never_corrected() -> None:
    past = history(received(100.0), signature(1))
    error = refused(CorrectRecord(STREAM, event_id(2), "never signed"), past)
    assert (type(error), error.code) == (CommandRejected, "correction.of_signature")


def test_what_the_stream_does_not_hold_is_not_corrected() -> None:
    error = refused(CorrectRecord(STREAM, event_id(9), "misread"), history(received(1.0)))
    assert (type(error), error.code, error.value) == (
        *(NotFound, "correction.unknown_event", str(event_id(9))),
    )


@pytest.mark.parametrize(
    "replacement", [consumed(5.0, "L-2"), PartScrapped("SN-1", "crack"), correction(1, None)]
)
def test_a_replacement_speaks_of_the_same_object(replacement: Any) -> None:
    past = history(received(100.0), consumed(5.0))
    error = refused(CorrectRecord(STREAM, event_id(2), "misread", replacement), past)
    assert (type(error), error.code, error.limit) == (
        *(InvalidInput, "correction.other_object", STREAM),
    )


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_correction_has_a_reason(reason: str) -> None:
    error = refused(CorrectRecord(STREAM, event_id(1), reason), history(received(1.0)))
    assert error.code == "text.empty"


def test_a_correction_leaves_nothing_that_cannot_have_happened() -> None:
    past = history(received(100.0), consumed(5.0))
    error = refused(CorrectRecord(STREAM, event_id(1), "never came"), past)
    assert (type(error), error.code, error.value) == (
        *(CommandRejected, "correction.contradicts", str(event_id(2))),
    )
    assert "position 2" in error.message


def test_what_contradicts_may_be_corrected_first() -> None:
    past = history(received(100.0), consumed(5.0), correction(2, None))
    correct(CorrectRecord(STREAM, event_id(1), "never came"), past, LOTS, None)


def test_moving_a_reception_behind_what_was_used_contradicts() -> None:
    past = history(received(100.0), consumed(5.0))
    command = CorrectRecord(STREAM, event_id(1), "came later", received(100.0))
    later = NOON + timedelta(hours=2)
    with pytest.raises(CommandRejected) as rejected:
        correct(command, past, LOTS, later)
    assert (rejected.value.code, rejected.value.value) == (
        *("correction.contradicts", str(event_id(2))),
    )


@pytest.mark.parametrize("replacement", [received(-1.0), consumed(1.0)])
def test_a_replacement_is_held_against_the_life_it_enters(replacement: Any) -> None:
    error = refused(
        CorrectRecord(STREAM, event_id(1), "misread", replacement), history(received(1))
    )
    assert (error.code, error.value) == ("correction.contradicts", str(event_id(1)))


def test_a_kind_of_object_that_goes_by_the_log_s_order_is_corrected_too() -> None:
    past = history(
        AssetRegistered("loop-1", "skab-pump-loop", "Loop"),
        AssetCommissioned("loop-1"),
        AssetRetired("loop-1", "worn"),
    )
    command = CorrectRecord("asset:loop-1", event_id(3), "another loop was meant")
    correct(command, past, ASSETS, None)
    error = refused(CorrectRecord("asset:loop-1", event_id(1), "misread"), past, ASSETS)
    assert (error.code, error.value) == ("correction.contradicts", str(event_id(2)))


# --- what counts --------------------------------------------------------------------------


def test_the_latest_correction_counts() -> None:
    past = history(
        received(100.0),
        consumed(5.0),
        signature(2),
        correction(2, None),
        correction(2, consumed(7.0)),
    )
    assert effective((entry.event_id, entry.fact) for entry in past) == [
        received(100.0),
        consumed(7.0),
    ]


def test_what_counts_is_placed_by_when_it_was_true() -> None:
    held, released = LotQuarantined("L-1", "rust", None), LotReleased("L-1", "tested")
    past = history(received(9.0), released, held)
    past.append(Entry(event_id(4), 4, NOON + timedelta(minutes=30), correction(3, held)))
    in_time = effective_entries(past, by_valid_time=True)
    assert [entry.fact for entry in in_time] == [received(9.0), held, released]
    assert [entry.position for entry in in_time] == [1, 3, 2]
    assert LOTS.fold(entry.fact for entry in in_time) == LotInStock(
        "L-1", "steel", "kg", Fraction(9)
    )
    by_then = effective_entries(past, as_of=NOON + timedelta(minutes=30))
    assert [entry.fact for entry in by_then] == [received(9.0), held]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=20))
def test_what_counts_is_what_a_notebook_with_crossings_out_says(
    lines: list[tuple[int, int]],
) -> None:
    """A line writes a new consumption, or corrects an earlier one: to 1 to 3 kg, or to nothing."""
    notebook: dict[int, float | None] = {}
    past: list[Entry] = []
    for number, (earlier, kilograms) in enumerate(lines, start=1):
        fact: Any
        if earlier in notebook:
            fact = correction(earlier, consumed(kilograms) if kilograms else None)
            notebook[earlier] = kilograms or None
        else:
            fact = consumed(kilograms + 1)
            notebook[number] = kilograms + 1
        past.append(Entry(event_id(number), number, NOON, fact))
    counts = effective((entry.event_id, entry.fact) for entry in past)
    assert [fact.quantity for fact in counts] == [q for q in notebook.values() if q is not None]
