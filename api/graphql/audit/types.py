"""Types of the audit trail (21 CFR 11.10(e), 11.50) and of evidence bundles."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import strawberry

from api.graphql.records import enums as _enums  # noqa: F401 (describes Meaning)
from api.graphql.scalars import Json, Position
from domain.records import Meaning
from projections.audit import trail as audit


@strawberry.type(description="A field that a correction changed.")
class AuditFieldChange:
    """`projections.audit.trail.FieldChange`."""

    field: str = strawberry.field(description="Name of the field, as in the payload.")
    previous: Json | None = strawberry.field(description="What was recorded before.")
    now: Json | None = strawberry.field(description="What it says instead.")


@strawberry.type(description="What a correction says instead, and what was recorded before.")
class AuditChange:
    """`projections.audit.trail.Change`."""

    corrected_position: Position = strawberry.field(description="The event that it corrects.")
    previous_position: Position = strawberry.field(
        description="Where the values before stand: that event, or its correction before this one."
    )
    reason: str = strawberry.field(description="Why it was corrected.")
    fields: list[AuditFieldChange] = strawberry.field(description="What it changed.")
    previous_erased: bool = strawberry.field(
        description="Whether what stood there before was erased, so that nothing can be compared."
    )


@strawberry.type(description="A signature of an entry: by whom, when, and with which meaning.")
class AuditSignature:
    """`projections.audit.trail.SignatureMark`."""

    position: Position = strawberry.field(description="Its own position in the log.")
    signer: str = strawberry.field(description="Who signed, such as `user:jane`.")
    signer_name: str = strawberry.field(description="The signer's name as it was shown.")
    meaning: Meaning = strawberry.field(description="With which meaning.")
    signed_at: datetime = strawberry.field(description="When it was recorded.")


@strawberry.type(description="One thing that somebody did.")
class AuditEntry:
    """`projections.audit.trail.AuditEntry`."""

    position: Position = strawberry.field(description="Its place in the log.")
    event_id: UUID = strawberry.field(description="Its name there.")
    recorded_at: datetime = strawberry.field(description="When it was recorded, by the log.")
    occurred_at: datetime = strawberry.field(description="When it was true.")
    actor: str = strawberry.field(description="Who did it, such as `user:jane`.")
    key: str = strawberry.field(description="To which object: its stream.")
    type: str = strawberry.field(description="What kind of thing, such as `work_order.completed`.")
    words: str = strawberry.field(
        description="What it says, in one line; why it cannot be read, where it cannot."
    )
    corrected_by: list[Position] = strawberry.field(
        description="Positions of its corrections, in order; the last one counts."
    )
    signatures: list[AuditSignature] = strawberry.field(
        description="Its signatures, in the order in which they were given."
    )
    change: AuditChange | None = strawberry.field(
        description="Of a correction: what it changed; null otherwise."
    )

    @classmethod
    def of(cls, entry: audit.AuditEntry) -> AuditEntry:
        """Return `entry` as the schema tells it."""
        return cls(
            position=Position(entry.position),
            event_id=entry.event_id,
            recorded_at=entry.recorded_at,
            occurred_at=entry.occurred_at,
            actor=entry.actor,
            key=entry.stream,
            type=entry.type,
            words=entry.words,
            corrected_by=[Position(position) for position in entry.corrected_by],
            signatures=[
                AuditSignature(
                    position=Position(mark.position),
                    signer=mark.signer,
                    signer_name=mark.signer_name,
                    meaning=mark.meaning,
                    signed_at=mark.signed_at,
                )
                for mark in entry.signatures
            ],
            change=None if entry.change is None else _change(entry.change),
        )


def _change(change: audit.Change) -> AuditChange:
    return AuditChange(
        corrected_position=Position(change.corrected_position),
        previous_position=Position(change.previous_position),
        reason=change.reason,
        fields=[
            AuditFieldChange(
                field=each.field,
                previous=None if each.previous is None else Json(each.previous),
                now=None if each.now is None else Json(each.now),
            )
            for each in change.fields
        ],
        previous_erased=change.previous_erased,
    )


@strawberry.type(
    description="What an evidence bundle of a part would hold, and where it is had: a file that "
    "`heddle verify-bundle` checks against the log's key, without the log."
)
class EvidenceBundle:
    """`api.evidence.gather`."""

    root: str = strawberry.field(description="Key of the part.")
    position: Position = strawberry.field(description="The trace as it was known here.")
    nodes: int = strawberry.field(description="Things in the trace.")
    links: int = strawberry.field(description="Links among them.")
    events: int = strawberry.field(description="Events that the trace rests on.")
    complete: bool = strawberry.field(
        description="Whether it is all of the trace; else it was cut at the bundle's bound."
    )
    href: str = strawberry.field(
        description="Path of the file on this server: GET it as the same identity."
    )
    media_type: str = strawberry.field(description="Media type of the file.")
