"""Orders of a made-up plant: parts are made, put together, inspected and shipped."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from api.plant_history.field import MadePart, in_the_field
from api.plant_history.materials import Lot, Regrind, Stock
from api.plant_history.plant import HOUR_MS, MES, MINUTE_MS, Machine, Plant
from api.plant_history.products import (
    BEARING,
    BEARING_SUPPLIERS,
    PRODUCTS,
    REGRIND,
    REGROUND,
    SPARE,
    UNIT,
    Operation,
    Product,
    parts_of_unit,
)
from api.plant_history.quality import (
    complete_run,
    inspect,
    return_to_supplier,
    settle,
    start_run,
)
from api.plant_history.recorder import HistoryEvent, Story
from domain.documents.document import DocumentKind
from domain.material.part import (
    PartAssembled,
    PartCreated,
    PartProcessed,
    PartReceived,
    PartShipped,
    PartStocked,
)
from domain.material.process_run import ProcessRunAborted, ProcessRunStarted, process_run_stream
from domain.quality.inspection import Verdict

UNITS_PER_ORDER_MAX: Final = 8
ORDERS_MIN: Final = 6
SPARES_PER_ORDER: Final = 48
ORDER_MS: Final = 15 * 24 * HOUR_MS
"""About how long an order takes."""

ORDERS_AT_ONCE: Final = 80
"""In a larger plant orders go faster, so that no more than about so many are under way."""

INSPECTED_MIN: Final = 120
"""Of a small history so many parts are inspected, or all."""

CUSTOMERS: Final = ("Nordwind", "Pumpen Meyer", "Azud", "Volt & Sons", "Kawamura")
SPRUE_GRAMS: Final = 45
"""What is left over of each part that is moulded."""

Making = Generator[int, None, list[MadePart]]


@dataclass(slots=True)
class Order:
    """Parts that were promised to an order and are not yet made."""

    left: int


class Shop:
    """The shop floor: what orders draw from."""

    def __init__(self, plant: Plant, stocks: dict[str, Stock]) -> None:
        self.plant = plant
        self.stocks = stocks
        self.regrind = Regrind(plant)
        self._promised = 0
        self._per_unit = sum(parts_of_unit().values())
        units = plant.parts_max // self._per_unit
        self._units = max(1, min(UNITS_PER_ORDER_MAX, units // ORDERS_MIN))
        # Some more than that, of spare parts, and for what has to be made again.
        self._pace_ms = plant.span_ms * 0.8 / (1.08 * units / self._units + 2)
        plant.speed = min(1.0, ORDERS_AT_ONCE * self._pace_ms / ORDER_MS)

    def orders(self) -> Story:
        """Launch orders until so many parts are made as the history has."""
        plant, recorder = self.plant, self.plant.recorder
        while (left := plant.parts_max - plant.parts - self._promised) > 0 or self._promised:
            if left <= 0:
                # What could not be put together is made up for once the last order is through.
                yield recorder.now_ms + HOUR_MS
                continue
            units = min(self._units, left // self._per_unit)
            order = Order(units * self._per_unit)
            if units and not plant.chance(0.05):
                recorder.tell(self._unit_order(order, units))
            else:
                order = Order(min(SPARES_PER_ORDER, left))
                recorder.tell(self._spare_order(order))
            self._promised += order.left
            yield recorder.now_ms + plant.pause_ms(self._pace_ms)

    # --- orders -------------------------------------------------------------------------------

    def _unit_order(self, order: Order, units: int) -> Story:
        """Make so many drive units out of all that they consist of, and ship most of them."""
        counts = parts_of_unit()
        made: dict[str, list[MadePart]] = {}
        for number, product in PRODUCTS.items():
            wanted = counts[number] * units
            if not product.children:
                made[number] = yield from self._make(order, product, wanted)
                continue
            for child, pieces, _ in product.children:
                if child == BEARING:
                    made[child] = self._receive_bearings(order, wanted * pieces)
                wanted = min(wanted, len(made[child]) // pieces)
            made[number] = yield from self._assemble(order, product, wanted, made)
        self._promised -= order.left
        if not self.plant.chance(0.1):
            yield from self._ship(made[UNIT])

    def _spare_order(self, order: Order) -> Story:
        """Make gears that are sold as they are; some stay in stock."""
        made = yield from self._make(order, PRODUCTS[SPARE], order.left)
        yield from self._ship(made[: len(made) * 3 // 4])

    def _ship(self, parts: Sequence[MadePart]) -> Story:
        """Send finished parts to a customer, who has some of them fail."""
        plant = self.plant
        yield self._later(4 * 60)
        shipment = plant.name("SHIP")
        customer = CUSTOMERS[int(plant.random.random() * len(CUSTOMERS))]
        for part in parts:
            plant.recorder.record(
                part.stream, PartShipped(part.part_id, shipment, customer), "user:dispatcher"
            )
            in_the_field(plant, part, customer)

    def _later(self, minutes: float) -> int:
        """Return when so much work is done."""
        return self.plant.recorder.now_ms + max(1_000, int(minutes * MINUTE_MS * self.plant.speed))

    # --- parts --------------------------------------------------------------------------------

    def _name(self, order: Order) -> str:
        """Return the serial number of the next part of an order."""
        order.left -= 1
        self._promised -= 1
        return self.plant.part_name()

    def _make(self, order: Order, product: Product, pieces: int) -> Making:
        """Make so many parts of one kind from their material; return those that came out good."""
        parts: list[MadePart] = []
        first = product.operations[0]
        while len(parts) < pieces:
            parts += yield from self._cut(
                order, product, first, min(first.batch, pieces - len(parts))
            )
        return (yield from self._finish(product, parts))

    def _cut(self, order: Order, product: Product, operation: Operation, pieces: int) -> Making:
        """Make parts of a lot: the first operation of what has no children."""
        plant, record = self.plant, self.plant.recorder.record
        assert product.material is not None
        stock, grams = self.stocks[product.material], pieces * product.grams
        run_id, machine = plant.name("RUN"), plant.machine(operation.machine_class)
        moulded = operation.machine_class == "moulder"
        start_run(plant, run_id, operation.name, machine, product, operation)
        lot = stock.take(grams)
        stock.consume(lot, run_id, grams)
        if moulded:
            self.regrind.consume(run_id)
        yield self._later(operation.minutes)
        design, parts = plant.designs[product.number], []
        for _ in range(pieces):
            part = MadePart(self._name(order), lot.soft)
            record(part.stream, self._created(part.part_id, product, design, run_id, lot), MES)
            parts.append(part)
        if moulded:
            sprues = self.regrind.collect(run_id, pieces * SPRUE_GRAMS)
        complete_run(plant, run_id, operation, machine)
        if moulded:
            yield from self._grind(sprues)
        return parts

    def _created(
        self, part_id: str, product: Product, design: str, run_id: str, lot: Lot
    ) -> PartCreated:
        """Return that a part was made; of some it is not known how, or of what."""
        drawn = self.plant.random.random()
        if drawn < 0.01 and lot.grams:  # its card was lost: only the lot's label was kept
            return PartCreated(part_id, product.number, design, None, lot.lot_id)
        if drawn < 0.012:  # of an old lot that nobody ever recorded
            unknown = self.plant.name("OLD")
            return PartCreated(part_id, product.number, design, run_id, unknown, ("lot.unknown",))
        return PartCreated(part_id, product.number, design, run_id, None)

    def _grind(self, sprues: Lot) -> Story:
        plant = self.plant
        run_id, machine = plant.name("RUN"), plant.machine(REGRIND.machine_class)
        start_run(plant, run_id, REGRIND.name, machine, PRODUCTS[REGROUND], REGRIND)
        yield self._later(REGRIND.minutes)
        self.regrind.grind(sprues, run_id)
        complete_run(plant, run_id, REGRIND, machine)

    def _receive_bearings(self, order: Order, pieces: int) -> list[MadePart]:
        """Receive bearings with their certificate; return those that are good on arrival."""
        plant = self.plant
        supplier = BEARING_SUPPLIERS[int(plant.random.random() * len(BEARING_SUPPLIERS))]
        certificate = plant.release(
            DocumentKind.CERTIFICATE, plant.name("CERT"), f"Works certificate of {BEARING}"
        )
        good = []
        for _ in range(pieces):
            part = MadePart(self._name(order), soft=False)
            plant.recorder.record(
                part.stream, PartReceived(part.part_id, BEARING, supplier, certificate), MES
            )
            if plant.chance(0.008):
                return_to_supplier(plant, part.part_id, supplier)
            else:
                good.append(part)
        return good

    def _assemble(
        self, order: Order, product: Product, pieces: int, made: dict[str, list[MadePart]]
    ) -> Making:
        """Put so many parts together out of what was made, as it comes."""
        plant, record = self.plant, self.plant.recorder.record
        operation = product.operations[0]
        design = plant.designs[product.number]
        assembled: list[MadePart] = []
        while len(assembled) < pieces:
            run_id, machine = plant.name("RUN"), plant.machine(operation.machine_class)
            start_run(plant, run_id, operation.name, machine, product, operation)
            yield self._later(operation.minutes)
            for _ in range(min(operation.batch, pieces - len(assembled))):
                inside = [
                    (made[child].pop(), slot if each == 1 else f"{slot}-{n + 1}")
                    for child, each, slot in product.children
                    for n in range(each)
                ]
                soft = any(child.soft for child, _ in inside)
                children = tuple(child for child, _ in inside)
                part = MadePart(self._name(order), soft, children)
                record(
                    part.stream,
                    PartCreated(part.part_id, product.number, design, run_id, None),
                    MES,
                )
                for child, slot in inside:
                    child.children = ()  # what is deeper is not asked for again
                    record(child.stream, PartAssembled(child.part_id, part.part_id, slot), MES)
                assembled.append(part)
            complete_run(plant, run_id, operation, machine)
        return (yield from self._finish(product, assembled))

    def _finish(self, product: Product, parts: list[MadePart]) -> Making:
        """Take parts through the rest of their route; return those that are good, in stock."""
        plant = self.plant
        run_id, machine = "", plant.machines["bench"][0]
        for operation in product.operations[1:]:
            for batch in _batches(parts, operation.batch):
                run_id, machine = yield from self._process(product, operation, batch)
        good = []
        for part in parts:
            if plant.chance(max(product.inspected, INSPECTED_MIN / plant.parts_max)):
                found = inspect(plant, part.part_id, product, run_id, machine, soft=part.soft)
                if found.verdict is not Verdict.GOOD and not (
                    yield from settle(plant, part.part_id, product, found, machine)
                ):
                    continue
            plant.recorder.record(part.stream, PartStocked(part.part_id), MES)
            good.append(part)
        return good

    # --- runs ---------------------------------------------------------------------------------

    def _process(
        self, product: Product, operation: Operation, batch: Sequence[MadePart]
    ) -> Generator[int, None, tuple[str, Machine]]:
        """Take parts through one run; one in 250 is given up and begun again."""
        plant, recorder = self.plant, self.plant.recorder
        machine = plant.machine(operation.machine_class)
        drawn = plant.random.random()
        if drawn < 0.004:
            given_up = plant.name("RUN")
            start_run(plant, given_up, operation.name, machine, product, operation)
            yield self._later(operation.minutes / 3)
            recorder.record(
                process_run_stream(given_up), ProcessRunAborted(given_up, "tool broke"), MES
            )
        run_id = plant.name("RUN")
        started = start_run(plant, run_id, operation.name, machine, product, operation)
        record = recorder.record
        cards = batch
        if drawn > 0.996:  # a card was put aside: somebody records it in the evening
            late, *cards = batch
            recorder.tell(
                self._late_card(late, run_id, recorder.now_ms),
                recorder.now_ms + plant.handling_ms(8 * HOUR_MS),
            )
        elif drawn > 0.985:
            recorder.tell(
                self._correct_run(started), recorder.now_ms + plant.handling_ms(30 * HOUR_MS)
            )
        for part in cards:
            record(part.stream, PartProcessed(part.part_id, run_id), MES)
        yield self._later(operation.minutes)
        complete_run(plant, run_id, operation, machine)
        return run_id, machine

    def _late_card(self, part: MadePart, run_id: str, occurred_ms: int) -> Story:
        """Record late that a part went through a run."""
        yield from ()
        self.plant.recorder.record(
            part.stream,
            PartProcessed(part.part_id, run_id),
            "user:shift-clerk",
            occurred_ms=occurred_ms,
        )

    def _correct_run(self, wrong: HistoryEvent) -> Story:
        """Correct on which machine a run was, or where there is but one, by whom."""
        yield from ()
        started = wrong.fact
        assert isinstance(started, ProcessRunStarted)
        others = [
            machine.asset_id
            for machine in self.plant.machines[
                started.asset_id.rpartition("-")[0].rpartition("-")[0]
            ]
            if machine.asset_id != started.asset_id
        ]
        right = replace(started, asset_id=others[0]) if others else started
        self.plant.recorder.correct(
            wrong,
            replace(right, operator=self.plant.operator()),
            "booked on the wrong machine" if others else "signed with another's card",
            "user:shift-lead",
        )


def _batches(parts: Sequence[MadePart], size: int) -> Iterator[Sequence[MadePart]]:
    for first in range(0, len(parts), size):
        yield parts[first : first + size]
