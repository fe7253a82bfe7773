"""Enumerations of records."""

from __future__ import annotations

from api.graphql.scalars import described_enum
from domain.records import Meaning

described_enum(
    Meaning,
    "What a signature says (21 CFR 11.50(a)(3)).",
    {
        "AUTHORED": "The signer wrote it.",
        "REVIEWED": "The signer has reviewed it.",
        "APPROVED": "The signer approves it.",
        "RESPONSIBLE": "The signer answers for it.",
    },
)
