"""Corrections: what the log says was wrong is said anew, and nothing is edited."""

from __future__ import annotations

import uuid
from datetime import datetime

from domain.catalogue import decider_of_stream
from domain.errors import CommandRejected, NotFound
from domain.events import format_time
from domain.records import CorrectRecord, Entry, correct
from eventlog.appending.lookup import read_positions
from eventlog.commands import Decision, Handled, check_version, decide_once
from eventlog.envelope import RecordedEvent, new_fact
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import read_event, read_whole_stream


async def handle_correction(
    ledger: Ledger,
    command: CorrectRecord,
    *,
    actor: str,
    event_id: uuid.UUID,
    occurred_at: datetime | None = None,
    idempotency: IdempotencyKey | None = None,
    expected_version: int | None = None,
    correlation_id: uuid.UUID | None = None,
    causation_id: uuid.UUID | None = None,
    traceparent: str | None = None,
    dry_run: bool = False,
) -> Handled:
    """Record that an event was wrong and what is true instead, once, again after a lost race.

    Parameters
    ----------
    event_id : of the correction
    occurred_at : when the corrected fact was true; None: the time given so far was right
    expected_version, dry_run : as in `eventlog.commands.handle`

    Raises
    ------
    NotFound
        ``correction.unknown_event``
    CommandRejected
        ``correction.other_stream``, ``correction.of_frame``, ``correction.not_correctable``,
        and as `domain.records.correct`
    HeddleError
        as `Ledger.append`
    """
    if occurred_at is not None:
        format_time(occurred_at)  # refuses what has no zone before it is compared
    decider = decider_of_stream(command.stream)

    async def decide() -> Decision:
        await _check_correctable(ledger, command, decided=decider is not None)
        assert decider is not None, "or it is not correctable"
        recorded = [event async for event in read_whole_stream(ledger, command.stream)]
        version = len(recorded)  # versions are without gaps
        history = [
            Entry(event.event_id, event.position, event.occurred_at, event.fact)
            for event in recorded
            if not event.erased
        ]
        check_version(command.stream, version, expected_version)
        correction, true_at = correct(command, history, decider, occurred_at)
        fact = new_fact(
            command.stream,
            correction,
            event_id=event_id,
            occurred_at=true_at,
            actor=actor,
            correlation_id=correlation_id,
            causation_id=causation_id,
            traceparent=traceparent,
        )
        return Decision((correction,), [fact], {command.stream: version})

    return await decide_once(
        ledger,
        command.stream,
        decide,
        idempotency=idempotency,
        expected_version=expected_version,
        dry_run=dry_run,
    )


async def _check_correctable(ledger: Ledger, command: CorrectRecord, *, decided: bool) -> None:
    """Refuse what is not an event of the command's stream, a frame, and what nobody decides."""
    found = await find_event(ledger, command.corrected_event_id)
    if found is None:
        raise unknown_event(command.corrected_event_id)
    if found.stream != command.stream:
        raise CommandRejected(
            "correction.other_stream",
            f"event {found.event_id} belongs to {found.stream!r}, not {command.stream!r}",
            hint="correct it in its own stream",
            value=command.stream,
            limit=found.stream,
        )
    if found.is_frame:
        raise CommandRejected(
            "correction.of_frame",
            f"event {found.event_id} is a frame of readings",
            hint="send the readings anew: of one time the latest count",
            value=str(found.event_id),
        )
    if not decided:
        raise CommandRejected(
            "correction.not_correctable",
            f"nothing decides about {command.stream!r}, so nothing of it is corrected",
            value=command.stream,
        )


async def find_event(ledger: Ledger, event_id: uuid.UUID) -> RecordedEvent | None:
    found = await read_positions(ledger.pool, ledger.ledger_id, [event_id])
    return await read_event(ledger, found[event_id]) if event_id in found else None


def unknown_event(event_id: uuid.UUID) -> NotFound:
    """Return the error for an event that nobody knows of."""
    return NotFound(
        "correction.unknown_event",
        f"the log has no event {event_id}",
        hint="check the event's id",
        value=str(event_id),
    )
