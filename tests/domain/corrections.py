"""Corrections for tests: what should have been recorded in place of an earlier event."""

from __future__ import annotations

import uuid
from typing import Any

from domain.events import encode_fact, type_of
from domain.records import RecordCorrected


def correction_of(stream: str, event_id: uuid.UUID, position: int, fact: Any) -> RecordCorrected:
    """Return that `fact`, or nothing where it is None, is what was true."""
    known = None if fact is None else type_of(fact)
    return RecordCorrected(
        stream=stream,
        corrected_event_id=event_id,
        corrected_position=position,
        reason="mistyped",
        replacement_type=None if known is None else known.name,
        replacement_version=None if known is None else known.schema_version,
        replacement=None if fact is None else encode_fact(fact).decode(),
    )
