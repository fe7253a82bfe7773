"""Enumerations of documents."""

from __future__ import annotations

from api.graphql.scalars import described_enum
from domain.documents.document import DocumentKind

described_enum(
    DocumentKind,
    "What a document is.",
    {
        "DESIGN": "A drawing or CAD model of a part number.",
        "CERTIFICATE": "What a supplier or a laboratory vouches for.",
        "RECIPE": "What an operation is set to.",
        "WORK_INSTRUCTION": "How a person does it.",
        "INSPECTION_PLAN": "What is inspected, against which limits.",
        "REPORT": "What was found.",
    },
)
