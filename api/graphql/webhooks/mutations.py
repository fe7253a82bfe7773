"""Mutations of webhooks. What is asked of one is a fact in its stream; secrets never are."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

import orjson
import strawberry
from opentelemetry import trace

from api.access.rights import Right
from api.graphql.commands import CommandInput, answer
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.errors import Failure
from api.graphql.events.queries import position_after
from api.graphql.fields import mutation
from api.graphql.scalars import Cursor, Json
from api.graphql.webhooks.inputs import (
    ChangeWebhookInput,
    ChangeWebhookResult,
    ChangeWebhookSuccess,
    CreateWebhookInput,
    CreateWebhookResult,
    CreateWebhookSuccess,
    DeleteWebhookInput,
    DeleteWebhookResult,
    DeleteWebhookSuccess,
    PauseWebhookInput,
    PauseWebhookResult,
    PauseWebhookSuccess,
    RedeliverWebhookInput,
    RedeliverWebhookResult,
    RedeliverWebhookSuccess,
    ReplayWebhookInput,
    ReplayWebhookResult,
    ReplayWebhookSuccess,
    ResumeWebhookInput,
    ResumeWebhookResult,
    ResumeWebhookSuccess,
    RotateWebhookSecretInput,
    RotateWebhookSecretResult,
    RotateWebhookSecretSuccess,
    TestWebhookInput,
    TestWebhookResult,
    TestWebhookSuccess,
    WebhookCommandSuccess,
)
from api.graphql.webhooks.types import (
    PROJECTIONS,
    WebhookDelivery,
    may_see,
)
from api.tracing import traceparent_of
from api.webhooks import store
from api.webhooks.commands import handle_webhook, load_webhook
from api.webhooks.documents import planned, prepared
from api.webhooks.policy import EgressPolicy
from api.webhooks.principals import identity_of, key_for
from api.webhooks.secret_store import SecretStore
from api.webhooks.signature import new_secret, spelled
from api.webhooks.trial import deliver_test
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.webhooks import (
    OVERLAP_S_MAX,
    ChangeWebhook,
    CreateWebhook,
    DeleteWebhook,
    PauseWebhook,
    RedeliverWebhook,
    ReplayWebhook,
    ResumeWebhook,
    RotateWebhookSecret,
    TestWebhook,
    Uncreated,
    WebhookCommand,
    WebhookSettings,
    WebhookStatus,
    unknown_webhook,
    webhook_stream,
)
from domain.webhooks import Webhook as State
from eventlog.commands import Handled, recalled
from eventlog.ledger import IdempotencyKey
from eventlog.reading import read_event
from projections.webhooks import find_webhook, list_webhooks

WEBHOOKS_MAX: Final = 200
"""Webhooks of a ledger that are not deleted."""

# --- mutations ----------------------------------------------------------------------------


@strawberry.type
class WebhookMutations:
    """Root fields."""

    @mutation(
        right=Right.INTEGRATE,
        cost=20,
        description="Have another system told what happens: each result of a subscription is sent "
        "to its address as a CloudEvent, signed after Standard Webhooks, at least once, in order "
        "within a stream, until it is taken.",
    )
    async def create_webhook(
        self,
        info: OperationInfo,
        input: Annotated[
            CreateWebhookInput, strawberry.argument(description="What is told, and where.")
        ],
    ) -> CreateWebhookResult:
        """Handle `CreateWebhook`."""
        context = info.context
        webhook_id, secret_id = f"wh-{context.services.new_event_id().hex}", new_secret_id()
        secret = new_secret()

        async def act(key: IdempotencyKey) -> tuple[Handled, str]:
            await _check_room(context)
            settings = WebhookSettings(
                title=input.title,
                url=input.url,
                document=input.document,
                operation_name=input.operation_name,
                variables=_variables(input.variables),
                mode=input.mode,
                acts_as_key=await key_for(context.services, context.identity, input.key_id),
            )
            await _check_settings(context, settings)
            after = await _position(context, input.after)
            command = CreateWebhook(webhook_id, settings, secret_id, after)
            return await _with_secret(context, input, key, command, secret_id, secret)

        result = await _once(context, "createWebhook", input, CreateWebhookSuccess, act)
        if isinstance(result, CreateWebhookSuccess):
            told = not (result.duplicate or result.dry_run)
            result.secret = spelled(secret) if told else None
        return result

    @mutation(
        right=Right.INTEGRATE,
        cost=20,
        description="Give a webhook other settings. Deliveries that wait keep what they say, and "
        "go to the new address.",
    )
    async def change_webhook(
        self,
        info: OperationInfo,
        input: Annotated[
            ChangeWebhookInput, strawberry.argument(description="Which, and how it is from now on.")
        ],
    ) -> ChangeWebhookResult:
        """Handle `ChangeWebhook`."""
        context = info.context

        async def command() -> WebhookCommand:
            state = await _seen(context, input.webhook_id)
            return ChangeWebhook(input.webhook_id, await _changed(context, input, state))

        return await _handled(context, "changeWebhook", input, ChangeWebhookSuccess, command)

    @mutation(
        right=Right.INTEGRATE,
        description="Have a webhook rest: what happens meanwhile is delivered once it is resumed.",
    )
    async def pause_webhook(
        self,
        info: OperationInfo,
        input: Annotated[PauseWebhookInput, strawberry.argument(description="Which, and why.")],
    ) -> PauseWebhookResult:
        """Handle `PauseWebhook`."""
        command = PauseWebhook(input.webhook_id, input.reason)
        return await _plain(info, "pauseWebhook", input, PauseWebhookSuccess, command)

    @mutation(
        right=Right.INTEGRATE,
        description="Have a webhook go on where it stood, paused or stopped.",
    )
    async def resume_webhook(
        self,
        info: OperationInfo,
        input: Annotated[ResumeWebhookInput, strawberry.argument(description="Which.")],
    ) -> ResumeWebhookResult:
        """Handle `ResumeWebhook`."""
        command = ResumeWebhook(input.webhook_id)
        return await _plain(info, "resumeWebhook", input, ResumeWebhookSuccess, command)

    @mutation(
        right=Right.INTEGRATE,
        description="Sign a webhook's deliveries with another secret, for a while with those "
        "before it too: a receiver that knows any of them can check.",
    )
    async def rotate_webhook_secret(
        self,
        info: OperationInfo,
        input: Annotated[
            RotateWebhookSecretInput, strawberry.argument(description="Which, and how gently.")
        ],
    ) -> RotateWebhookSecretResult:
        """Handle `RotateWebhookSecret`."""
        context, secret_id, secret = info.context, new_secret_id(), new_secret()

        async def act(key: IdempotencyKey) -> tuple[Handled, str]:
            if not 0 <= input.overlap_s <= OVERLAP_S_MAX:
                raise InvalidInput(
                    "webhook.overlap",
                    f"secrets overlap for 0 to {OVERLAP_S_MAX:g} s, not {input.overlap_s:g}",
                    value=input.overlap_s,
                    limit=OVERLAP_S_MAX,
                )
            await _seen(context, input.webhook_id)
            until = store.utc_now() + timedelta(seconds=input.overlap_s)
            command = RotateWebhookSecret(input.webhook_id, secret_id, until)
            return await _with_secret(context, input, key, command, secret_id, secret)

        result = await _once(context, "rotateWebhookSecret", input, RotateWebhookSecretSuccess, act)
        if isinstance(result, RotateWebhookSecretSuccess):
            told = not (result.duplicate or result.dry_run)
            result.secret = spelled(secret) if told else None
        return result

    @mutation(
        right=Right.INTEGRATE,
        description="Deliver what happened after a place in the log once more. What waits is "
        "dropped, for it comes again; messages keep their ids.",
    )
    async def replay_webhook(
        self,
        info: OperationInfo,
        input: Annotated[
            ReplayWebhookInput, strawberry.argument(description="Which, and from where on.")
        ],
    ) -> ReplayWebhookResult:
        """Handle `ReplayWebhook`."""
        context = info.context

        async def command() -> WebhookCommand:
            await _seen(context, input.webhook_id)
            return ReplayWebhook(input.webhook_id, await _position(context, input.after))

        return await _handled(context, "replayWebhook", input, ReplayWebhookSuccess, command)

    @mutation(
        right=Right.INTEGRATE,
        cost=20,
        description="Send a test to a webhook's address, now and once, also where it rests: a "
        "CloudEvent of the type `io.heddle.webhook.test`, signed as any other.",
    )
    async def test_webhook(
        self,
        info: OperationInfo,
        input: Annotated[TestWebhookInput, strawberry.argument(description="Which.")],
    ) -> TestWebhookResult:
        """Handle `TestWebhook`."""
        command = TestWebhook(input.webhook_id)
        result = await _plain(info, "testWebhook", input, TestWebhookSuccess, command)
        if isinstance(result, TestWebhookSuccess) and not result.dry_run:
            result.delivery = await _tested(info.context, result)
        return result

    @mutation(
        right=Right.INTEGRATE,
        description="Send deliveries again that were given up, as if they were new.",
    )
    async def redeliver_webhook(
        self,
        info: OperationInfo,
        input: Annotated[
            RedeliverWebhookInput, strawberry.argument(description="Which deliveries.")
        ],
    ) -> RedeliverWebhookResult:
        """Handle `RedeliverWebhook`."""
        context = info.context

        async def act(key: IdempotencyKey) -> tuple[Handled, str]:
            await _seen(context, input.webhook_id)
            wanted = [_delivery_id(text) for text in input.delivery_ids]
            await _check_dead(context, input.webhook_id, wanted)
            command = RedeliverWebhook(input.webhook_id, tuple(wanted))
            return await _handle(context, input, key, command)

        result = await _once(context, "redeliverWebhook", input, RedeliverWebhookSuccess, act)
        if isinstance(result, RedeliverWebhookSuccess) and not result.dry_run:
            # Also where it is recalled: whoever asked first may have got no further than the log.
            ids = [_delivery_id(text) for text in input.delivery_ids]
            await store.revive(context.ledger, input.webhook_id, ids, store.utc_now())
        return result

    @mutation(
        right=Right.INTEGRATE,
        description="Be rid of a webhook, its secrets and its deliveries; the log keeps its story.",
    )
    async def delete_webhook(
        self,
        info: OperationInfo,
        input: Annotated[DeleteWebhookInput, strawberry.argument(description="Which, and why.")],
    ) -> DeleteWebhookResult:
        """Handle `DeleteWebhook`."""
        command = DeleteWebhook(input.webhook_id, input.reason)
        result = await _plain(info, "deleteWebhook", input, DeleteWebhookSuccess, command)
        if isinstance(result, DeleteWebhookSuccess) and not result.dry_run:
            await store.forget_webhook(info.context.ledger, result.key)
        return result


# --- carrying out -------------------------------------------------------------------------

SuccessT = TypeVar("SuccessT", bound=WebhookCommandSuccess)


def new_secret_id() -> str:
    """Return a fresh name for a secret."""
    return f"s-{secrets.token_hex(8)}"


async def _plain(
    info: OperationInfo,
    name: str,
    given: Any,
    success: type[SuccessT],
    command: WebhookCommand,
) -> SuccessT | Failure:
    """Handle `command` on a webhook that has to be in sight."""
    context = info.context

    async def made() -> WebhookCommand:
        await _seen(context, command.webhook_id)
        return command

    return await _handled(context, name, given, success, made)


async def _handled(
    context: OperationContext,
    name: str,
    given: CommandInput,
    success: type[SuccessT],
    made: Callable[[], Awaitable[WebhookCommand]],
) -> SuccessT | Failure:
    async def act(key: IdempotencyKey) -> tuple[Handled, str]:
        return await _handle(context, given, key, await made())

    return await _once(context, name, given, success, act)


async def _once(
    context: OperationContext,
    name: str,
    given: CommandInput,
    success: type[SuccessT],
    act: Callable[[IdempotencyKey], Awaitable[tuple[Handled, str]]],
) -> SuccessT | Failure:
    """Answer as `answer` does; what was done under the same key is recalled before all else."""

    async def recall_or_act(key: IdempotencyKey) -> tuple[Handled, str]:
        earlier = await context.ledger.recall(key)
        if earlier is None:
            return await act(key)
        return await _with_stream(context, recalled(earlier))

    return await answer(context, name, given, success, recall_or_act)


async def _with_stream(context: OperationContext, handled: Handled) -> tuple[Handled, str]:
    """Return what was handled before, and the stream that it was recorded in."""
    event = await read_event(context.ledger, handled.position)
    assert event is not None, "what is recalled was recorded"
    return handled, event.stream


async def _handle(
    context: OperationContext, given: CommandInput, key: IdempotencyKey, command: WebhookCommand
) -> tuple[Handled, str]:
    services = context.services
    handled = await handle_webhook(
        services.ledger,
        command,
        actor=context.actor,
        now=services.now(),
        event_id=services.new_event_id,
        idempotency=key,
        expected_version=given.expected_version,
        traceparent=traceparent_of(trace.get_current_span()),
        dry_run=given.dry_run,
    )
    if handled.duplicate:  # somebody else was faster with the same key
        return await _with_stream(context, handled)
    return handled, webhook_stream(command.webhook_id)


async def _with_secret(
    context: OperationContext,
    given: CommandInput,
    key: IdempotencyKey,
    command: CreateWebhook | RotateWebhookSecret,
    secret_id: str,
    secret: bytes,
) -> tuple[Handled, str]:
    """Handle a command that names a new secret: it is there before the log says so, or not at all.

    A secret that the log does not name signs nothing, so one that is left behind does no harm.
    """
    webhook_id = command.webhook_id
    secrets = SecretStore(context.ledger, context.services.settings)
    await secrets.keep(webhook_id, secret_id, secret, store.utc_now())
    used = False
    try:
        handled, stream = await _handle(context, given, key, command)
        used = not (handled.duplicate or given.dry_run)
        return handled, stream
    finally:
        if not used:
            await secrets.drop(webhook_id, [secret_id])


async def _seen(context: OperationContext, webhook_id: str) -> State:
    """Return the webhook as it stands, where it is in sight.

    Raises
    ------
    NotFound
        ``webhook.unknown``
    """
    loaded = await load_webhook(context.ledger, webhook_id)
    state = loaded.state
    if isinstance(state, Uncreated) or not await may_see(
        context, loaded.created_by, state.settings.acts_as_key
    ):
        raise unknown_webhook(webhook_id)
    return state


async def _check_room(context: OperationContext) -> None:
    active = [s for s in WebhookStatus if s is not WebhookStatus.DELETED]
    found = await list_webhooks(context.ledger, statuses=active, limit=WEBHOOKS_MAX)
    if len(found) >= WEBHOOKS_MAX:
        raise CommandRejected(
            "webhook.too_many",
            f"the ledger has {len(found)} webhooks, and may have {WEBHOOKS_MAX}",
            hint="delete those that nobody needs",
            value=len(found),
            limit=WEBHOOKS_MAX,
        )


async def _check_settings(context: OperationContext, settings: WebhookSettings) -> None:
    """Refuse what could not be delivered: an address that is not called, a document that fails."""
    EgressPolicy.of(context.services.settings).target(settings.url)
    identity = await identity_of(context.services, settings.acts_as_key)
    assert context.operations is not None, "whoever prepared this operation prepares others"
    planned(await prepared(context.operations, settings, identity))


async def _changed(
    context: OperationContext, given: ChangeWebhookInput, state: State
) -> WebhookSettings:
    held = state.settings
    wanted = given.key_id or held.acts_as_key
    settings = WebhookSettings(
        title=held.title if given.title is None else given.title,
        url=held.url if given.url is None else given.url,
        document=held.document if given.document is None else given.document,
        operation_name=held.operation_name if given.document is None else given.operation_name,
        variables=held.variables if given.variables is None else _variables(given.variables),
        mode=held.mode if given.mode is None else given.mode,
        # Whoever sends another's data to another address has to be allowed to see it.
        acts_as_key=await key_for(context.services, context.identity, wanted),
    )
    await _check_settings(context, settings)
    return settings


def _variables(given: Json | None) -> str:
    if not isinstance(given, dict | None):
        raise InvalidInput(
            "webhook.malformed_variables",
            f"the variables are {type(given).__name__}, not an object",
            hint='such as {"types": ["work_order.completed"]}',
        )
    return orjson.dumps(given or {}, option=orjson.OPT_SORT_KEYS).decode()


async def _position(context: OperationContext, after: Cursor | None) -> int:
    head = await context.ledger.head()
    return head if after is None else position_after(context.ledger, after, head)


def _delivery_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _unknown_delivery(text)
    return int(text)


async def _check_dead(context: OperationContext, webhook_id: str, wanted: list[int]) -> None:
    dead = await store.dead_among(context.ledger, webhook_id, wanted)
    for delivery_id in wanted:
        if delivery_id not in dead:
            raise _unknown_delivery(str(delivery_id))


def _unknown_delivery(text: str) -> NotFound:
    return NotFound(
        "webhook.unknown_delivery",
        f"the webhook has no delivery {text!r:.40} that was given up",
        value=text[:40],
    )


async def _tested(context: OperationContext, result: TestWebhookSuccess) -> WebhookDelivery | None:
    await context.wait_for(result.position, *PROJECTIONS)
    row = await find_webhook(context.ledger, result.key)
    if row is None:
        return None
    return WebhookDelivery.of(await deliver_test(context.services, row, result.position))
