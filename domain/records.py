"""What can happen to any record of the log: it is corrected, and it is signed.

Both are events in the stream of the object they speak of. Deciders do not see them: `effective`
puts each correction in the place of what it corrects and leaves signatures out.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from domain.events import decode_fact, event_type

CORRECTED: Final = "record.corrected"
SIGNED: Final = "record.signed"


class Meaning(StrEnum):
    """What a signature says: 21 CFR 11.50(a)(3)."""

    AUTHORED = "AUTHORED"
    REVIEWED = "REVIEWED"
    APPROVED = "APPROVED"
    RESPONSIBLE = "RESPONSIBLE"


@event_type(CORRECTED)
@dataclass(frozen=True)
class RecordCorrected:
    """What an earlier event of the same stream said was wrong; this is what was true.

    The correction's own `occurred_at` is when the corrected fact was true. The latest correction
    of an event counts; a correction itself is never corrected, its event is corrected again.

    Parameters
    ----------
    stream : of the event that is corrected, and of this one
    corrected_event_id, corrected_position : the event that is corrected
    reason : why, in words
    replacement_type, replacement_version : stored type and schema version of `replacement`;
        None: the event did not happen at all
    replacement : the JSON of what should have been recorded
    """

    stream: str
    corrected_event_id: uuid.UUID
    corrected_position: int
    reason: str
    replacement_type: str | None
    replacement_version: int | None
    replacement: str | None

    def fact(self) -> Any:
        """Return the event that is true instead, or None: nothing happened."""
        if self.replacement_type is None:
            return None
        assert self.replacement is not None
        assert self.replacement_version is not None
        return decode_fact(
            self.replacement_type,
            self.replacement_version,
            self.replacement.encode(),
            loads=json.loads,
        )


@event_type(SIGNED)
@dataclass(frozen=True)
class RecordSigned:
    """Somebody signed an event or a document's revision, after 21 CFR Part 11.

    Parameters
    ----------
    stream : of what is signed, and of this event
    signed_position, signed_event_id : the event that is signed
    signed_sha256 : hex of the leaf hash of that event; what binds the signature to it (11.70)
    document_sha256 : hex of the content of the document that the event speaks of, if it does
    signer : who signed, as an actor; signer_name : his printed name (11.50)
    meaning : what the signature says
    authenticated_at : when the signer proved who he is, by `components` of two kinds (11.200)
    """

    stream: str
    signed_position: int
    signed_event_id: uuid.UUID
    signed_sha256: str
    document_sha256: str | None
    signer: str
    signer_name: str
    meaning: Meaning
    authenticated_at: datetime
    components: tuple[str, ...]


def effective(history: Iterable[tuple[uuid.UUID, Any]]) -> list[Any]:
    """Return the events that count of a stream's `history`: pairs of event id and fact, in order.

    Each corrected event is replaced, where it stood, by what its latest correction says.
    """
    kept: dict[uuid.UUID, Any] = {}
    for event_id, fact in history:
        match fact:
            case RecordCorrected():
                if fact.corrected_event_id in kept:
                    kept[fact.corrected_event_id] = fact.fact()
            case RecordSigned():
                pass
            case _:
                kept[event_id] = fact
    return [fact for fact in kept.values() if fact is not None]
