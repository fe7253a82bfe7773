"""What can happen to any record of the log: it is corrected, and it is signed.

Both are events in the stream of the object they speak of. Deciders do not see them: `effective`
puts each correction in the place of what it corrects and leaves signatures out.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from domain.deciders import Decider
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import decode_fact, encode_fact, event_type, type_of
from domain.texts import check_text

CORRECTED: Final = "record.corrected"
SIGNED: Final = "record.signed"
_NO_TIME: Final = datetime.min.replace(tzinfo=UTC)
_NO_ID: Final = uuid.UUID(int=0)


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


@dataclass(frozen=True)
class CorrectRecord:
    """Say that an event of `stream` was wrong; `replacement` was true, or nothing was (None)."""

    stream: str
    corrected_event_id: uuid.UUID
    reason: str
    replacement: Any = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a stream's history, as corrections look at it."""

    event_id: uuid.UUID
    position: int
    occurred_at: datetime
    fact: Any


def effective(history: Iterable[tuple[uuid.UUID, Any]]) -> list[Any]:
    """Return the events that count of a stream's `history`: pairs of event id and fact, in order.

    Each corrected event is replaced, where it stood, by what its latest correction says.
    """
    entries = (Entry(event_id, 0, _NO_TIME, fact) for event_id, fact in history)
    return [entry.fact for entry in effective_entries(entries)]


def effective_entries(
    history: Iterable[Entry], *, by_valid_time: bool = False, as_of: datetime | None = None
) -> list[Entry]:
    """Return what counts of a stream's `history`: each event with what its latest correction says.

    A correction brings its own `occurred_at`; the event keeps its id and position.

    Parameters
    ----------
    by_valid_time : in the order in which they were true, those of one time in the log's order
    as_of : only what was true by then
    """
    kept: dict[uuid.UUID, Entry] = {}
    for entry in history:
        match entry.fact:
            case RecordCorrected(corrected_event_id=corrected):
                if corrected in kept:
                    kept[corrected] = replace(
                        kept[corrected], fact=entry.fact.fact(), occurred_at=entry.occurred_at
                    )
            case RecordSigned():
                pass
            case _:
                kept[entry.event_id] = entry
    entries = [
        entry
        for entry in kept.values()
        if entry.fact is not None and (as_of is None or entry.occurred_at <= as_of)
    ]
    if by_valid_time:
        entries.sort(key=lambda entry: entry.occurred_at)
    return entries


def correct(
    command: CorrectRecord,
    history: Sequence[Entry],
    decider: Decider[Any, Any, Any],
    occurred_at: datetime | None,
) -> tuple[RecordCorrected, datetime]:
    """Return the correction that `command` causes in a stream, and when its fact was true.

    Parameters
    ----------
    history : all of the stream's events, in order
    decider : of the stream's object
    occurred_at : when the corrected fact was true; None: the time given so far was right

    Raises
    ------
    NotFound
        ``correction.unknown_event``: the stream has no such event
    CommandRejected
        ``correction.of_correction``, whose limit is the event to correct instead;
        ``correction.of_signature``; ``correction.contradicts``: what happened later, the value,
        cannot have happened then
    InvalidInput
        ``correction.other_object``: the replacement is of another object; ``text.empty``,
        ``text.too_long``
    """
    reason = check_text("reason", command.reason)
    corrected = _correctable(command, history)
    replacement = command.replacement
    if replacement is not None:
        _check_same_object(command, corrected, decider)
        stored = type_of(replacement)
    if occurred_at is None:
        standing = {entry.event_id: entry for entry in effective_entries(history)}
        occurred_at = standing.get(corrected.event_id, corrected).occurred_at
    correction = RecordCorrected(
        command.stream,
        corrected.event_id,
        corrected.position,
        reason,
        None if replacement is None else stored.name,
        None if replacement is None else stored.schema_version,
        None if replacement is None else encode_fact(replacement).decode(),
    )
    _check_fold([*history, Entry(_NO_ID, 0, occurred_at, correction)], decider)
    return correction, occurred_at


def _correctable(command: CorrectRecord, history: Sequence[Entry]) -> Entry:
    """Return the event that is to be corrected, if it may be."""
    found = next((e for e in history if e.event_id == command.corrected_event_id), None)
    if found is None:
        raise NotFound(
            "correction.unknown_event",
            f"stream {command.stream!r} has no event {command.corrected_event_id}",
            hint="an event is corrected in its own stream",
            value=str(command.corrected_event_id),
        )
    match found.fact:
        case RecordCorrected(corrected_event_id=original):
            raise CommandRejected(
                "correction.of_correction",
                f"event {found.event_id} is a correction itself",
                hint=f"correct {original} again; the latest correction counts",
                value=str(found.event_id),
                limit=str(original),
            )
        case RecordSigned():
            raise CommandRejected(
                "correction.of_signature",
                f"event {found.event_id} is a signature, and a signature is never taken back",
                hint="correct the event that was signed; the signature stays with what it signed",
                value=str(found.event_id),
            )
        case _:
            return found


def _check_same_object(
    command: CorrectRecord, corrected: Entry, decider: Decider[Any, Any, Any]
) -> None:
    # Events of one kind of object share the first word of their stored names.
    kind = type_of(command.replacement).name.partition(".")[0]
    same_kind = kind == type_of(corrected.fact).name.partition(".")[0]
    stream = decider.stream_of(command.replacement) if same_kind else None
    if stream != command.stream:
        raise InvalidInput(
            "correction.other_object",
            f"a {type(command.replacement).__name__} of {stream or 'another kind of object'} "
            f"corrects nothing in {command.stream!r}",
            hint="correct the event of each object in its own stream",
            value=stream or kind,
            limit=command.stream,
        )


def _check_fold(history: Sequence[Entry], decider: Decider[Any, Any, Any]) -> None:
    """Refuse a history that cannot have happened, naming its first event that cannot."""
    state = decider.initial
    for entry in effective_entries(history, by_valid_time=decider.by_valid_time):
        try:
            state = decider.evolve(state, entry.fact)
        except ValueError as error:
            raise CommandRejected(
                "correction.contradicts",
                f"so corrected, event {entry.event_id} at position {entry.position} cannot have "
                f"happened: {error}",
                hint="correct that one first, or as well",
                value=str(entry.event_id),
            ) from error
