"""What the made-up plant makes: an electric drive unit of five levels, and how each part is made.

Operations, tolerances and quantities are of the size that a plant of this kind has; none is
measured anywhere.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from domain.material.process_run import SetParameter


class Operation(NamedTuple):
    """One step of a route: `batch` parts go through a machine of `machine_class` together."""

    name: str
    machine_class: str
    batch: int
    minutes: int
    parameter: SetParameter


class Tolerance(NamedTuple):
    """A characteristic that is inspected, mm: nominal, and how far it may be off."""

    name: str
    nominal: float
    tolerance: float


class Product(NamedTuple):
    """A part number: what one is made of and how. The first operation makes the part.

    Parameters
    ----------
    material, grams : the lot that the first operation consumes, and how much a part takes
    children : (part number, how many, slot) put into it by the first operation
    inspected : the share of parts that is inspected at the end
    """

    number: str
    title: str
    material: str | None
    grams: int
    children: tuple[tuple[str, int, str], ...]
    operations: tuple[Operation, ...]
    tolerances: tuple[Tolerance, ...]
    inspected: float


class Material(NamedTuple):
    """What comes in by lots: a delivery has enough for so many parts."""

    name: str
    suppliers: tuple[str, ...]
    delivered_parts: int


MATERIALS: Final[dict[str, Material]] = {
    name: Material(name, suppliers, parts)
    for name, suppliers, parts in (
        ("steel-16MnCr5", ("Ruhrstahl", "Aceros del Norte"), 4_000),
        ("steel-42CrMo4", ("Ruhrstahl", "Valbruna"), 3_000),
        ("aluminium-A356", ("Hydro", "Rheinfelden"), 1_500),
        ("electrical-steel-M270", ("Stalprodukt",), 2_500),
        ("copper-wire", ("Elektrisola", "Schwering"), 2_500),
        ("PA66-GF30", ("Radici", "DOMO"), 5_000),
    )
}

BEARING: Final = "BRG-6204"
BEARING_SUPPLIERS: Final = ("Kugelwerk Sued", "Rodamientos Levante")

_PARAMETERS: Final = {
    "saw": ("feed", 85.0, "mm/s"),
    "lathe": ("spindle_speed", 2_400.0, "rpm"),
    "mill": ("spindle_speed", 8_000.0, "rpm"),
    "hob": ("spindle_speed", 420.0, "rpm"),
    "grinder": ("wheel_speed", 1_900.0, "rpm"),
    "furnace": ("temperature", 925.0, "degC"),
    "washer": ("bath_temperature", 62.0, "degC"),
    "blaster": ("air_pressure", 4.5, "bar"),
    "coater": ("bath_temperature", 88.0, "degC"),
    "caster": ("melt_temperature", 710.0, "degC"),
    "granulator": ("rotor_speed", 310.0, "rpm"),
    "moulder": ("melt_temperature", 285.0, "degC"),
    "winder": ("wire_force", 42.0, "N"),
    "press": ("press_force", 18.0, "kN"),
    "bench": ("tightening_torque", 24.0, "N.m"),
    "test-stand": ("test_speed", 3_000.0, "rpm"),
}

ALONE: Final = ("granulator", "washer")
"""Classes with one machine, however large the plant is: nearly all passes the one washer."""

AREA_OF_CLASS: Final[dict[str, str]] = {
    "saw": "machining",
    "lathe": "machining",
    "mill": "machining",
    "hob": "machining",
    "grinder": "machining",
    "furnace": "treatment",
    "washer": "treatment",
    "blaster": "treatment",
    "coater": "treatment",
    "caster": "forming",
    "moulder": "forming",
    "granulator": "forming",
    "winder": "assembly",
    "press": "assembly",
    "bench": "assembly",
    "test-stand": "assembly",
}


def _route(text: str) -> tuple[Operation, ...]:
    """Return the operations of lines such as ``turn-rough lathe 4 6``."""
    operations = []
    for line in text.split(";"):
        name, machine_class, batch, minutes = line.split()
        parameter = SetParameter(*_PARAMETERS[machine_class])
        operations.append(Operation(name, machine_class, int(batch), int(minutes), parameter))
    return tuple(operations)


_GEAR: Final = _route(
    "saw-blank saw 16 20; turn-rough lathe 4 12; turn-finish lathe 4 10; hob hob 4 18;"
    "deburr grinder 8 12; stress-relieve furnace 32 180; straighten press 8 10;"
    "carburise furnace 32 420; harden furnace 32 90; temper furnace 32 150;"
    "blast blaster 16 15; bore-grind grinder 4 14; face-grind grinder 4 10;"
    "tooth-grind grinder 3 24; nital-etch coater 8 12; magnetic-test test-stand 8 10;"
    "demagnetise coater 16 5; phosphate coater 16 40; wash washer 32 15; preserve coater 16 8;"
    "roll-test test-stand 4 6; measure-teeth test-stand 4 8; mark bench 16 4; count bench 32 3"
)
_SHAFT: Final = _route(
    "saw-bar saw 16 20; centre lathe 8 10; turn-rough lathe 4 16; turn-finish lathe 4 14;"
    "mill-keyway mill 4 12; drill mill 8 10; roll-spline hob 4 12; deburr grinder 8 10;"
    "stress-relieve furnace 32 180; straighten press 8 12; induction-harden furnace 16 30;"
    "temper furnace 32 150; blast blaster 16 15; seat-grind grinder 3 20;"
    "face-grind grinder 4 10; spline-grind grinder 4 16; magnetic-test test-stand 8 10;"
    "demagnetise coater 16 5; balance test-stand 4 10; preserve coater 16 8;"
    "measure test-stand 4 8; mark bench 16 4; polish grinder 4 8; count bench 32 3"
)
_HOUSING: Final = _route(
    "cast caster 8 25; trim saw 8 12; fettle grinder 4 20; solution-treat furnace 16 360;"
    "quench furnace 16 30; age furnace 16 300; blast blaster 8 15; mill-datum mill 4 18;"
    "mill-face mill 4 22; bore mill 3 26; drill mill 4 20; tap mill 4 14; deburr grinder 4 15;"
    "wash washer 16 15; leak-test test-stand 4 10; impregnate coater 8 60; paint coater 8 45;"
    "mask-off bench 4 10; gauge test-stand 4 8; preserve coater 8 8"
)
_ROTOR: Final = _route(
    "stamp press 16 10; stack press 8 12; die-cast caster 8 20; trim saw 8 10;"
    "anneal furnace 16 200; press-shaft press 4 10; turn-outer lathe 4 14; grind grinder 4 16;"
    "balance test-stand 3 12; varnish coater 8 50; cure furnace 16 240; deburr grinder 8 8;"
    "wash washer 16 15; surge-test test-stand 8 8; mark bench 16 5; preserve coater 16 8"
)
_STATOR: Final = _route(
    "stamp press 16 10; stack press 8 12; weld bench 4 14; insulate bench 8 16; wind winder 3 40;"
    "insert winder 4 25; connect winder 4 20; lace winder 4 18; hipot-test test-stand 8 6;"
    "preheat furnace 16 60; impregnate coater 8 60; cure furnace 16 300; trim grinder 8 10;"
    "surge-test test-stand 4 8; mark bench 16 5; gauge test-stand 8 6"
)
_COVER: Final = _route(
    "mould moulder 24 30; degate press 12 10; anneal furnace 48 120; deburr grinder 12 10;"
    "moisten coater 48 240; gauge test-stand 12 8; mark bench 24 5; wash washer 48 15"
)

_ASSEMBLE: Final = (
    "; mark bench 4 4; gauge test-stand 4 6; clean washer 8 12; dry furnace 8 20;"
    "photograph test-stand 4 3; preserve coater 8 6; bag bench 4 3"
)

PRODUCTS: Final[dict[str, Product]] = {
    product.number: product
    for product in (
        Product(
            "GEAR-31",
            "Gear, 31 teeth",
            "steel-16MnCr5",
            840,
            (),
            _GEAR,
            (
                Tolerance("bore_diameter", 25.0, 0.0105),
                Tolerance("profile_deviation", 0.0, 0.011),
                Tolerance("face_width", 18.0, 0.05),
            ),
            0.2,
        ),
        Product(
            "SHAFT-20",
            "Shaft",
            "steel-42CrMo4",
            1_310,
            (),
            _SHAFT,
            (Tolerance("seat_diameter", 20.0, 0.0065), Tolerance("runout", 0.0, 0.012)),
            0.25,
        ),
        Product(
            "HOUSING-7",
            "Gearbox housing",
            "aluminium-A356",
            3_450,
            (),
            _HOUSING,
            (Tolerance("bore_distance", 71.5, 0.02), Tolerance("flatness", 0.0, 0.03)),
            0.5,
        ),
        Product(
            "ROTOR-4",
            "Rotor",
            "electrical-steel-M270",
            2_100,
            (),
            _ROTOR,
            (Tolerance("outer_diameter", 78.0, 0.015),),
            0.2,
        ),
        Product(
            "STATOR-4",
            "Stator",
            "copper-wire",
            1_750,
            (),
            _STATOR,
            (Tolerance("bore_diameter", 79.0, 0.02),),
            0.2,
        ),
        Product(
            "COVER-2",
            "Cover",
            "PA66-GF30",
            190,
            (),
            _COVER,
            (Tolerance("seat_diameter", 62.0, 0.06),),
            0.05,
        ),
        Product(
            "SHAFT-ASSEMBLY-20",
            "Shaft with bearings",
            None,
            0,
            (("SHAFT-20", 1, "shaft"), (BEARING, 2, "bearing")),
            _route("press-bearings press 2 6; gauge-runout test-stand 4 6" + _ASSEMBLE),
            (Tolerance("axial_play", 0.05, 0.03),),
            0.2,
        ),
        Product(
            "GEAR-SET-31",
            "Gear set",
            None,
            0,
            (("SHAFT-ASSEMBLY-20", 1, "shaft"), ("GEAR-31", 2, "gear")),
            _route("shrink-gears press 2 12; cool bench 8 30; lap grinder 2 20" + _ASSEMBLE),
            (Tolerance("backlash", 0.08, 0.03),),
            0.3,
        ),
        Product(
            "GEARBOX-7",
            "Gearbox",
            None,
            0,
            (("GEAR-SET-31", 2, "stage"), ("HOUSING-7", 1, "housing")),
            _route(
                "assemble bench 1 35; torque bench 1 8; fill bench 2 6; run-in test-stand 2 60;"
                "leak-test test-stand 2 10; wash washer 8 15" + _ASSEMBLE
            ),
            (Tolerance("output_runout", 0.0, 0.02), Tolerance("backlash", 0.12, 0.05)),
            1.0,
        ),
        Product(
            "MOTOR-4",
            "Motor",
            None,
            0,
            (("ROTOR-4", 1, "rotor"), ("STATOR-4", 1, "stator")),
            _route(
                "assemble bench 1 25; torque bench 1 6; hipot-test test-stand 2 6;"
                "run-in test-stand 2 45; balance test-stand 2 12" + _ASSEMBLE
            ),
            (Tolerance("shaft_height", 90.0, 0.1),),
            1.0,
        ),
        Product(
            "DRIVE-10",
            "Drive unit",
            None,
            0,
            (("GEARBOX-7", 1, "gearbox"), ("MOTOR-4", 1, "motor"), ("COVER-2", 2, "cover")),
            _route(
                "marry bench 1 30; torque bench 1 8; connect bench 1 12; fill bench 1 6;"
                "run-in test-stand 1 90; noise-test test-stand 1 15; paint coater 4 45;"
                "label bench 4 4; pack bench 4 8" + _ASSEMBLE
            ),
            (Tolerance("flange_runout", 0.0, 0.05), Tolerance("shaft_height", 112.0, 0.2)),
            1.0,
        ),
    )
}
"""By part number; what a product is made of stands before it."""

UNIT: Final = "DRIVE-10"
SPARE: Final = "GEAR-31"
"""What is sold loose, too."""

REGROUND: Final = "COVER-2"
[REGRIND] = _route("regrind granulator 1 20")
"""What becomes of the sprues of what is moulded."""


def parts_of_unit() -> dict[str, int]:
    """Return how many parts of each number one drive unit is made of, itself included."""
    counts = {UNIT: 1}
    for number in reversed(PRODUCTS):
        for child, pieces, _ in PRODUCTS[number].children:
            counts[child] = counts.get(child, 0) + pieces * counts.get(number, 0)
    return counts


def machine_shares() -> dict[str, float]:
    """Return which share of all runs is on machines of each class."""
    counts = parts_of_unit()
    runs = dict.fromkeys(AREA_OF_CLASS, 0.0)
    for number, product in PRODUCTS.items():
        for operation in product.operations:
            runs[operation.machine_class] += counts[number] / operation.batch
    total = sum(runs.values())
    return {machine_class: each / total for machine_class, each in runs.items()}
