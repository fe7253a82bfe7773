"""As whom a webhook sees: an API key, for it outlives whoever created it and can be revoked.

A person's token ends within the hour, and nobody can ask then what he may still do. On an open
server, which asks nobody who he is, a webhook sees as that server does, for as long as it is open.
"""

from __future__ import annotations

from dataclasses import replace

from api.access.identity import LOCAL_ADMIN, Identity
from api.access.keys import ApiKey, find_key, utc_now
from api.services import Services
from domain.errors import InvalidInput, NotAllowed, NotFound


async def key_for(services: Services, identity: Identity, wanted: str | None) -> str | None:
    """Return the id of the key that a webhook of `identity` acts as; None on an open server.

    Parameters
    ----------
    wanted : the key that it is to act as; None: the one that `identity` was recognised by

    Raises
    ------
    InvalidInput
        ``webhook.key_missing``: he was recognised by something that ends
    NotFound
        ``key.unknown``: there is none, or it may do or see what he may not
    """
    if wanted is None:
        if identity.key_id is None and identity.method != "open":
            raise InvalidInput(
                "webhook.key_missing",
                f"a webhook lasts longer than the token of {identity.actor}",
                hint="name in `keyId` an API key that it acts as; `heddle key create` makes one",
            )
        return identity.key_id
    key = await find_key(services.ledger, wanted)
    if key is None or not key.is_valid(utc_now()) or not covers(identity, key.identity()):
        raise NotFound(
            "key.unknown",
            f"there is no valid key {wanted!r:.80} that may do and see no more than you",
            value=wanted[:80],
        )
    return key.key_id


def covers(identity: Identity, other: Identity) -> bool:
    """Return whether `identity` may do and see whatever `other` may."""
    return other.rights <= identity.rights and (
        identity.sees_everything
        or (_within(identity.locations, other.locations) and _within(identity.assets, other.assets))
    )


def _within(own: frozenset[str] | None, others: frozenset[str] | None) -> bool:
    return own is None or (others is not None and others <= own)


async def identity_of(services: Services, acts_as_key: str | None) -> Identity:
    """Return as whom a webhook sees now.

    Raises
    ------
    NotAllowed
        ``webhook.key_invalid``: its key was revoked, or has ended;
        ``webhook.server_not_open``: it was created without one, and the server asks for some now
    """
    if acts_as_key is None:
        if not services.authenticator.is_open:
            raise NotAllowed(
                "webhook.server_not_open",
                "the webhook was created on an open server, and this server asks who one is",
                hint="change it to act as an API key",
            )
        return replace(LOCAL_ADMIN, actor="service:webhooks")
    key: ApiKey | None = await find_key(services.ledger, acts_as_key)
    if key is None or not key.is_valid(utc_now()):
        raise NotAllowed(
            "webhook.key_invalid",
            f"the API key {acts_as_key!r:.80}, as which the webhook acts, was revoked or has ended",
            hint="change it to act as another one, then resume it",
            value=acts_as_key[:80],
        )
    return key.identity()
