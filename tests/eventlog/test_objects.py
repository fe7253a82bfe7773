"""Objects as their events make them: many in one statement, as of any time, whatever is missing."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.errors import InvalidInput, PayloadErased
from domain.material.lot import LotConsumed, LotQuarantined, LotReceived, LotReleased
from domain.material.lot_decider import LotInQuarantine, LotInStock, UnknownLot
from domain.quality.instrument import InstrumentRegistered
from eventlog import objects
from eventlog.commands import load
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from eventlog.objects import OBJECTS_MAX, load_object, load_objects
from tests.eventlog.archived import erase_positions

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def received(lot_id: str) -> LotReceived:
    return LotReceived(lot_id, "steel", 100.0, "kg", "ACME", "S-1", None)


async def tell(ledger: Ledger, *told: tuple[str, Any, float]) -> None:
    await ledger.append(
        [
            new_fact(stream, fact, event_id=uuid.uuid4(), occurred_at=at(hours), actor="user:mara")
            for stream, fact, hours in told
        ]
    )


async def three_lots(ledger: Ledger) -> None:
    await tell(
        ledger,
        ("lot:L-1", received("L-1"), 0),
        ("lot:L-2", received("L-2"), 0),
        ("lot:L-1", LotConsumed("L-1", "R-1", 10.0, "kg", None), 1),
        ("lot:L-1", LotQuarantined("L-1", "rust", None), 3),
        ("lot:L-1", LotReleased("L-1", "wiped"), 2),  # told late
    )


async def test_objects_are_what_commands_decide_on(ledger: Ledger) -> None:
    await three_lots(ledger)
    loaded = await load_objects(ledger, ["lot:L-1", "lot:L-2", "lot:L-3", "lot:L-1"])
    assert list(loaded) == ["lot:L-1", "lot:L-2", "lot:L-3"]
    for stream, one in loaded.items():
        assert (one.state, one.version) == await load(ledger, stream)
        assert one.complete
        assert one.position == 5
    first = loaded["lot:L-1"]
    assert isinstance(first.state, LotInQuarantine)
    assert [event.position for event in first.events] == [1, 3, 4, 5]
    assert [entry.position for entry in first.entries] == [1, 3, 5, 4]
    assert first.key == "L-1"
    unknown = loaded["lot:L-3"]
    assert (unknown.known, unknown.version, unknown.events) == (False, 0, ())


async def test_they_are_told_as_they_were_known_and_as_they_were_true(ledger: Ledger) -> None:
    await three_lots(ledger)

    async def told(**asked: Any) -> Any:
        return (await load_objects(ledger, ["lot:L-1"], **asked))["lot:L-1"]

    known = await told(position=3)
    assert (known.version, known.position) == (2, 3)
    assert isinstance(known.state, LotInStock)
    assert known.state.left == 90.0
    true = await told(valid_at=at(2.5))
    assert isinstance(true.state, LotInStock)
    assert (true.version, len(true.entries), true.valid_at) == (4, 3, at(2.5))
    assert (await told(position=4, valid_at=at(0.5))).state.left == 100.0
    before = await told(valid_at=at(-1))
    assert (before.known, before.state) == (False, UnknownLot())
    assert not (await told(position=0)).known
    # A position that is still to come is not claimed.
    assert (await told(position=99)).position == 5


async def test_what_is_missing_of_one_takes_nothing_of_the_others(ledger: Ledger) -> None:
    await three_lots(ledger)
    await erase_positions(ledger, 1)
    loaded = await load_objects(ledger, ["lot:L-1", "lot:L-2"])
    assert not loaded["lot:L-1"].complete
    assert loaded["lot:L-1"].known
    assert isinstance(loaded["lot:L-1"].state, UnknownLot)
    assert loaded["lot:L-2"].complete
    with pytest.raises(PayloadErased):
        await load_object(ledger, "lot:L-1")


async def test_what_cannot_have_happened_is_passed_over_and_said(ledger: Ledger) -> None:
    await tell(
        ledger,
        ("lot:L-1", received("L-1"), 0),
        ("lot:L-1", received("L-1"), 1),
        ("lot:L-1", LotQuarantined("L-1", "rust", None), 2),
    )
    (one,) = (await load_objects(ledger, ["lot:L-1"])).values()
    assert (one.complete, type(one.state)) == (False, LotInQuarantine)
    with pytest.raises(ValueError, match="cannot happen"):
        await load_object(ledger, "lot:L-1")


async def test_what_is_too_much_at_once_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [f"lot:L-{n}" for n in range(OBJECTS_MAX + 1)]
    assert len(await load_objects(ledger, many[:-1])) == OBJECTS_MAX
    with pytest.raises(InvalidInput) as refused:
        await load_objects(ledger, many)
    assert (refused.value.code, refused.value.limit) == ("objects.too_many", OBJECTS_MAX)
    await three_lots(ledger)
    monkeypatch.setattr(objects, "EVENTS_MAX", 4)
    assert len((await load_objects(ledger, ["lot:L-1"]))["lot:L-1"].events) == 4
    with pytest.raises(InvalidInput) as refused:
        await load_objects(ledger, ["lot:L-1", "lot:L-2"])
    assert (refused.value.code, refused.value.limit) == ("objects.too_many_events", 4)


async def test_an_empty_ask_and_an_empty_log_have_answers(ledger: Ledger) -> None:
    assert await load_objects(ledger, []) == {}
    (one,) = (await load_objects(ledger, ["instrument:CMM-2"])).values()
    assert (one.known, one.position) == (False, 0)
    await tell(ledger, ("instrument:CMM-2", InstrumentRegistered("CMM-2", "Machine"), 0))
    (one,) = (await load_objects(ledger, ["instrument:CMM-2"])).values()
    assert one.known
