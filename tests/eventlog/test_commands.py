"""Commands on a real PostgreSQL: several streams, lost races, late facts and corrections."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from domain.asset import CommissionAsset, DesireSetpoint, RegisterAsset, RetireAsset
from domain.deciders import OTHERS_MAX
from domain.errors import CommandRejected, Conflict, HeddleError, InvalidInput, NotFound
from domain.material.lot import (
    ConsumeLot,
    LotConsumed,
    LotReceived,
    MergeLot,
    QuarantineLot,
    ReceiveLot,
    ReleaseLot,
    ScrapLot,
    SplitLot,
)
from domain.material.lot_decider import KnownLot, LotInQuarantine, LotInStock, UnknownLot
from domain.material.part import (
    AssemblePart,
    CreatePart,
    PartAssembled,
    PartCreated,
    part_stream,
)
from domain.material.part_decider import UnknownPart
from domain.material.process_run import Ended, Running, StartProcessRun
from domain.quality.instrument import CalibrateInstrument, RegisterInstrument
from domain.records import CorrectRecord, RecordCorrected
from eventlog.commands import Handled, handle, load
from eventlog.corrections import handle_correction
from eventlog.envelope import new_fact
from eventlog.erasure import erase
from eventlog.ledger import APPEND_EVENTS_MAX, Appended, IdempotencyKey, Ledger
from eventlog.reading import read_event, read_stream
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, frame_event, frame_of, opened

pytestmark = pytest.mark.anyio

EIGHT = datetime(2025, 3, 3, 8, tzinfo=UTC)
STEEL = ReceiveLot("L-1", "steel", 100.0, "kg", "Saarstahl", "H-1")
RUN = StartProcessRun("RUN-1", "lathe-2", "turn")

_ids = itertools.count(1)


def new_id() -> uuid.UUID:
    return uuid.UUID(int=next(_ids) << 64 | 0x7 << 76 | 1 << 63)


def at(minute: float) -> datetime:
    return EIGHT + timedelta(minutes=minute)


async def do(ledger: Ledger, command: Any, minute: float = 0, **options: Any) -> Handled:
    return await handle(
        ledger,
        command,
        actor="user:mara",
        occurred_at=at(minute),
        event_id=lambda _n: new_id(),
        **options,
    )


async def erase_by_law(ledger: Ledger, *positions: int) -> None:
    await erase(
        ledger, positions, reason="by law", actor="user:mara", now=at(60), new_event_id=new_id
    )


async def refusal(ledger: Ledger, command: Any, minute: float = 0, **options: Any) -> HeddleError:
    before = await ledger.head()
    with pytest.raises(HeddleError) as refused:
        await do(ledger, command, minute, **options)
    assert await ledger.head() == before
    return refused.value


async def correct(
    ledger: Ledger, stream: str, version: int, replacement: Any = None, **options: Any
) -> Handled:
    """Correct the event that stands in `stream` at `version`."""
    event = (await read_stream(ledger, stream, from_version=version, limit=1))[0]
    return await handle_correction(
        ledger,
        CorrectRecord(stream, event.event_id, "misread", replacement),
        actor="user:mara",
        event_id=new_id(),
        **options,
    )


async def lot(ledger: Ledger, lot_id: str = "L-1") -> Any:
    return (await load(ledger, f"lot:{lot_id}"))[0]


async def prepared(ledger: Ledger) -> None:
    """Have an asset, a run on it and 100 kg of steel."""
    await do(ledger, RegisterAsset("lathe-2", "skab-pump-loop", "Lathe"))
    await do(ledger, RUN)
    await do(ledger, STEEL)


# --- other objects and other streams ------------------------------------------------------


async def test_a_decision_looks_at_other_objects(ledger: Ledger) -> None:
    error = await refusal(ledger, RUN)
    assert (type(error), error.code) == (NotFound, "asset.unknown")
    await do(ledger, STEEL)
    error = await refusal(ledger, ConsumeLot("L-1", "RUN-1", 1.0, "kg"), 1)
    assert (type(error), error.code) == (NotFound, "process_run.unknown")
    await do(ledger, RegisterAsset("lathe-2", "skab-pump-loop", "Lathe"))
    await do(ledger, RUN)
    handled = await do(ledger, ConsumeLot("L-1", "RUN-1", 1.0, "kg"), 1)
    assert handled.events == (LotConsumed("L-1", "RUN-1", 1.0, "kg", None),)
    assert isinstance((await load(ledger, "process-run:RUN-1"))[0], Running)
    await do(ledger, RetireAsset("lathe-2", "worn"))
    error = await refusal(ledger, StartProcessRun("RUN-2", "lathe-2", "turn"))
    assert (type(error), error.code) == (CommandRejected, "asset.retired")


async def test_a_decision_s_events_go_to_several_streams_together(ledger: Ledger) -> None:
    await do(ledger, STEEL)
    split = await do(ledger, SplitLot("L-1", "L-2", 30.0, "kg"), 1)
    assert (split.version, split.position) == (2, 3)
    stored = [await read_event(ledger, position) for position in (2, 3)]
    assert [(e.stream, e.version) for e in stored if e is not None] == [
        ("lot:L-1", 2),
        ("lot:L-2", 1),
    ]
    assert await lot(ledger) == LotInStock("L-1", "steel", "kg", Fraction(70))
    assert await lot(ledger, "L-2") == LotInStock("L-2", "steel", "kg", Fraction(30))
    await do(ledger, MergeLot("L-2", "L-1"), 2)
    assert await lot(ledger) == LotInStock("L-1", "steel", "kg", Fraction(100))
    await assert_log_is_sound(ledger, 5)


async def test_one_command_looks_at_so_many_objects_and_no_more(ledger: Ledger) -> None:
    depth = OTHERS_MAX + 1
    facts: list[Any] = [PartCreated(f"SN-{n}", "BOX", None, None, None) for n in range(depth + 1)]
    facts += [PartAssembled(f"SN-{n}", f"SN-{n + 1}", "inside") for n in range(1, depth)]
    assert len(facts) <= APPEND_EVENTS_MAX
    await ledger.append(
        [
            new_fact(
                part_stream(f.part_id), f, event_id=new_id(), occurred_at=EIGHT, actor="user:mara"
            )
            for f in facts
        ]
    )
    error = await refusal(ledger, AssemblePart("SN-0", "SN-1", "inside"), 1)
    assert (type(error), error.code, error.limit) == (
        *(CommandRejected, "command.looks_at_too_much", OTHERS_MAX),
    )
    await do(ledger, AssemblePart("SN-0", "SN-2", "inside"), 1)


async def test_an_object_of_no_kind_has_no_state(ledger: Ledger) -> None:
    await ledger.append([fact(1, stream="oddity:1")])
    assert await load(ledger, "oddity:1") == (None, 1)
    assert await load(ledger, "lot:L-1") == (UnknownLot(), 0)


async def test_what_a_command_tells_is_recorded_as_of_when_it_happened(ledger: Ledger) -> None:
    await do(ledger, RegisterInstrument("CAL-1", "Caliper"))
    calibrated = CalibrateInstrument("CAL-1", at(5), at(100))

    error = await refusal(ledger, calibrated, 6)

    assert isinstance(error, InvalidInput)
    assert error.code == "command.time_mismatch"
    assert (await do(ledger, calibrated, 5)).version == 2


async def test_what_was_erased_by_law_hinders_no_command_that_does_not_need_it(
    ledger: Ledger,
) -> None:
    for asset_id in ("loop-1", "loop-2"):
        await do(ledger, RegisterAsset(asset_id, "skab-pump-loop", "Jane's loop"))
        await do(ledger, CommissionAsset(asset_id), 1)
    await erase_by_law(ledger, 2, 3)  # that one is in service, that the other is registered

    retired = await do(ledger, RetireAsset("loop-1", "worn"), 2)
    error = await refusal(ledger, RetireAsset("loop-2", "worn"), 2)

    assert [type(event).__name__ for event in retired.events] == ["AssetRetired"]
    assert error.code == "payload.erased"


async def test_nothing_is_decided_of_a_lot_of_which_something_was_erased(ledger: Ledger) -> None:
    await do(ledger, STEEL)
    await do(ledger, ScrapLot("L-1", "wet"), 1)
    await erase_by_law(ledger, 2)

    assert (await refusal(ledger, ScrapLot("L-1", "wet"), 2)).code == "payload.erased"


async def test_a_stream_is_corrected_though_something_else_of_it_was_erased(
    ledger: Ledger,
) -> None:
    await do(ledger, RegisterAsset("loop-1", "skab-pump-loop", "Loop"))
    await do(ledger, DesireSetpoint("loop-1", "flow", 1e-3), 1)
    await do(ledger, DesireSetpoint("loop-1", "flow", 2e-3), 2)
    await erase_by_law(ledger, 2)
    wrong = await read_event(ledger, 3)
    assert wrong is not None

    handled = await handle_correction(
        ledger,
        CorrectRecord("asset:loop-1", wrong.event_id, "mistyped"),
        actor="user:mara",
        event_id=new_id(),
    )

    assert handled.version == 4
    assert dict((await load(ledger, "asset:loop-1"))[0].desired) == {}


async def test_a_malformed_name_is_refused_before_anything_is_read(ledger: Ledger) -> None:
    error = await refusal(ledger, StartProcessRun("RUN 1", "lathe-2", "turn"))
    assert (type(error), error.code) == (InvalidInput, "process_run.malformed_name")


# --- races --------------------------------------------------------------------------------


async def test_of_two_who_take_the_same_kilograms_one_gets_them(database_url: str) -> None:
    """Each decides on what it read; who comes second decides anew and is told what is left."""
    async with opened(database_url) as one, opened(database_url) as other:
        await prepared(one)
        for turn in range(8):
            await do(one, ReceiveLot(f"R-{turn}", "steel", 100.0, "kg", "S", "1"))
            take = ConsumeLot(f"R-{turn}", "RUN-1", 60.0, "kg")
            outcomes = await asyncio.gather(
                do(one, take, 1), do(other, take, 1), return_exceptions=True
            )
            assert sum(isinstance(o, Handled) for o in outcomes) == 1
            refused = next(o for o in outcomes if isinstance(o, HeddleError))
            assert (refused.code, refused.limit) == ("lot.exceeded", 40.0)
            assert (await lot(one, f"R-{turn}")).left == 40.0


async def test_what_a_decision_looked_at_has_not_changed_when_it_is_recorded(
    database_url: str,
) -> None:
    """Each of two parts may go into the other; both at once would close a circle."""
    async with opened(database_url) as one, opened(database_url) as other:
        for turn in range(8):
            a, b = f"A-{turn}", f"B-{turn}"
            await do(one, CreatePart(a, "BOX"))
            await do(one, CreatePart(b, "BOX"))
            outcomes = await asyncio.gather(
                do(one, AssemblePart(a, b, "inside"), 1),
                do(other, AssemblePart(b, a, "inside"), 1),
                return_exceptions=True,
            )
            refused = [o for o in outcomes if isinstance(o, HeddleError)]
            assert [error.code for error in refused] == ["part.cycle"]
            assert sum(isinstance(o, Handled) for o in outcomes) == 1


async def test_many_who_take_a_little_are_each_served_once(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        await prepared(one)
        takes = [
            do(log, ConsumeLot("L-1", "RUN-1", 10.0, "kg"), 1) for log in (one, other) for _ in "ab"
        ]
        handled = await asyncio.gather(*takes)
        assert sorted(h.version for h in handled) == [2, 3, 4, 5]
        assert (await lot(one)).left == 60.0


async def test_who_names_a_version_is_not_decided_anew(ledger: Ledger) -> None:
    await prepared(ledger)
    take = ConsumeLot("L-1", "RUN-1", 1.0, "kg")
    await do(ledger, take, 1, expected_version=1)
    error = await refusal(ledger, take, 1, expected_version=1)
    assert (type(error), error.code, error.value, error.limit) == (
        *(Conflict, "stream.version_conflict", 1, 2),
    )


# --- once ---------------------------------------------------------------------------------


async def test_a_command_is_done_once_a_key(ledger: Ledger) -> None:
    await prepared(ledger)
    key = IdempotencyKey.of("booking-1", b"1 kg")
    take = ConsumeLot("L-1", "RUN-1", 1.0, "kg")
    first = await do(ledger, take, 1, idempotency=key)
    again = await do(ledger, take, 2, idempotency=key)
    assert (again.events, again.version, again.position, again.duplicate) == (
        *((), first.version, first.position, True),
    )
    assert (await lot(ledger)).left == 99.0
    error = await refusal(ledger, take, 1, idempotency=IdempotencyKey.of("booking-1", b"2 kg"))
    assert (type(error), error.code) == (Conflict, "idempotency_key.reused")


async def test_a_key_used_twice_at_once_is_done_once(database_url: str) -> None:
    """Whoever comes second is told the outcome, though a second time would be refused."""
    async with opened(database_url) as one, opened(database_url) as other:
        await prepared(one)
        for turn in range(4):
            await do(one, ReceiveLot(f"R-{turn}", "steel", 100.0, "kg", "S", "1"))
            take = ConsumeLot(f"R-{turn}", "RUN-1", 60.0, "kg")
            key = IdempotencyKey.of(f"booking-{turn}", b"60 kg")
            outcomes = await asyncio.gather(
                *(do(log, take, 1, idempotency=key) for log in (one, other))
            )
            assert sorted(outcome.duplicate for outcome in outcomes) == [False, True]
            assert len({outcome.position for outcome in outcomes}) == 1
            assert (await lot(one, f"R-{turn}")).left == 40.0


class Overtaken(Ledger):
    """A ledger on which another process is quicker, between the first look and the decision."""

    quicker: Callable[[], Awaitable[Handled]] | None = None

    async def recall(self, idempotency: IdempotencyKey) -> Appended | None:
        found = await super().recall(idempotency)
        if self.quicker is not None:
            quicker, self.quicker = self.quicker, None
            await quicker()
        return found


async def test_a_command_in_its_own_way_is_told_the_outcome(ledger: Ledger) -> None:
    await prepared(ledger)
    take = ConsumeLot("L-1", "RUN-1", 60.0, "kg")
    key = IdempotencyKey.of("booking-1", b"60 kg")
    overtaken = await Overtaken.open(ledger.pool, ledger.name)
    assert isinstance(overtaken, Overtaken)
    overtaken.quicker = lambda: do(ledger, take, 1, idempotency=key)
    handled = await do(overtaken, take, 1, idempotency=key)
    assert (handled.events, handled.version, handled.duplicate) == ((), 2, True)
    assert (await lot(ledger)).left == 40.0
    with pytest.raises(CommandRejected) as refused:
        await do(overtaken, take, 1, idempotency=IdempotencyKey.of("booking-2", b"60 kg"))
    assert refused.value.code == "lot.exceeded"
    await overtaken.close()


async def test_who_names_a_version_and_is_in_its_own_way_is_told_the_outcome(
    ledger: Ledger,
) -> None:
    await prepared(ledger)
    take = ConsumeLot("L-1", "RUN-1", 60.0, "kg")
    asked: dict[str, Any] = {
        "idempotency": IdempotencyKey.of("booking-1", b"60 kg"),
        "expected_version": 1,
    }
    overtaken = await Overtaken.open(ledger.pool, ledger.name)
    assert isinstance(overtaken, Overtaken)
    overtaken.quicker = lambda: do(ledger, take, 1, **asked)
    handled = await do(overtaken, take, 1, **asked)
    assert (handled.events, handled.version, handled.duplicate) == ((), 2, True)
    assert (await lot(ledger)).left == 40.0
    await overtaken.close()


async def test_a_correction_in_its_own_way_is_told_the_outcome(ledger: Ledger) -> None:
    await prepared(ledger)
    await do(ledger, ConsumeLot("L-1", "RUN-1", 60.0, "kg"), 1)
    asked: dict[str, Any] = {
        "idempotency": IdempotencyKey.of("correction-1", b"6 kg"),
        "expected_version": 2,
    }
    six = LotConsumed("L-1", "RUN-1", 6.0, "kg", None)
    overtaken = await Overtaken.open(ledger.pool, ledger.name)
    assert isinstance(overtaken, Overtaken)
    overtaken.quicker = lambda: correct(ledger, "lot:L-1", 2, six, **asked)
    handled = await correct(overtaken, "lot:L-1", 2, six, **asked)
    assert (handled.events, handled.version, handled.duplicate) == ((), 3, True)
    assert (await lot(ledger)).left == 94.0
    await overtaken.close()


async def test_a_rehearsal_records_nothing(ledger: Ledger) -> None:
    await prepared(ledger)
    before = await ledger.head()
    rehearsed = await do(ledger, SplitLot("L-1", "L-2", 1.0, "kg"), 1, dry_run=True)
    assert len(rehearsed.events) == 2
    assert (rehearsed.version, rehearsed.position, await ledger.head()) == (1, before, before)


async def test_what_already_is_so_records_nothing(ledger: Ledger) -> None:
    await prepared(ledger)
    await do(ledger, QuarantineLot("L-1", "rust"), 1)
    again = await do(ledger, QuarantineLot("L-1", "rust"), 2)
    assert (again.events, again.version) == ((), 2)


# --- late and out of order ----------------------------------------------------------------


async def test_what_was_consumed_before_it_was_received_is_refused_or_flagged(
    ledger: Ledger,
) -> None:
    await do(ledger, RegisterAsset("lathe-2", "skab-pump-loop", "Lathe"))
    await do(ledger, RUN)
    error = await refusal(ledger, ConsumeLot("L-1", "RUN-1", 5.0, "kg"), 3)
    assert (type(error), error.code) == (NotFound, "lot.unknown")
    told = await do(ledger, ConsumeLot("L-1", "RUN-1", 5.0, "kg", late=True), 3)
    assert told.events[0].flags == ("lot.unknown",)
    await do(ledger, STEEL, 4)
    assert (await lot(ledger)).left == 95.0
    # Told late of a time when the lot was there, it is as it should be.
    told = await do(ledger, ConsumeLot("L-1", "RUN-1", 5.0, "kg", late=True), 4)
    assert told.events[0].flags == ()
    told = await do(ledger, ConsumeLot("L-1", "RUN-1", 5.0, "kg", late=True), 3.9)
    assert told.events[0].flags == ("lot.unknown",)
    assert (await lot(ledger)).left == 85.0


async def test_a_command_does_not_slip_in_before_what_is_known(ledger: Ledger) -> None:
    await do(ledger, STEEL, 0)
    await do(ledger, QuarantineLot("L-1", "rust"), 10)
    error = await refusal(ledger, ReleaseLot("L-1", "tested"), 9)
    assert (type(error), error.code) == (CommandRejected, "command.out_of_order")
    assert (error.value, error.limit) == (
        *("2025-03-03T08:09:00.000000Z", "2025-03-03T08:10:00.000000Z"),
    )
    told = await do(ledger, ReleaseLot("L-1", "tested", late=True), 9)
    assert told.events[0].flags == ("lot.not_quarantined",)  # as it was then
    assert isinstance(await lot(ledger), LotInQuarantine)
    await do(ledger, ReleaseLot("L-1", "tested"), 10)
    assert isinstance(await lot(ledger), LotInStock)


async def test_a_written_stream_s_last_word_counts_whoever_asked(ledger: Ledger) -> None:
    await do(ledger, STEEL, 0)
    await do(ledger, ReceiveLot("L-2", "steel", 5.0, "kg", "S", "2"), 10)
    error = await refusal(ledger, MergeLot("L-1", "L-2"), 5)
    assert error.code == "command.out_of_order"


async def test_an_asset_s_life_goes_by_the_log_s_order(ledger: Ledger) -> None:
    """Its commands say nothing of late, and a machine's clock may go wrong."""
    await do(ledger, RegisterAsset("lathe-2", "skab-pump-loop", "Lathe"), 10)
    await do(ledger, CommissionAsset("lathe-2"), 0)
    state, version = await load(ledger, "asset:lathe-2")
    assert (state.in_service, version) == (True, 2)


async def test_a_time_without_a_zone_is_refused(ledger: Ledger) -> None:
    await do(ledger, STEEL)
    with pytest.raises(InvalidInput) as refused:
        await handle(
            ledger,
            QuarantineLot("L-1", "rust"),
            actor="user:mara",
            occurred_at=datetime(2025, 3, 3, 9),  # noqa: DTZ001
            event_id=lambda _n: new_id(),
        )
    assert refused.value.code == "event.naive_time"


# --- corrections --------------------------------------------------------------------------


async def test_what_was_corrected_counts_from_then_on(ledger: Ledger) -> None:
    await prepared(ledger)
    await do(ledger, ConsumeLot("L-1", "RUN-1", 80.0, "kg"), 1)
    assert (await refusal(ledger, SplitLot("L-1", "L-2", 50.0, "kg"), 2)).code == "lot.exceeded"
    handled = await correct(ledger, "lot:L-1", 2, LotConsumed("L-1", "RUN-1", 8.0, "kg", None))
    assert (handled.version, handled.duplicate) == (3, False)
    stored = await read_event(ledger, handled.position)
    assert stored is not None
    assert isinstance(stored.fact, RecordCorrected)
    assert (stored.occurred_at, stored.actor) == (at(1), "user:mara")
    assert (await lot(ledger)).left == 92.0
    await do(ledger, SplitLot("L-1", "L-2", 50.0, "kg"), 2)
    await correct(ledger, "lot:L-1", 2, LotConsumed("L-1", "RUN-1", 18.0, "kg", None))
    assert (await lot(ledger)).left == 32.0
    await correct(ledger, "lot:L-1", 2)
    assert (await lot(ledger)).left == 50.0
    await assert_log_is_sound(ledger, await ledger.head())


async def test_a_correction_moves_a_fact_to_when_it_was_true(ledger: Ledger) -> None:
    await do(ledger, STEEL, 0)
    await do(ledger, QuarantineLot("L-1", "rust"), 10)
    await do(ledger, ReleaseLot("L-1", "tested"), 20)
    quarantined = (await read_stream(ledger, "lot:L-1", from_version=2, limit=1))[0].fact
    await correct(ledger, "lot:L-1", 2, quarantined, occurred_at=at(30))
    assert isinstance(await lot(ledger), LotInQuarantine)
    error = await refusal(ledger, ReleaseLot("L-1", "tested"), 25)
    assert (error.code, error.limit) == ("command.out_of_order", "2025-03-03T08:30:00.000000Z")


async def refused_correction(ledger: Ledger, stream: str, version: int, **options: Any) -> Any:
    before = await ledger.head()
    with pytest.raises(HeddleError) as refused:
        await correct(ledger, stream, version, **options)
    assert await ledger.head() == before
    return refused.value


async def test_a_correction_of_a_correction_names_what_to_correct(ledger: Ledger) -> None:
    await do(ledger, STEEL)
    lighter = LotReceived("L-1", "steel", 99.0, "kg", "Saarstahl", "H-1", None)
    await correct(ledger, "lot:L-1", 1, lighter)
    original = (await read_stream(ledger, "lot:L-1", limit=1))[0].event_id
    error = await refused_correction(ledger, "lot:L-1", 2, replacement=lighter)
    assert (type(error), error.code, error.limit) == (
        *(CommandRejected, "correction.of_correction", str(original)),
    )


async def test_a_correction_that_leaves_what_cannot_be_names_it(ledger: Ledger) -> None:
    await prepared(ledger)
    await do(ledger, ConsumeLot("L-1", "RUN-1", 80.0, "kg"), 1)
    consumed = (await read_stream(ledger, "lot:L-1", from_version=2, limit=1))[0].event_id
    error = await refused_correction(ledger, "lot:L-1", 1)
    assert (type(error), error.code, error.value) == (
        *(CommandRejected, "correction.contradicts", str(consumed)),
    )


async def test_an_event_is_corrected_in_its_own_stream(ledger: Ledger) -> None:
    await do(ledger, STEEL)
    await do(ledger, CreatePart("SN-1", "SHAFT"))
    part = (await read_stream(ledger, "part:SN-1", limit=1))[0]
    for event_id, stream, code in (
        (part.event_id, "lot:L-1", "correction.other_stream"),
        (uuid.UUID(int=9), "lot:L-1", "correction.unknown_event"),
    ):
        with pytest.raises(HeddleError) as refused:
            await handle_correction(
                ledger,
                CorrectRecord(stream, event_id, "misread"),
                actor="user:mara",
                event_id=new_id(),
            )
        assert refused.value.code == code


async def test_frames_and_what_nobody_decides_are_not_corrected(ledger: Ledger) -> None:
    await ledger.append([frame_event(frame_of(1)), fact(1, stream="oddity:1")])
    for stream, code in (
        ("telemetry:loop-1", "correction.of_frame"),
        ("oddity:1", "correction.not_correctable"),
    ):
        error = await refused_correction(ledger, stream, 1)
        assert (type(error), error.code) == (CommandRejected, code)


async def test_corrections_at_once_are_all_recorded_and_the_latest_counts(
    database_url: str,
) -> None:
    async with opened(database_url) as one, opened(database_url) as other:
        await do(one, STEEL)
        lots = [LotReceived("L-1", "steel", 90.0 + n, "kg", "S", "1", None) for n in range(4)]
        handled = await asyncio.gather(
            *(
                correct(log, "lot:L-1", 1, known)
                for log, known in zip((one, other, one, other), lots, strict=True)
            )
        )
        assert sorted(h.version for h in handled) == [2, 3, 4, 5]
        last = max(range(4), key=lambda n: handled[n].version)
        state = await lot(one)
        assert isinstance(state, KnownLot)
        assert state.left == 90.0 + last


async def test_a_correction_is_made_once_a_key_and_rehearsed_for_nothing(ledger: Ledger) -> None:
    await do(ledger, STEEL)
    lighter = LotReceived("L-1", "steel", 99.0, "kg", "Saarstahl", "H-1", None)
    rehearsed = await correct(ledger, "lot:L-1", 1, lighter, dry_run=True)
    assert (len(rehearsed.events), await ledger.head()) == (1, 1)
    key = IdempotencyKey.of("ticket-7", b"99 kg")
    first = await correct(ledger, "lot:L-1", 1, lighter, idempotency=key)
    again = await correct(ledger, "lot:L-1", 1, lighter, idempotency=key)
    assert (again.events, again.position, again.duplicate) == ((), first.position, True)
    error = await refused_correction(ledger, "lot:L-1", 1, replacement=lighter, expected_version=1)
    assert (error.code, error.limit) == ("stream.version_conflict", 2)


async def test_a_late_history_imported_backwards_comes_to_the_same(ledger: Ledger) -> None:
    facts: list[tuple[int, Any]] = [
        (1, ReceiveLot("L-1", "steel", 100.0, "kg", "S", "1", late=True)),
        (2, StartProcessRun("RUN-1", "lathe-2", "turn", late=True)),
        (3, ConsumeLot("L-1", "RUN-1", 20.0, "kg", late=True)),
        (4, CreatePart("SN-1", "SHAFT", run_id="RUN-1", late=True)),
        (5, CreatePart("SN-2", "PUMP", late=True)),
        (6, AssemblePart("SN-1", "SN-2", "shaft", late=True)),
    ]
    for minute, command in reversed(facts):
        await do(ledger, command, minute)
    assert (await lot(ledger)).left == 80.0
    part = (await load(ledger, "part:SN-1"))[0]
    assert not isinstance(part, UnknownPart)
    assert part.inside == "SN-2"
    run = (await load(ledger, "process-run:RUN-1"))[0]
    assert isinstance(run, Running)
    assert not isinstance(run, Ended)
    flags = [(await read_event(ledger, p)).fact.flags for p in range(1, 7)]  # type: ignore[union-attr]
    assert flags == [
        ("part.unknown",),
        (),
        ("process_run.unknown",),
        ("lot.unknown", "process_run.unknown"),
        ("asset.unknown",),
        (),
    ]
