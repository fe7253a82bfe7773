"""Mutations of API keys: the same that `heddle key` does. The secret is told once, to its maker."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from api.access.keys import find_key, new_key, record_key, revoke_key
from api.access.rights import Right, Role
from api.graphql.commands import CommandInput, CommandSuccess, answer
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.errors import Failure
from api.graphql.fields import field, mutation
from api.graphql.keys.types import ApiKey, check_sees_all
from domain.access_events import api_key_stream
from domain.errors import Conflict, NotFound
from eventlog.commands import Handled, recalled
from eventlog.ledger import Appended, IdempotencyKey
from eventlog.reading import read_event


@strawberry.input(description="Let an agent or an integration in by a key.")
class CreateApiKeyInput(CommandInput):
    """Input of `createApiKey`."""

    name: str = strawberry.field(
        description="What people call it; of an agent the name that its frames bear."
    )
    roles: list[Role] = strawberry.field(description="What it may do; one role at least.")
    locations: list[strawberry.ID] | None = strawberry.field(
        default=None,
        description="The locations that it sees, with all below, 1 to 1,000; null: the whole "
        "ledger.",
    )
    assets: list[strawberry.ID] | None = strawberry.field(
        default=None,
        description="The assets that it speaks for, 1 to 1,000; null: those of its locations.",
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends by itself; null: when it is revoked."
    )


@strawberry.input(description="Have a key let nobody in any more.")
class RevokeApiKeyInput(CommandInput):
    """Input of `revokeApiKey`."""

    key_id: strawberry.ID = strawberry.field(description="Id of the key.")
    reason: str = strawberry.field(
        description="Why, 1 to 500 characters; it is written into the log."
    )


@strawberry.type
class ApiKeySuccess(CommandSuccess):
    """Success of a mutation of keys."""

    @field(description="The key as it is now; null of a dry run.")
    async def api_key(self, info: OperationInfo) -> ApiKey | None:
        """Return the key."""
        found = await find_key(info.context.ledger, self.key)
        return None if found is None else ApiKey.of(found, info.context.now)


@strawberry.type(description="The key is created.")
class CreateApiKeySuccess(ApiKeySuccess):
    """Success of `createApiKey`."""

    secret: str | None = strawberry.field(
        default=None,
        description="The key itself, to be sent as `Authorization: Bearer`. It is told this once "
        "and kept nowhere: null where the idempotency key recalled an earlier request "
        "(`duplicate`). Whoever has lost it revokes the key and creates another.",
    )


@strawberry.type(description="The key lets nobody in any more, on every server within seconds.")
class RevokeApiKeySuccess(ApiKeySuccess):
    """Success of `revokeApiKey`."""


CreateApiKeyResult = Annotated[
    CreateApiKeySuccess | Failure,
    strawberry.union("CreateApiKeyResult", description="What became of `createApiKey`."),
]
RevokeApiKeyResult = Annotated[
    RevokeApiKeySuccess | Failure,
    strawberry.union("RevokeApiKeyResult", description="What became of `revokeApiKey`."),
]


@strawberry.type
class ApiKeyMutations:
    """Root fields."""

    @mutation(
        right=Right.ADMINISTER,
        description="Create an API key. Its secret is in this answer and in no other. It takes "
        "sight of the whole ledger.",
    )
    async def create_api_key(
        self,
        info: OperationInfo,
        input: Annotated[
            CreateApiKeyInput, strawberry.argument(description="Whom it lets in, as what.")
        ],
    ) -> CreateApiKeyResult:
        """Create a key."""
        context = info.context
        told: list[str] = []

        async def act(key: IdempotencyKey) -> tuple[Handled, str]:
            check_sees_all(context.identity, "the field Mutation.createApiKey")
            earlier = await context.ledger.recall(key)
            if earlier is not None:
                return await _recalled(context, earlier)
            text, made = new_key(
                name=input.name,
                roles=input.roles,
                locations=input.locations,
                assets=input.assets,
                expires_at=input.expires_at,
                created_by=context.actor,
                now=context.services.now(),
            )
            stream = api_key_stream(made.key_id)
            _check_version(input, stream, 0)
            if input.dry_run:
                return Handled((), 0, await context.ledger.head()), stream
            appended = await record_key(context.ledger, made, idempotency=key)
            if appended.duplicate:  # somebody else was faster with the same key
                return await _recalled(context, appended)
            told.append(text)
            return _handled(appended), stream

        result = await answer(context, "createApiKey", input, CreateApiKeySuccess, act)
        if isinstance(result, CreateApiKeySuccess) and told:
            result.secret = told[0]
        return result

    @mutation(
        right=Right.ADMINISTER,
        description="Revoke an API key; one that was revoked before stays so. What goes on with "
        "it ends within seconds. It takes sight of the whole ledger.",
    )
    async def revoke_api_key(
        self,
        info: OperationInfo,
        input: Annotated[RevokeApiKeyInput, strawberry.argument(description="Which, and why.")],
    ) -> RevokeApiKeyResult:
        """Revoke a key."""
        context, stream = info.context, api_key_stream(input.key_id)

        async def act(key: IdempotencyKey) -> tuple[Handled, str]:
            check_sees_all(context.identity, "the field Mutation.revokeApiKey")
            earlier = await context.ledger.recall(key)
            if earlier is not None:
                return recalled(earlier), stream
            found = await find_key(context.ledger, input.key_id)
            if found is None:
                raise NotFound(
                    "key.unknown",
                    f"there is no key {input.key_id!r:.80}",
                    value=input.key_id[:80],
                )
            version = 1 if found.revoked_at is None else 2
            _check_version(input, stream, version)
            stands = Handled((), version, await context.ledger.head())
            if input.dry_run or found.revoked_at is not None:
                return stands, stream
            appended = await revoke_key(
                context.ledger,
                input.key_id,
                reason=input.reason,
                revoked_by=context.actor,
                now=context.services.now(),
                idempotency=key,
            )
            return (stands if appended is None else _handled(appended)), stream

        return await answer(context, "revokeApiKey", input, RevokeApiKeySuccess, act)


def _handled(appended: Appended) -> Handled:
    last = appended.placed[-1]
    return Handled((), last.version, last.position, duplicate=appended.duplicate)


async def _recalled(context: OperationContext, earlier: Appended) -> tuple[Handled, str]:
    """Return what was handled before, and the stream of the key that was created then."""
    event = await read_event(context.ledger, earlier.position)
    assert event is not None, "what is recalled was recorded"
    return recalled(earlier), event.stream


def _check_version(given: CommandInput, stream: str, version: int) -> None:
    if given.expected_version not in (None, version):
        raise Conflict(
            "stream.version_conflict",
            f"{stream} is at version {version}, not {given.expected_version}",
            hint="read it again",
            value=version,
            limit=given.expected_version,
        )
