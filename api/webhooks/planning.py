"""A cursor over the log becomes deliveries: the webhook's document, executed as whom it acts as.

It is the same subscription that a socket would have, told piece by piece: from where the webhook
stands to the log's end. What a piece tells is kept together with how far it went, so that a process
that ends at any moment loses nothing and makes nothing twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import orjson

from api.access.identity import Identity
from api.access.sight import Sight
from api.graphql.context import Told
from api.graphql.events.types import CURSOR_KIND
from api.graphql.operations import Operation, Operations, encode
from api.graphql.relay import encode_cursor
from api.webhooks.cloudevents import TYPE_PREFIX
from api.webhooks.documents import DocumentFails
from api.webhooks.store import Header, NewDelivery
from domain.errors import HeddleError, Unavailable

BODY_BYTES_MAX: Final = 1024 * 1024
"""Of the result of one message."""

PIECE_POSITIONS_MAX: Final = 10_000
"""Positions of the log that one piece goes through."""

ONE_LANE: Final = "*"
"""Of what tells of the state of things: each message tells of many of them."""


@dataclass(frozen=True, slots=True)
class Message:
    """One result of a subscription: of which events it tells, and its JSON."""

    told: Told
    body: bytes


async def messages(
    operations: Operations, operation: Operation, after: int, up_to: int
) -> AsyncGenerator[Message, None]:
    """Yield what a webhook's document tells of what lies beyond `after`, up to `up_to`.

    Raises
    ------
    DocumentFails
        ``webhook.document_fails``: its arguments are wrong, say
    Unavailable
        it broke off for something that will pass
    """
    context = operation.context
    context.resume_after = encode_cursor(CURSOR_KIND, context.ledger.name, after)
    context.up_to = up_to
    async with aclosing(operations.stream(operation)) as payloads:
        async for payload in payloads:
            if "data" not in payload:
                raise _broken(payload)
            assert context.told is not None, "a subscription says of what it tells"
            yield Message(context.told, encode(payload))


_PASSING: Final = ("unavailable", "behind", "timeout", "throttled", "closed", "not_running")


def _broken(payload: Mapping[str, Any]) -> HeddleError:
    """Return why a subscription ended with `payload`, which has no data."""
    (error, *_) = payload["errors"]
    code = str(error.get("extensions", {}).get("code", "internal"))
    message = str(error.get("message", ""))[:300]
    if code == "internal" or code.rpartition(".")[2] in _PASSING:
        return Unavailable(code, message)
    return DocumentFails("webhook.document_fails", f"{code}: {message}", value=code)


def new_delivery(
    message: Message, after: int, header: Header, root: str, sight: bytes
) -> NewDelivery:
    """Return the delivery that carries `message`, the last event of which has `header`.

    Parameters
    ----------
    after : where the message before it ended
    root : the document's root field
    """
    too_large = len(message.body) > BODY_BYTES_MAX
    return NewDelivery(
        after_position=after,
        position=message.told.last,
        event_id=header.event_id,
        event_type=TYPE_PREFIX + (header.type if message.told.lasts else f"subscription.{root}"),
        subject=header.stream if message.told.lasts else "",
        lane=header.stream if message.told.lasts else ONE_LANE,
        occurred_at=header.occurred_at,
        # One that is too large is made anew when its turn comes, and told of then.
        body=b"" if too_large else message.body,
        sight=b"" if too_large else sight,
    )


def fingerprint(sight: Sight, identity: Identity) -> bytes:
    """Return the hash of what `identity`, whose sight is `sight`, may be told.

    A body that was made under another one is made anew before it leaves.
    """
    told: list[object] = [sorted(identity.rights), identity.key_id]
    if not sight.is_whole:
        told += [sorted(sight.asset_ids or ()), sorted(sight.location_ids or ())]
        told += [sorted(sight.above_ids)]
    return hashlib.sha256(orjson.dumps(told)).digest()


async def made_anew(
    operations: Operations, operation: Operation, after: int, position: int
) -> bytes | None:
    """Return what may be told now of what lies beyond `after`, up to `position`.

    None where nothing of it is in sight any more.
    """
    body = None
    async with aclosing(messages(operations, operation, after, position)) as found:
        async for message in found:
            if not message.told.lasts or message.told.last == position:
                body = message.body
    return body
