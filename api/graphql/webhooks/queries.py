"""Queries of webhooks."""

from __future__ import annotations

from typing import Annotated, Final

import strawberry

from api.access.rights import Right
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.relay import (
    After,
    Connection,
    First,
    check_first,
    connection,
    decode_text_cursor,
    encode_cursor,
)
from api.graphql.webhooks.types import PROJECTIONS, Webhook, may_see, seen_webhook
from domain.webhooks import WebhookStatus
from projections.twins.projection import projection_position
from projections.webhooks import WebhookProjection, WebhookRow, list_webhooks

CURSOR_KIND: Final = "webhooks"


@strawberry.input(description="Which webhooks are wanted; what is null or empty does not restrict.")
class WebhookFilter:
    """Filter of webhooks."""

    statuses: list[WebhookStatus] | None = strawberry.field(
        default=None, description="In one of these; without it all but those that are deleted."
    )


@strawberry.type
class WebhookQueries:
    """Root fields."""

    @field(
        right=Right.INTEGRATE,
        description="The webhook with this natural key; null where there is none, or none that you "
        "see: whoever sees a part of the ledger sees the webhooks that he has created himself.",
    )
    async def webhook(
        self,
        info: OperationInfo,
        webhook_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the webhook.")
        ],
        min_position: MinPosition = None,
    ) -> Webhook | None:
        """Return one webhook."""
        await info.context.wait_for(min_position, *PROJECTIONS)
        row = await seen_webhook(info.context, webhook_id)
        return None if row is None else Webhook.of(row)

    @field(
        right=Right.INTEGRATE,
        description="Webhooks in the order of their keys, which is that of their creation.",
    )
    async def webhooks(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            WebhookFilter | None, strawberry.argument(description="Which webhooks are wanted.")
        ] = None,
        min_position: MinPosition = None,
    ) -> Connection[Webhook]:
        """Return a page of webhooks."""
        check_first(first)
        context = info.context
        ledger = context.ledger
        await context.wait_for(min_position, *PROJECTIONS)
        beyond = "" if after is None else decode_text_cursor(after, CURSOR_KIND, ledger.name)
        statuses = chosen("statuses", None if filter is None else filter.statuses)
        identity = context.identity
        position = await projection_position(ledger.pool, ledger.ledger_id, WebhookProjection.name)
        found = await list_webhooks(
            ledger,
            after=beyond,
            limit=first + 1,
            statuses=statuses,
            created_by=None if identity.sees_everything else identity.actor,
        )
        seen = [row for row in found[:first] if await _seen(info, row)]
        goes_on = None
        if len(found) > first:
            goes_on = encode_cursor(CURSOR_KIND, ledger.name, found[first - 1].webhook_id)
        return connection(
            seen,
            first=first,
            after=after,
            position=position,
            node=Webhook.of,
            cursor=lambda row: encode_cursor(CURSOR_KIND, ledger.name, row.webhook_id),
            goes_on_after=goes_on,
        )


async def _seen(info: OperationInfo, row: WebhookRow) -> bool:
    return await may_see(info.context, row.created_by, row.settings.acts_as_key)
