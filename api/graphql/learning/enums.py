"""Enumerations of learning."""

from __future__ import annotations

from api.graphql.scalars import described_enum
from domain.opinions.prediction import Outcome

described_enum(
    Outcome,
    "How a prediction came out.",
    {
        "CONFIRMED": "What it foretold was found.",
        "REFUTED": "It was looked for and not found.",
        "UNDECIDED": "It was prevented, or its time has passed and nobody looked.",
    },
)
