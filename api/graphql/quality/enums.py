"""Enumerations of quality."""

from __future__ import annotations

from api.graphql.scalars import described_enum
from domain.quality.inspection import Judge, Verdict
from domain.quality.nonconformance import Disposition

described_enum(
    Verdict,
    "What an inspection comes to.",
    {
        "GOOD": "It conforms.",
        "DEFECTIVE": "It does not conform.",
        "CRITICAL": "It does not conform, and what shares its cause is suspect too.",
    },
)
described_enum(
    Judge, "Who gave a verdict.", {"PERSON": "A person.", "MODEL": "A model, which is named."}
)
described_enum(
    Disposition,
    "What is done with what does not conform (ISO 9001, 8.7.1).",
    {
        "USE_AS_IS": "It is used all the same, and somebody answers for it.",
        "REWORK": "It is mended.",
        "SCRAP": "It is thrown away.",
        "RETURN": "It goes back to who supplied it.",
    },
)
