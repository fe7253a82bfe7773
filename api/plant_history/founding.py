"""The first day of a made-up plant: where things stand, what they are, and how parts are made."""

from __future__ import annotations

import hashlib
from typing import Final

from api.plant_history.plant import MES, Machine, Plant
from api.plant_history.products import AREA_OF_CLASS, PRODUCTS, REGRIND, REGROUND
from api.plant_history.quality import VISION_MODEL
from domain.asset import AssetCommissioned, AssetPlaced, AssetRegistered, asset_stream
from domain.documents.document import DocumentKind
from domain.maintenance.spare_part import SparePartStocked, spare_part_stream
from domain.opinions.model import Metric, ModelPromoted, ModelRetired, ModelTrained, model_stream
from domain.plant.component import ComponentInstalled, ComponentRegistered, component_stream
from domain.plant.location import Level, LocationDefined, location_stream
from domain.quality.instrument import InstrumentRegistered, instrument_stream

ADMINISTRATOR: Final = "user:administrator"
ASSET_TYPE: Final = "production-machine"
BEARING_SLOT: Final = "main-bearing"
SPARE_ITEM: Final = "SPINDLE-BEARING-7014"
BEARING_MODEL: Final = "MDL-BEARING"
LINES: Final = 3
"""Lines of an area; the machines of a class stand in its lines in turn."""


def found(plant: Plant) -> None:
    """Record the plant as it is on its first day."""
    _define_locations(plant)
    _release_documents(plant)
    for instrument in plant.instruments:
        plant.recorder.record(
            instrument_stream(instrument.instrument_id),
            InstrumentRegistered(instrument.instrument_id, instrument.instrument_id),
            ADMINISTRATOR,
        )
        plant.calibrate(instrument)
    for n, machine in enumerate(m for group in plant.machines.values() for m in group):
        _set_up(plant, machine, n)
    plant.recorder.record(
        spare_part_stream(spare_item(plant)),
        SparePartStocked(spare_item(plant), 20, 412.5, "EUR"),
        MES,
    )
    train(plant, VISION_MODEL, "1", "surface defects of moulded parts")
    train(plant, BEARING_MODEL, "1", "failure of main bearings")


def spare_item(plant: Plant) -> str:
    """Return the item number of the bearings that machines are mended with."""
    return f"{SPARE_ITEM}-{plant.seed}"


def train(plant: Plant, model: str, version: str, purpose: str) -> None:
    """Record that a version of a model was trained on the log so far, and serves instead."""
    model_id = f"{model}-{plant.seed}"
    record = plant.recorder.record
    record(
        model_stream(model_id),
        ModelTrained(
            model_id,
            version,
            purpose,
            hashlib.sha256(f"{model_id}@{version}".encode()).hexdigest(),
            1,
            max(1, plant.recorder.head),
            plant.seed,
            "made-up",
            (Metric("average_precision", round(0.85 + 0.1 * plant.random.random(), 3)),),
        ),
        "user:data-scientist",
    )
    if version != "1":
        old = str(int(version) - 1)
        record(
            model_stream(model_id),
            ModelRetired(model_id, old, f"version {version} serves instead"),
            "user:data-scientist",
        )
    record(
        model_stream(model_id),
        ModelPromoted(model_id, version, "better than what served before"),
        "user:data-scientist",
    )


def install_bearing(plant: Plant, machine: Machine) -> str:
    """Record a new bearing and its installation in a machine."""
    record = plant.recorder.record
    component_id = machine.component_id = plant.name("CMP")
    stream = component_stream(component_id)
    record(
        stream,
        ComponentRegistered(component_id, "rolling-bearing", "Main bearing 7014", None),
        MES,
    )
    record(stream, ComponentInstalled(component_id, machine.asset_id, BEARING_SLOT), MES)
    machine.wear = 0.0
    return component_id


def _define_locations(plant: Plant) -> None:
    seed = plant.seed
    site, enterprise = f"site-{seed}", f"enterprise-{seed}"
    _define(plant, enterprise, Level.ENTERPRISE, "Drive works", None)
    _define(plant, site, Level.SITE, "Plant by the river", enterprise)
    for area in sorted(set(AREA_OF_CLASS.values())):
        _define(plant, f"{area}-{seed}", Level.AREA, area.capitalize(), site)
        for n in range(1, LINES + 1):
            line = f"{area}-{seed}-line-{n}"
            _define(plant, line, Level.LINE, f"{area.capitalize()}, line {n}", f"{area}-{seed}")
    for n, (machine_class, area) in enumerate(AREA_OF_CLASS.items()):
        line = f"{area}-{seed}-line-{n % LINES + 1}"
        title = f"{machine_class.capitalize()} cell"
        _define(plant, f"{machine_class}-cell-{seed}", Level.CELL, title, line)


def _define(plant: Plant, name: str, level: Level, title: str, parent: str | None) -> None:
    defined = LocationDefined(name, level, title, parent)
    plant.recorder.record(location_stream(name), defined, ADMINISTRATOR)


def _release_documents(plant: Plant) -> None:
    seed = plant.seed
    for number, product in PRODUCTS.items():
        plant.designs[number] = plant.release(
            DocumentKind.DESIGN,
            f"DRW-{number}-{seed}",
            f"{product.title}, drawing",
            part_number=number,
        )
        plant.plans[number] = plant.release(
            DocumentKind.INSPECTION_PLAN, f"PLAN-{number}-{seed}", f"{product.title}: inspection"
        )
        for operation in product.operations:
            release_recipe(plant, number, operation.name, "A")
    release_recipe(plant, REGROUND, REGRIND.name, "A")


def release_recipe(plant: Plant, number: str, operation: str, revision: str) -> None:
    """Release a revision of how an operation is done; the current one from now on."""
    plant.recipes[number, operation] = plant.release(
        DocumentKind.RECIPE,
        f"RCP-{number}-{operation}-{plant.seed}",
        f"{PRODUCTS[number].title}: {operation}",
        revision=revision,
    )


def _set_up(plant: Plant, machine: Machine, number: int) -> None:
    record, asset_id = plant.recorder.record, machine.asset_id
    stream = asset_stream(asset_id)
    title = f"{machine.machine_class.capitalize()} {number + 1}"
    record(stream, AssetRegistered(asset_id, ASSET_TYPE, title), ADMINISTRATOR)
    record(stream, AssetCommissioned(asset_id), ADMINISTRATOR)
    cell = f"{machine.machine_class}-cell-{plant.seed}"
    record(stream, AssetPlaced(asset_id, cell, None), ADMINISTRATOR)
    install_bearing(plant, machine)
    machine.wear = 0.5 * plant.random.random()  # not every bearing was new on that day
