"""Queries of the audit trail, and of what a bundle of evidence would hold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.evidence import evidence_of
from api.evidence_route import MEDIA_TYPE, evidence_href
from api.graphql.as_of import AsOf, AsOfArgument, position_known, refuse_valid_at
from api.graphql.audit.types import AuditEntry, EvidenceBundle
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_position_cursor,
    encode_cursor,
)
from api.graphql.scalars import Position
from domain.identifiers import check_identifier
from domain.material.part import part_stream
from projections.audit import trail as audit
from projections.thread.projection import ThreadProjection

CURSOR_KIND: Final = "audit trail"
LOOKS_MAX: Final = 20
EVIDENCE_COST: Final = 500


@strawberry.input(
    description="Which entries are wanted; what is null or empty does not restrict. Each list at "
    f"most {audit.FILTER_VALUES_MAX} values."
)
class AuditFilter:
    """`projections.audit.trail.AuditFilter`."""

    actors: list[str] | None = strawberry.field(
        default=None, description="Done by one of these, such as `user:jane`."
    )
    keys: list[str] | None = strawberry.field(
        default=None, description="Done to one of these objects: streams, such as `part:SN-1042`."
    )
    types: list[str] | None = strawberry.field(
        default=None, description="Of these kinds, such as `record.corrected`."
    )
    recorded_from: datetime | None = strawberry.field(
        default=None, description="Recorded at this time or later."
    )
    recorded_until: datetime | None = strawberry.field(
        default=None, description="Recorded at this time or earlier."
    )

    def told(self) -> audit.AuditFilter:
        """Return it as the trail understands it."""
        return audit.AuditFilter(
            actors=chosen("actors", self.actors),
            streams=chosen("keys", self.keys),
            types=chosen("types", self.types),
            recorded_from=self.recorded_from,
            recorded_until=self.recorded_until,
        )


@strawberry.type
class AuditQueries:
    """Root fields."""

    @field(
        right=Right.AUDIT,
        cost=20,
        description="Who did what to which object, newest first: the log's facts in words, with "
        "their corrections and signatures (21 CFR 11.10(e)). What the machines recorded by "
        "themselves is in `events`. As of a position or a time of recording.",
    )
    async def audit_trail(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            AuditFilter | None, strawberry.argument(description="Which entries are wanted.")
        ] = None,
        as_of: AsOfArgument = None,
    ) -> Connection[AuditEntry]:
        """Return a page of the trail."""
        check_first(first)
        refuse_valid_at(as_of)
        context = info.context
        ledger = context.ledger
        wanted = (filter or AuditFilter()).told()
        before = None
        if after is not None:
            before = decode_position_cursor(after, CURSOR_KIND, ledger.name)
        known_at = await position_known(context, as_of)
        sight = await context.sight()
        rows: list[audit.AuditEntry] = []
        more = True
        async with context.reads:
            for _ in range(LOOKS_MAX):
                page = await audit.audit_trail(
                    ledger, wanted, first=first, before=before, as_of=known_at
                )
                known_at, more = page.as_of, page.more
                visible = await sight.visible({entry.stream for entry in page.entries})
                rows += [entry for entry in page.entries if entry.stream in visible]
                if not more or len(rows) >= first:
                    break
                before = page.entries[-1].position
        goes_on = None
        if more or len(rows) > first:
            told = rows[:first]
            last = told[-1].position if len(rows) >= first else before
            goes_on = encode_cursor(CURSOR_KIND, ledger.name, last or 0)
        return connection(
            rows[:first],
            first=first,
            after=after,
            position=known_at or 0,
            node=AuditEntry.of,
            cursor=lambda entry: encode_cursor(CURSOR_KIND, ledger.name, entry.position),
            goes_on_after=goes_on,
        )

    @field(
        right=Right.AUDIT,
        cost=EVIDENCE_COST,
        description="What a bundle of evidence of a part would hold, and where it is had. Fails "
        "with `thread.unknown_node` where nobody knows the part, and with `evidence.out_of_sight` "
        "where its trace leads beyond what you may see.",
    )
    async def evidence_bundle(
        self,
        info: OperationInfo,
        part: Annotated[strawberry.ID, strawberry.argument(description="Natural key of the part.")],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> EvidenceBundle:
        """Return what a bundle would hold."""
        check_identifier("part", part)
        context = info.context
        await context.wait_for(min_position, ThreadProjection.name)
        root = part_stream(part)
        told = (as_of or AsOf()).told()
        sight = await context.sight()
        async with context.reads:
            evidence = await evidence_of(context.ledger, [root], sight.visible, as_of=told)
        selection = evidence.selection
        return EvidenceBundle(
            root=root,
            position=Position(selection.position),
            nodes=len(evidence.nodes),
            links=len(evidence.edges),
            events=len(evidence.positions),
            complete=selection.complete,
            href=evidence_href(root, selection.position, told.valid_at),
            media_type=MEDIA_TYPE,
        )
