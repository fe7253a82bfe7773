"""Enumerations of the plant."""

from __future__ import annotations

from api.graphql.scalars import described_enum
from domain.plant.location import Level, RollUp

described_enum(
    Level,
    "Levels of a plant after ISA-95 part 1, from the top.",
    {
        "ENTERPRISE": "The whole company.",
        "SITE": "A place of it.",
        "AREA": "A part of a site.",
        "LINE": "A production line; ISA-95's work centre.",
        "CELL": "A station of a line; ISA-95's work unit.",
    },
)
described_enum(
    RollUp,
    "How the health of what stands in a location becomes the location's own.",
    {
        "WORST": "It is as bad as the worst.",
        "K_OF_N": "It is good while so many are good: redundancy.",
        "MEAN": "It is their mean.",
    },
)
