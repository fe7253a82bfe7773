"""Queries of API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import strawberry

from api.access.keys import find_key, list_keys
from api.access.rights import Right
from api.graphql.context import OperationInfo
from api.graphql.fields import field
from api.graphql.key_cursors import decode_key_cursor, encode_key_cursor
from api.graphql.keys.types import ApiKey, check_sees_all
from api.graphql.relay import After, Connection, First, check_first, connection

CURSOR_KIND: Final = "api-keys"


@strawberry.type
class ApiKeyQueries:
    """Root fields."""

    @field(
        right=Right.ADMINISTER,
        description="The API key of this id; null where there is none. Whoever sees a part of the "
        "ledger alone may not ask.",
    )
    async def api_key(
        self,
        info: OperationInfo,
        key_id: Annotated[strawberry.ID, strawberry.argument(description="Id of the key.")],
    ) -> ApiKey | None:
        """Return one key."""
        context = info.context
        check_sees_all(context.identity, "the field Query.apiKey")
        found = await find_key(context.ledger, key_id)
        return None if found is None else ApiKey.of(found, context.now)

    @field(
        right=Right.ADMINISTER,
        description="API keys, the newest first, revoked ones too. Whoever sees a part of the "
        "ledger alone may not ask.",
    )
    async def api_keys(
        self, info: OperationInfo, first: First, after: After = None
    ) -> Connection[ApiKey]:
        """Return a page of keys."""
        check_first(first)
        context, ledger = info.context, info.context.ledger
        check_sees_all(context.identity, "the field Query.apiKeys")
        beyond = None
        if after is not None:
            beyond = decode_key_cursor(after, CURSOR_KIND, ledger.name, (datetime, str))
        position = await ledger.head()
        found = await list_keys(ledger, first=first + 1, after=beyond)
        return connection(
            found,
            first=first,
            after=after,
            position=position,
            node=lambda key: ApiKey.of(key, context.now),
            cursor=lambda key: encode_key_cursor(
                CURSOR_KIND, ledger.name, (key.created_at, key.key_id)
            ),
        )
