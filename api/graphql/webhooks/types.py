"""Types of webhooks: how each stands, and its deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import strawberry

from api.access.identity import Identity
from api.access.keys import find_key
from api.access.rights import Right
from api.graphql.as_of import Asked
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.filters import chosen
from api.graphql.objects import json_of
from api.graphql.relay import (
    After,
    Connection,
    First,
    Node,
    check_first,
    connection,
    decode_position_cursor,
    encode_cursor,
    encode_id,
)
from api.graphql.scalars import Json, Position
from api.graphql.versions import VERSION
from api.graphql.webhooks import enums as _enums  # noqa: F401 (describes ContentMode and others)
from api.webhooks import store
from api.webhooks.principals import covers
from api.webhooks.store import Backlog, Delivery, DeliveryState
from domain.webhooks import ContentMode, WebhookStatus
from projections.webhooks import WebhookProjection, WebhookRow
from projections.webhooks import find_webhook as find_row

WEBHOOK: Final = "Webhook"
DELIVERIES_CURSOR: Final = "webhook deliveries"


@strawberry.type(description="A message to a webhook's address: made once, sent until it is taken.")
class WebhookDelivery:
    """`api.webhooks.store.Delivery`."""

    delivery_id: strawberry.ID = strawberry.field(description="Natural key.")
    message_id: str = strawberry.field(
        description="What `webhook-id` and the CloudEvent's `id` say: of the webhook and the "
        "event, the same for every attempt and after a replay."
    )
    event_type: str = strawberry.field(description="The CloudEvent's `type`.")
    subject: str | None = strawberry.field(
        description="Stream of the event that it tells of; null where it tells of the state of "
        "several things."
    )
    position: Position = strawberry.field(description="It tells of the log up to here.")
    after_position: Position = strawberry.field(description="And of what lies beyond here.")
    occurred_at: datetime = strawberry.field(description="When its last event was true.")
    is_test: bool = strawberry.field(description="Whether `testWebhook` made it.")
    state: DeliveryState = strawberry.field(description="What became of it.")
    attempts: int = strawberry.field(description="How often it was sent.")
    created_at: datetime = strawberry.field(description="When it was made, or last revived.")
    next_try_at: datetime | None = strawberry.field(
        description="When it is sent next; null once it is settled."
    )
    attempted_at: datetime | None = strawberry.field(
        description="When the last attempt ended; null before."
    )
    status_code: int | None = strawberry.field(
        description="HTTP status of the last answer; null where there was none."
    )
    duration_s: float | None = strawberry.field(description="Time that the last attempt took, s.")
    failure_code: str | None = strawberry.field(
        description="Dotted name of what went wrong last, such as `webhook.timeout`; null: nothing."
    )
    failure: str | None = strawberry.field(
        description="The same in words, with the beginning of the receiver's answer."
    )

    @classmethod
    def of(cls, delivery: Delivery) -> WebhookDelivery:
        """Return `delivery` as the schema tells it."""
        waits = delivery.state is DeliveryState.PENDING
        return cls(
            delivery_id=strawberry.ID(str(delivery.delivery_id)),
            message_id=delivery.message_id,
            event_type=delivery.event_type,
            subject=delivery.subject or None,
            position=Position(delivery.position),
            after_position=Position(delivery.after_position),
            occurred_at=delivery.occurred_at,
            is_test=delivery.is_test,
            state=delivery.state,
            attempts=delivery.attempts,
            created_at=delivery.created_at,
            next_try_at=delivery.next_try_at if waits else None,
            attempted_at=delivery.attempted_at,
            status_code=delivery.status_code,
            duration_s=delivery.duration_s,
            failure_code=delivery.failure_code,
            failure=delivery.failure,
        )


@strawberry.type(description="A secret that deliveries are signed with; itself it is never told.")
class WebhookSecret:
    """`domain.webhooks.Secret`."""

    secret_id: str = strawberry.field(description="Its name in the log.")
    valid_until: datetime | None = strawberry.field(
        description="Until when deliveries are signed with it too; null of the newest."
    )


@strawberry.type(description="How a webhook keeps up with the log.")
class WebhookBacklog:
    """`api.webhooks.store.Backlog`."""

    planned_to: Position | None = strawberry.field(
        description="Up to here the log is told in deliveries, within 5 s; null: it has not begun."
    )
    lag: Position = strawberry.field(description="Events of the log beyond that.")
    pending: int = strawberry.field(description="Deliveries that wait.")
    dead: int = strawberry.field(description="Deliveries that were given up.")
    oldest_pending_at: datetime | None = strawberry.field(
        description="When the one was made that has waited longest; null: none waits."
    )


@strawberry.input(
    description="Which deliveries are wanted; what is null or empty does not restrict."
)
class WebhookDeliveryFilter:
    """Filter of deliveries."""

    states: list[DeliveryState] | None = strawberry.field(
        default=None, description="In one of these states; `DEAD` for the dead letters."
    )


@strawberry.type(description="Tells another system's address what happens, as it happens.")
class Webhook(Node):
    """`projections.webhooks.WebhookRow`."""

    webhook_id: strawberry.ID = strawberry.field(description="Natural key.")
    title: str = strawberry.field(description="What people call it.")
    url: str = strawberry.field(description="Where deliveries go.")
    document: str = strawberry.field(description="The subscription whose results it delivers.")
    operation_name: str | None = strawberry.field(
        description="Which of the document's operations; null: the only one."
    )
    variables: Json = strawberry.field(description="The document's variables.")
    mode: ContentMode = strawberry.field(description="How CloudEvents go over HTTP.")
    key_id: strawberry.ID | None = strawberry.field(
        description="Id of the API key whose rights and sight it has; null on an open server."
    )
    status: WebhookStatus = strawberry.field(description="Whether it delivers.")
    stop_code: str | None = strawberry.field(
        description="Why it does not, dotted and stable, such as `webhook.endpoint_gone`, "
        "`webhook.key_invalid`, `access.denied` or `webhook.paused`; null while it does."
    )
    stop_reason: str | None = strawberry.field(description="The same in words.")
    secrets: list[WebhookSecret] = strawberry.field(
        description="What deliveries are signed with, the newest first."
    )
    after_position: Position = strawberry.field(
        description="It delivers what lies beyond here, since it was created or last replayed."
    )
    created_at: datetime = strawberry.field(description="When it was created.")
    created_by: str = strawberry.field(description="By whom, such as `user:jane`.")
    updated_at: datetime = strawberry.field(description="When its last fact was recorded.")
    version: Position = strawberry.field(description=VERSION)
    position: Position = strawberry.field(description="Position of its last fact.")
    stream: str = strawberry.field(
        description="Its stream, `webhook:<webhookId>`, for `events` and the audit trail."
    )

    @classmethod
    def of(cls, row: WebhookRow) -> Webhook:
        """Return `row` as the schema tells it."""
        settings = row.settings
        return cls(
            id=encode_id(WEBHOOK, row.webhook_id),
            webhook_id=strawberry.ID(row.webhook_id),
            title=settings.title,
            url=settings.url,
            document=settings.document,
            operation_name=settings.operation_name,
            variables=json_of(settings.variables or "{}"),
            mode=settings.mode,
            key_id=None if settings.acts_as_key is None else strawberry.ID(settings.acts_as_key),
            status=row.status,
            stop_code=row.webhook.stop_code,
            stop_reason=row.webhook.stop_reason,
            secrets=[
                WebhookSecret(secret_id=secret.secret_id, valid_until=secret.until)
                for secret in row.webhook.secrets
            ],
            after_position=Position(row.webhook.after_position),
            created_at=row.created_at,
            created_by=row.created_by,
            updated_at=row.updated_at,
            version=Position(row.version),
            position=Position(row.position),
            stream=f"webhook:{row.webhook_id}",
        )

    @field(description="How it keeps up with the log.", cost=5)
    async def backlog(self, info: OperationInfo) -> WebhookBacklog:
        """Return how far it is; one statement for all webhooks of an answer."""
        context = info.context

        async def load(webhook_ids: list[str]) -> list[Backlog]:
            async with context.reads:
                found = await store.backlogs(context.ledger, webhook_ids)
            return [found[webhook_id] for webhook_id in webhook_ids]

        backlog = await context.loader("webhook backlogs", load).load(str(self.webhook_id))
        head = context.services.tail.position
        told = self.after_position if backlog.planned_to is None else backlog.planned_to
        return WebhookBacklog(
            planned_to=None if backlog.planned_to is None else Position(backlog.planned_to),
            lag=Position(max(0, head - told)),
            pending=backlog.pending,
            dead=backlog.dead,
            oldest_pending_at=backlog.oldest_at,
        )

    @field(
        description="Its deliveries, the newest first. Those that are settled are kept for 30 days "
        "(`HEDDLE_WEBHOOK_KEPT_S`).",
        cost=5,
    )
    async def deliveries(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            WebhookDeliveryFilter | None,
            strawberry.argument(description="Which deliveries are wanted."),
        ] = None,
    ) -> Connection[WebhookDelivery]:
        """Return a page of deliveries."""
        check_first(first)
        context = info.context
        ledger = context.ledger
        before = None
        if after is not None:
            before = decode_position_cursor(after, DELIVERIES_CURSOR, ledger.name)
        states = chosen("states", None if filter is None else filter.states)
        async with context.reads:
            rows = await store.list_deliveries(
                ledger, str(self.webhook_id), before=before, limit=first + 1, states=states
            )
        return connection(
            rows,
            first=first,
            after=after,
            position=context.services.tail.position,
            node=WebhookDelivery.of,
            cursor=lambda row: encode_cursor(DELIVERIES_CURSOR, ledger.name, row.delivery_id),
        )


# --- who sees them ------------------------------------------------------------------------


async def may_see(context: OperationContext, created_by: str, acts_as_key: str | None) -> bool:
    """Return whether whoever asks sees a webhook: all of them, or his own within his scope."""
    identity: Identity = context.identity
    if identity.sees_everything:
        return True
    if created_by != identity.actor or acts_as_key is None:
        return False
    key = await find_key(context.ledger, acts_as_key)
    return key is not None and covers(identity, key.identity())


async def seen_webhook(context: OperationContext, webhook_id: str) -> WebhookRow | None:
    """Return the webhook of this id, if there is one and it is in sight; not a deleted one."""
    row = await find_row(context.ledger, webhook_id)
    if row is None or row.status is WebhookStatus.DELETED:
        return None
    return row if await may_see(context, row.created_by, row.settings.acts_as_key) else None


async def find_webhook(
    context: OperationContext, webhook_id: str, _when: Asked | None = None
) -> Webhook | None:
    """Return the webhook for `node`; None for whoever has no right to webhooks."""
    if Right.INTEGRATE not in context.identity.rights:
        return None
    row = await seen_webhook(context, webhook_id)
    return None if row is None else Webhook.of(row)


PROJECTIONS: Final = (WebhookProjection.name,)
