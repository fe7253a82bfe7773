"""Lots of a made-up plant: delivered, checked, split, merged, used up, and ground again.

Quantities are kept in grams, so that what is recorded in kilograms is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from api.plant_history.plant import HOUR_MS, INSPECTOR, MES, Plant
from api.plant_history.products import MATERIALS, PRODUCTS, Material, parts_of_unit
from api.plant_history.recorder import Story
from domain.documents.document import DocumentKind
from domain.material.lot import (
    LotConsumed,
    LotCreated,
    LotIncreased,
    LotMerged,
    LotQuarantined,
    LotReceived,
    LotReleased,
    LotScrapped,
    LotSplit,
    lot_stream,
)
from domain.quality.inspection import (
    InspectionRecorded,
    Judge,
    Verdict,
    inspection_stream,
)

SPLITS: Final = 8
"""A delivery is split into so many lots, one after the other."""

RESERVE: Final = 3
"""The next delivery is ordered when so many of them are left."""

DELIVERY_PARTS_MIN: Final = 48
DELIVERIES: Final = 5
"""A small history has deliveries so small that it needs so many of them."""

REGRINDS_MAX: Final = 25
"""Ground so often, polymer is thrown away."""


@dataclass(slots=True)
class Lot:
    """A lot and what is left of it; `soft`: it is worse than its certificate says."""

    lot_id: str
    grams: int
    soft: bool = False
    usable: bool = True


class Stock:
    """The lots of one material."""

    def __init__(self, plant: Plant, material: Material, grams: int, share: float) -> None:
        self.plant = plant
        self.material = material
        parts = min(material.delivered_parts, int(plant.parts_max * share / DELIVERIES))
        self._split_grams = grams * max(DELIVERY_PARTS_MIN, parts) // SPLITS
        self._deliveries = 0
        self._delivery: Lot | None = None
        self._next: Lot | None = None
        self._open: Lot | None = None

    def take(self, grams: int) -> Lot:
        """Return a lot that has at least so much left."""
        lot = self._open
        if lot is None or lot.grams < grams:
            lot = self._open = self._split(lot, grams)
        return lot

    def consume(self, lot: Lot, run_id: str, grams: int) -> None:
        """Record that a run used so much of a lot; now and then somewhat more than there was."""
        if lot.grams < 2 * grams and self.plant.chance(0.05):
            grams += lot.grams
        reason: str | None = None
        flags: tuple[str, ...] = ()
        if grams > lot.grams:
            reason, flags = "weighed less at delivery than there was", ("lot.exceeded",)
        lot.grams = max(0, lot.grams - grams)
        self.plant.recorder.record(
            lot_stream(lot.lot_id),
            LotConsumed(lot.lot_id, run_id, grams / 1000, "kg", reason, flags),
            MES,
        )

    def _split(self, before: Lot | None, grams: int) -> Lot:
        """Return a new lot out of the delivery; what is left of the one before goes into it."""
        delivery = self._supplied(grams)
        taken = min(delivery.grams, max(self._split_grams, grams))
        lot = Lot(self.plant.name("LOT"), taken, delivery.soft)
        delivery.grams -= taken
        record = self.plant.recorder.record
        record(
            lot_stream(delivery.lot_id),
            LotSplit(delivery.lot_id, lot.lot_id, taken / 1000, "kg"),
            MES,
        )
        record(
            lot_stream(lot.lot_id),
            LotCreated(lot.lot_id, self.material.name, taken / 1000, "kg", None),
            MES,
        )
        if before is not None and before.grams:
            self._empty(before, lot)
        if delivery.grams < RESERVE * self._split_grams and self._next is None:
            self._next = self._receive(usable=False)
        return lot

    def _supplied(self, grams: int) -> Lot:
        """Return the delivery that is used up now, which has at least so much left."""
        delivery = self._delivery
        if delivery is None or delivery.grams < grams:
            left = delivery
            if self._next is not None and self._next.usable:
                delivery, self._next = self._next, None
            else:
                delivery = self._receive(usable=True)
            if left is not None and left.grams:
                self._empty(left, delivery)
            self._delivery = delivery
        return delivery

    def _empty(self, left: Lot, into: Lot) -> None:
        """Put what is left of a lot into another one, or throw it away."""
        record = self.plant.recorder.record
        stream = lot_stream(left.lot_id)
        if self.plant.chance(0.3):
            record(stream, LotScrapped(left.lot_id, "too little to set up for"), MES)
        else:
            quantity = left.grams / 1000
            record(stream, LotMerged(left.lot_id, into.lot_id, quantity, "kg"), MES)
            record(
                lot_stream(into.lot_id),
                LotIncreased(into.lot_id, left.lot_id, quantity, "kg"),
                MES,
            )
            into.grams += left.grams
        left.grams = 0

    def _receive(self, *, usable: bool) -> Lot:
        """Receive a delivery with its certificate; unless usable at once, it is checked first."""
        plant, name = self.plant, self.material.name
        self._deliveries += 1
        supplier = self.material.suppliers[self._deliveries % len(self.material.suppliers)]
        lot = Lot(
            plant.name("LOT"),
            self._split_grams * SPLITS,
            soft=self._deliveries % 4 == 2,
            usable=usable,
        )
        certificate = plant.release(
            DocumentKind.CERTIFICATE,
            plant.name("CERT"),
            f"Inspection certificate 3.1 after EN 10204 of {name}, {supplier}",
        )
        plant.recorder.record(
            lot_stream(lot.lot_id),
            LotReceived(
                lot.lot_id,
                name,
                lot.grams / 1000,
                "kg",
                supplier,
                f"{supplier[:3].upper()}{plant.seed}{self._deliveries:05}",
                certificate,
            ),
            MES,
        )
        if not usable:
            plant.recorder.tell(self._check(lot))
        return lot

    def _check(self, lot: Lot) -> Story:
        """Keep a delivery in quarantine until it was inspected."""
        plant = self.plant
        stream = lot_stream(lot.lot_id)
        plant.recorder.record(stream, LotQuarantined(lot.lot_id, "incoming inspection", None), MES)
        yield plant.recorder.now_ms + plant.handling_ms(3 * HOUR_MS)
        inspection = plant.name("INS")
        plant.recorder.record(
            inspection_stream(inspection),
            InspectionRecorded(
                inspection, stream, None, None, (), (), (), Verdict.GOOD, Judge.PERSON, None, ()
            ),
            INSPECTOR,
        )
        yield plant.recorder.now_ms + plant.handling_ms(HOUR_MS)
        plant.recorder.record(stream, LotReleased(lot.lot_id, "incoming inspection passed"), MES)
        lot.usable = True


class Regrind:
    """Polymer that was moulded before: each lot is ground of what the one before left over."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.lot: Lot | None = None
        self._times = 0

    def consume(self, run_id: str) -> None:
        """Record that a moulding run used up what was ground before."""
        if self.lot is None:
            return
        self.plant.recorder.record(
            lot_stream(self.lot.lot_id),
            LotConsumed(self.lot.lot_id, run_id, self.lot.grams / 1000, "kg", None),
            MES,
        )
        self.lot = None

    def collect(self, run_id: str, grams: int) -> Lot:
        """Record the sprues that a moulding run leaves over."""
        sprues = Lot(self.plant.name("LOT"), grams)
        self._created(sprues, run_id, "PA66-GF30 sprues")
        return sprues

    def grind(self, sprues: Lot, run_id: str) -> None:
        """Record that a run ground `sprues`; after `REGRINDS_MAX` times it is thrown away."""
        record = self.plant.recorder.record
        record(
            lot_stream(sprues.lot_id),
            LotConsumed(sprues.lot_id, run_id, sprues.grams / 1000, "kg", None),
            MES,
        )
        ground = Lot(self.plant.name("LOT"), sprues.grams)
        self._created(ground, run_id, "PA66-GF30 regrind")
        self._times += 1
        if self._times == REGRINDS_MAX:
            self._times = 0
            record(
                lot_stream(ground.lot_id),
                LotScrapped(ground.lot_id, f"ground {REGRINDS_MAX} times"),
                MES,
            )
        elif self.lot is not None:
            record(
                lot_stream(ground.lot_id),
                LotMerged(ground.lot_id, self.lot.lot_id, ground.grams / 1000, "kg"),
                MES,
            )
            record(
                lot_stream(self.lot.lot_id),
                LotIncreased(self.lot.lot_id, ground.lot_id, ground.grams / 1000, "kg"),
                MES,
            )
            self.lot.grams += ground.grams
        else:
            self.lot = ground

    def _created(self, lot: Lot, run_id: str, material: str) -> None:
        self.plant.recorder.record(
            lot_stream(lot.lot_id),
            LotCreated(lot.lot_id, material, lot.grams / 1000, "kg", run_id),
            MES,
        )


def open_stocks(plant: Plant) -> dict[str, Stock]:
    """Return the stocks of all materials, empty."""
    counts = parts_of_unit()
    total = sum(counts.values())
    return {
        product.material: Stock(
            plant, MATERIALS[product.material], product.grams, counts[product.number] / total
        )
        for product in PRODUCTS.values()
        if product.material is not None
    }
