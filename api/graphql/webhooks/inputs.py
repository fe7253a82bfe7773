"""What mutations of webhooks take, and what they say where they succeed."""

from __future__ import annotations

from typing import Annotated, Any, Final

import strawberry

from api.graphql.commands import CommandInput, CommandSuccess
from api.graphql.context import OperationInfo
from api.graphql.errors import Failure
from api.graphql.fields import field
from api.graphql.scalars import Cursor, Json
from api.graphql.webhooks.types import PROJECTIONS, Webhook, WebhookDelivery, seen_webhook
from domain.webhooks import OVERLAP_S_MAX, ContentMode

OVERLAP_S_DEFAULT: Final = 86_400.0

_ID: Final = "Natural key of the webhook."
_DOCUMENT: Final = (
    "A GraphQL document: the subscription whose results are delivered, at most 20,000 characters. "
    "Its `after` plays no part; its `everyS` does."
)
_VARIABLES: Final = "The document's variables, an object; at most 20,000 characters as JSON."
_KEY: Final = (
    "Id of the API key whose rights and sight it has, and with which it ends; it may do and see no "
    "more than you. Null: the key that you ask with. Whoever asks with a token has to name one."
)


@strawberry.input(description="Have another system told what happens, as it happens.")
class CreateWebhookInput(CommandInput):
    """Input of `createWebhook`."""

    title: str = strawberry.field(description="What people call it, at most 200 characters.")
    url: str = strawberry.field(
        description="Where deliveries go, at most 2,000 characters: https, and a host on the "
        "public internet or in a network that the server's settings allow. It is part of the log: "
        "no place for secrets."
    )
    document: str = strawberry.field(description=_DOCUMENT)
    operation_name: str | None = strawberry.field(
        default=None, description="Which of the document's operations; null: the only one."
    )
    variables: Json | None = strawberry.field(default=None, description=_VARIABLES)
    mode: ContentMode = strawberry.field(
        default=ContentMode.STRUCTURED, description="How CloudEvents go over HTTP."
    )
    after: Cursor | None = strawberry.field(
        default=None,
        description="Deliver what happened after this cursor, as `events` or `log` gave it; null: "
        "from now on.",
    )
    key_id: strawberry.ID | None = strawberry.field(default=None, description=_KEY)


@strawberry.input(description="Give a webhook other settings; what is left out stays as it is.")
class ChangeWebhookInput(CommandInput):
    """Input of `changeWebhook`."""

    webhook_id: strawberry.ID = strawberry.field(description=_ID)
    title: str | None = strawberry.field(default=None, description="What people call it.")
    url: str | None = strawberry.field(default=None, description="Where deliveries go.")
    document: str | None = strawberry.field(default=None, description=_DOCUMENT)
    operation_name: str | None = strawberry.field(
        default=None,
        description="Which of the document's operations; it goes with `document`, and without it "
        "stays as it is.",
    )
    variables: Json | None = strawberry.field(default=None, description=_VARIABLES)
    mode: ContentMode | None = strawberry.field(
        default=None, description="How CloudEvents go over HTTP."
    )
    key_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="Id of the API key that it acts as from now on. Null: the one so far, which "
        "may do and see no more than you.",
    )


@strawberry.input(description="Have a webhook rest.")
class PauseWebhookInput(CommandInput):
    """Input of `pauseWebhook`."""

    webhook_id: strawberry.ID = strawberry.field(description=_ID)
    reason: str = strawberry.field(default="", description="Why, at most 2,000 characters.")


@strawberry.input(description="Have a webhook go on where it stood, paused or stopped.")
class ResumeWebhookInput(CommandInput):
    """Input of `resumeWebhook`."""

    webhook_id: strawberry.ID = strawberry.field(description=_ID)


@strawberry.input(description="Sign a webhook's deliveries with another secret.")
class RotateWebhookSecretInput(CommandInput):
    """Input of `rotateWebhookSecret`."""

    webhook_id: strawberry.ID = strawberry.field(description=_ID)
    overlap_s: float = strawberry.field(
        default=OVERLAP_S_DEFAULT,
        description="For so long deliveries are signed with the secrets before it too, s: 0 to "
        f"{OVERLAP_S_MAX:g}.",
    )


@strawberry.input(description="Deliver what happened after a place in the log once more.")
class ReplayWebhookInput(CommandInput):
    """Input of `replayWebhook`."""

    webhook_id: strawberry.ID = strawberry.field(description=_ID)
    after: Cursor = strawberry.field(
        description="Deliver what happened after this cursor, as `events` or `log` gave it. "
        "Messages keep their ids."
    )


@strawberry.input(description="Send a test to a webhook's address.")
class TestWebhookInput(CommandInput):
    """Input of `testWebhook`."""

    __test__ = False  # it is no test of ours

    webhook_id: strawberry.ID = strawberry.field(description=_ID)


@strawberry.input(description="Send deliveries again that were given up.")
class RedeliverWebhookInput(CommandInput):
    """Input of `redeliverWebhook`."""

    webhook_id: strawberry.ID = strawberry.field(description=_ID)
    delivery_ids: list[strawberry.ID] = strawberry.field(
        description="Natural keys of `DEAD` deliveries, 1 to 500; they come last in their lane."
    )


@strawberry.input(description="Be rid of a webhook, its secrets and its deliveries.")
class DeleteWebhookInput(CommandInput):
    """Input of `deleteWebhook`."""

    webhook_id: strawberry.ID = strawberry.field(description=_ID)
    reason: str = strawberry.field(default="", description="Why, at most 2,000 characters.")


# --- results ------------------------------------------------------------------------------


@strawberry.interface(description="What every mutation of a webhook that succeeded says.")
class WebhookCommandSuccess(CommandSuccess):
    """Success of a command on a webhook."""

    @field(
        description="The webhook afterwards; null where it is no more, or was never created for it "
        "was a trial."
    )
    async def webhook(self, info: OperationInfo) -> Webhook | None:
        """Return the webhook, once the command is reflected."""
        if not self.dry_run:
            await info.context.wait_for(self.position, *PROJECTIONS)
        row = await seen_webhook(info.context, self.key)
        return None if row is None else Webhook.of(row)


_SECRET: Final = (
    "The secret to check signatures with, `whsec_…`, told here and never again; null where the "
    "idempotency key recalled an earlier request, and for a trial: then rotate it."
)


@strawberry.type(description="The webhook is created.")
class CreateWebhookSuccess(WebhookCommandSuccess):
    """Success of `createWebhook`."""

    secret: str | None = strawberry.field(default=None, description=_SECRET)


@strawberry.type(description="The webhook has the settings.")
class ChangeWebhookSuccess(WebhookCommandSuccess):
    """Success of `changeWebhook`."""


@strawberry.type(description="The webhook rests.")
class PauseWebhookSuccess(WebhookCommandSuccess):
    """Success of `pauseWebhook`."""


@strawberry.type(description="The webhook goes on.")
class ResumeWebhookSuccess(WebhookCommandSuccess):
    """Success of `resumeWebhook`."""


@strawberry.type(description="Deliveries are signed with another secret.")
class RotateWebhookSecretSuccess(WebhookCommandSuccess):
    """Success of `rotateWebhookSecret`."""

    secret: str | None = strawberry.field(default=None, description=_SECRET)


@strawberry.type(description="What happened is delivered once more.")
class ReplayWebhookSuccess(WebhookCommandSuccess):
    """Success of `replayWebhook`."""


@strawberry.type(description="The test was sent; `delivery` says what became of it.")
class TestWebhookSuccess(WebhookCommandSuccess):
    """Success of `testWebhook`."""

    __test__ = False

    delivery: WebhookDelivery | None = strawberry.field(
        default=None, description="What became of the test; null for a trial."
    )


@strawberry.type(description="The deliveries wait for their turn again.")
class RedeliverWebhookSuccess(WebhookCommandSuccess):
    """Success of `redeliverWebhook`."""


@strawberry.type(description="The webhook is no more.")
class DeleteWebhookSuccess(WebhookCommandSuccess):
    """Success of `deleteWebhook`."""


def _result(name: str) -> Any:
    title = name[0].upper() + name[1:]
    return strawberry.union(f"{title}Result", description=f"What became of `{name}`.")


CreateWebhookResult = Annotated[CreateWebhookSuccess | Failure, _result("createWebhook")]
ChangeWebhookResult = Annotated[ChangeWebhookSuccess | Failure, _result("changeWebhook")]
PauseWebhookResult = Annotated[PauseWebhookSuccess | Failure, _result("pauseWebhook")]
ResumeWebhookResult = Annotated[ResumeWebhookSuccess | Failure, _result("resumeWebhook")]
RotateWebhookSecretResult = Annotated[
    RotateWebhookSecretSuccess | Failure, _result("rotateWebhookSecret")
]
ReplayWebhookResult = Annotated[ReplayWebhookSuccess | Failure, _result("replayWebhook")]
TestWebhookResult = Annotated[TestWebhookSuccess | Failure, _result("testWebhook")]
RedeliverWebhookResult = Annotated[RedeliverWebhookSuccess | Failure, _result("redeliverWebhook")]
DeleteWebhookResult = Annotated[DeleteWebhookSuccess | Failure, _result("deleteWebhook")]
