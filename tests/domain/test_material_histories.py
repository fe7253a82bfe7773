"""Lots and parts against simple models, and any history told again in any order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.errors import HeddleError
from domain.material.lot import (
    ConsumeLot,
    MergeLot,
    QuarantineLot,
    ReceiveLot,
    ReleaseLot,
    ScrapLot,
    ShipLot,
    SplitLot,
)
from domain.material.lot_decider import KnownLot, LotGone, LotInQuarantine, LotInStock
from domain.material.part import (
    AssemblePart,
    CreatePart,
    PartReleased,
    PartRemoved,
    PartStanding,
    ProcessPart,
    QuarantinePart,
    ReleasePart,
    RemovePart,
    ReportPartFailure,
    ReturnPart,
    ReworkPart,
    ScrapPart,
    ShipPart,
    StockPart,
    part_stream,
)
from domain.material.part_decider import Part
from domain.material.process_run import ProcessRunStarted
from tests.domain.memory_log import MemoryLog

RUN = "RUN-1"
started = ProcessRunStarted(RUN, "lathe-2", "turn", None, None, None, None, ())

LOTS = st.sampled_from([f"L-{n}" for n in range(5)])
PARTS = st.sampled_from([f"SN-{n}" for n in range(5)])
GRAMS = st.integers(1, 3_000)
UNITS = st.sampled_from([("g", 1), ("kg", 1_000), ("t", 1_000_000), ("mg", Fraction(1, 1_000))])


@dataclass
class ModelLot:
    """What anybody would note on a card: how many grams are left, and where the lot is."""

    grams: int
    place: str = "stock"


class Lots(RuleBasedStateMachine):
    """Lots keep to their cards: nothing is made of nothing, and nothing is taken twice."""

    @initialize()
    def begin(self) -> None:
        self.log = MemoryLog()
        self.log.record(f"process-run:{RUN}", started, 0)
        self.minute = 0
        self.cards: dict[str, ModelLot] = {}
        self.brought = self.used = 0

    def refusal(self, command: Any, minute: int | None = None) -> str | None:
        """Ask `command`; return the code of its refusal, or None when it was done."""
        self.minute += 1
        try:
            self.last = self.log.ask(command, self.minute if minute is None else minute)
        except HeddleError as error:
            return error.code
        return None

    def why_not(self, lot: str) -> str | None:
        card = self.cards.get(lot)
        if card is None:
            return "lot.unknown"
        return None if card.place == "stock" else f"lot.{card.place}"

    @rule(lot=LOTS, grams=GRAMS, unit=UNITS)
    def receive(self, lot: str, grams: int, unit: tuple[str, Any]) -> None:
        quantity = float(Fraction(grams) / unit[1])
        refused = self.refusal(ReceiveLot(lot, "steel", quantity, unit[0], "S", "1"))
        if lot in self.cards:
            assert refused == "lot.already_known"
        else:
            assert refused is None
            self.cards[lot] = ModelLot(grams)
            self.brought += grams

    @rule(lot=LOTS, grams=GRAMS, unit=UNITS, reason=st.sampled_from([None, "an offcut"]))
    def consume(self, lot: str, grams: int, unit: tuple[str, Any], reason: str | None) -> None:
        quantity = float(Fraction(grams) / unit[1])
        refused = self.refusal(ConsumeLot(lot, RUN, quantity, unit[0], reason))
        expected = self.why_not(lot)
        if expected is None and grams > self.cards[lot].grams and reason is None:
            expected = "lot.exceeded"
        assert refused == expected
        if refused is None:
            over = grams > self.cards[lot].grams
            assert self.last[0].flags == (("lot.exceeded",) if over else ())
            self.cards[lot].grams -= grams
            self.used += grams

    @rule(lot=LOTS, into=LOTS, grams=GRAMS)
    def split(self, lot: str, into: str, grams: int) -> None:
        refused = self.refusal(SplitLot(lot, into, float(grams), "g"))
        expected = self.why_not(lot)
        if expected is None and grams > self.cards[lot].grams:
            expected = "lot.exceeded"
        if expected is None and lot == into:
            expected = "lot.same_lot"
        if expected is None and into in self.cards:
            expected = "lot.already_known"
        assert refused == expected
        if refused is None:
            self.cards[lot].grams -= grams
            self.cards[into] = ModelLot(grams)

    @rule(lot=LOTS, into=LOTS)
    def merge(self, lot: str, into: str) -> None:
        refused = self.refusal(MergeLot(lot, into))
        expected = "lot.same_lot" if lot == into else self.why_not(lot)
        if expected is None and self.cards[lot].grams <= 0:
            expected = "lot.empty"
        assert refused == (expected or self.why_not(into))
        if refused is None:
            self.cards[into].grams += self.cards[lot].grams
            self.cards[lot] = ModelLot(0, "merged")

    @rule(lot=LOTS)
    def quarantine(self, lot: str) -> None:
        refused = self.refusal(QuarantineLot(lot, "rust"))
        expected = self.why_not(lot)
        assert refused == (None if expected == "lot.quarantined" else expected)
        if refused is None:
            self.cards[lot].place = "quarantined"

    @rule(lot=LOTS)
    def release(self, lot: str) -> None:
        refused = self.refusal(ReleaseLot(lot, "tested"))
        expected = self.why_not(lot)
        if expected == "lot.quarantined":
            assert refused is None
            self.cards[lot].place = "stock"
        else:
            assert refused == (expected or "lot.not_quarantined")

    @rule(lot=LOTS, ship=st.booleans())
    def give_up(self, lot: str, ship: bool) -> None:
        command = ShipLot(lot, "S-1", "Ulm") if ship else ScrapLot(lot, "rust")
        refused = self.refusal(command)
        expected = self.why_not(lot)
        if not ship and expected == "lot.quarantined":
            expected = None
        if ship and expected is None and self.cards[lot].grams <= 0:
            expected = "lot.empty"
        assert refused == expected
        if refused is None:
            card = self.cards[lot]
            self.used += max(card.grams, 0)
            self.cards[lot] = ModelLot(min(card.grams, 0), "shipped" if ship else "scrapped")

    @rule(lot=LOTS, grams=GRAMS, ago=st.integers(0, 50))
    def consume_told_late(self, lot: str, grams: int, ago: int) -> None:
        card = self.cards.get(lot)
        if card is None or card.place not in ("stock", "quarantined"):
            return
        minute = max(0, self.minute - ago)
        refused = self.refusal(ConsumeLot(lot, RUN, float(grams), "g", late=True), minute)
        assert refused is None
        if grams > card.grams:
            assert "lot.exceeded" in self.last[0].flags
        card.grams -= grams
        self.used += grams

    @invariant()
    def every_lot_keeps_to_its_card(self) -> None:
        kinds = {"stock": LotInStock, "quarantined": LotInQuarantine}
        for lot, card in self.cards.items():
            state = self.log.state(f"lot:{lot}")
            assert isinstance(state, KnownLot)
            assert type(state) is kinds.get(card.place, LotGone)
            assert state.left_si * 1_000 == card.grams

    @invariant()
    def nothing_is_made_of_nothing(self) -> None:
        assert self.brought == self.used + sum(card.grams for card in self.cards.values())


TestLots = Lots.TestCase
TestLots.settings = settings(max_examples=60, stateful_step_count=30)


def commands_on(parts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(AssemblePart, parts, parts, st.just("seat")),
        st.builds(RemovePart, parts, parts, st.just("worn")),
        st.builds(QuarantinePart, parts, st.just("runout")),
        st.builds(ReleasePart, parts, st.just("measured")),
        st.builds(ScrapPart, parts, st.just("crack")),
        st.builds(ShipPart, parts, st.just("S-1"), st.just("Ulm")),
        st.builds(ReturnPart, parts, st.just("vibration")),
        st.builds(StockPart, parts),
        st.builds(ProcessPart, parts, st.just(RUN)),
        st.builds(ReworkPart, parts, st.just(RUN), st.sampled_from([None, "NC-1"])),
        st.builds(ReportPartFailure, parts, st.just("F-1"), st.just("crack"), st.just("")),
    )


class Parts(RuleBasedStateMachine):
    """Parts are where a shelf of boxes in boxes would have them."""

    @initialize()
    def begin(self) -> None:
        self.log = MemoryLog()
        self.log.record(f"process-run:{RUN}", started, 0)
        self.minute = 0
        self.inside: dict[str, str | None] = {}
        for number in range(5):
            self.log.ask(CreatePart(f"SN-{number}", "SHAFT"), 0)
            self.inside[f"SN-{number}"] = None

    def contents(self, part: str) -> set[str]:
        """Return `part` and all that is inside it, at whatever depth."""
        found = {part}
        while more := {p for p, holder in self.inside.items() if holder in found} - found:
            found |= more
        return found

    def holders(self, part: str) -> list[str]:
        """Return what `part` is inside of, from the nearest on, as the log has it."""
        holders: list[str] = []
        while (holder := self.state(holders[-1] if holders else part).inside) is not None:
            assert holder not in holders
            holders.append(holder)
        return holders

    def state(self, part: str) -> Part:
        state = self.log.state(part_stream(part))
        assert isinstance(state, Part)
        return state

    @rule(part=PARTS, into=PARTS)
    def assemble(self, part: str, into: str) -> None:
        standing, holder = self.state(part).standing, self.state(into).standing
        usable = standing in (PartStanding.IN_PROCESS, PartStanding.IN_STOCK)
        held = holder in (PartStanding.QUARANTINED, PartStanding.SCRAPPED)
        possible = usable and not held and into not in self.contents(part)
        assert self.does(AssemblePart(part, into, "seat")) == possible
        if possible:
            self.inside[part] = into

    @rule(part=PARTS, holder=PARTS)
    def remove(self, part: str, holder: str) -> None:
        possible = self.inside[part] == holder
        assert self.does(RemovePart(part, holder, "worn")) == possible
        if possible:
            self.inside[part] = None

    @rule(command=commands_on(PARTS).filter(lambda c: not isinstance(c, AssemblePart | RemovePart)))
    def whatever_else(self, command: Any) -> None:
        done = self.does(command)
        if (
            isinstance(command, ShipPart | ScrapPart | ReturnPart | StockPart | ProcessPart)
            and done
        ):
            assert self.inside[command.part_id] is None

    def does(self, command: Any) -> bool:
        self.minute += 1
        try:
            events = self.log.ask(command, self.minute)
        except HeddleError:
            return False
        for event in events:
            assert event.flags == ()
            if isinstance(event, PartRemoved | PartReleased):
                assert self.state(command.part_id).standing is event.stands
        return True

    @invariant()
    def every_part_is_where_it_was_put(self) -> None:
        for part, holder in self.inside.items():
            state = self.state(part)
            assert state.inside == holder
            assert part not in self.holders(part)
            if state.standing is PartStanding.ASSEMBLED:
                assert holder is not None


TestParts = Parts.TestCase
TestParts.settings = settings(max_examples=60, stateful_step_count=40)


def come_to(facts: list[tuple[int, Any]]) -> dict[str, Any]:
    """Return the parts that `facts` make, told late in this order."""
    log = MemoryLog()
    log.record(f"process-run:{RUN}", started, 0)
    for minute, command in facts:
        assert log.ask(replace(command, late=True), minute)
    return {name: log.state(name) for name in log.streams if name.startswith("part:")}


TWO_PARTS = st.sampled_from(["SN-0", "SN-1"])


@settings(max_examples=300)
@given(
    st.lists(commands_on(TWO_PARTS), min_size=10, max_size=60),
    st.randoms(use_true_random=False),
)
def test_a_history_told_late_in_any_order_comes_to_the_same_parts(
    commands: list[Any], random: Any
) -> None:
    """Whoever imports what has happened, in whatever order, ends where those are who were there."""
    there = MemoryLog()
    there.record(f"process-run:{RUN}", started, 0)
    done = []
    made = [CreatePart("SN-0", "SHAFT"), CreatePart("SN-1", "PUMP")]
    for minute, command in enumerate([*made, *commands], start=1):
        try:
            if there.ask(command, minute):
                done.append((minute, command))
        except HeddleError:
            pass
    random.shuffle(done)
    assert come_to(done) == {name: there.state(name) for name in ("part:SN-0", "part:SN-1")}


CREATED = [(0, CreatePart("SN-0", "SHAFT")), (0, CreatePart("SN-1", "PUMP"))]


def test_a_removal_told_before_the_quarantine_leaves_the_part_in_quarantine() -> None:
    facts = [
        (1, AssemblePart("SN-0", "SN-1", "seat")),
        (3, RemovePart("SN-0", "SN-1", "worn")),
        (2, QuarantinePart("SN-0", "runout")),
    ]
    part = come_to([*CREATED, *facts])["part:SN-0"]
    assert (part.standing, part.inside) == (PartStanding.QUARANTINED, None)


def test_a_second_quarantine_told_before_the_release_between_is_kept() -> None:
    facts = [
        (1, QuarantinePart("SN-0", "runout")),
        (3, QuarantinePart("SN-0", "crack")),
        (2, ReleasePart("SN-0", "measured")),
    ]
    assert come_to([*CREATED, *facts])["part:SN-0"].standing is PartStanding.QUARANTINED
