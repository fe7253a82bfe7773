"""Types of API keys: how agents and integrations prove who they are, without any secret."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import strawberry

from api.access.identity import Identity
from api.access.keys import ApiKey as KeptKey
from api.access.requirements import denied
from api.access.rights import Right, Role
from api.graphql.scalars import described_enum


class ApiKeyState(StrEnum):
    """Whether a key lets anybody in."""

    VALID = "VALID"
    ENDED = "ENDED"
    REVOKED = "REVOKED"


described_enum(
    ApiKeyState,
    "Whether a key lets anybody in.",
    {
        "VALID": "It does.",
        "ENDED": "It ended by itself.",
        "REVOKED": "Somebody revoked it.",
    },
)
described_enum(
    Role,
    "What somebody is in the plant; which role has which right, docs/access.md says.",
    {
        "VIEWER": "Reads.",
        "OPERATOR": "Runs, lots, parts, alerts acknowledged, set-points desired.",
        "MAINTENANCE": "Work orders, spare parts, components.",
        "QUALITY": "Inspections, non-conformances, quarantine, instruments.",
        "ENGINEER": "The plant and its assets, documents, scenarios, set-points approved.",
        "AUDITOR": "Reads the audit trail and evidence.",
        "ADMIN": "Everything, keys and webhooks too.",
        "AGENT": "Sends frames, and speaks for its assets.",
    },
)


@strawberry.type(description="A key that lets an agent or an integration in, without its secret.")
class ApiKey:
    """`api.access.keys.ApiKey`."""

    key_id: strawberry.ID = strawberry.field(description="Natural key; it is no secret.")
    name: str = strawberry.field(
        description="What people call it; of an agent the name that its frames bear. A key that "
        "replaces another may have the same name."
    )
    acts_as: str = strawberry.field(
        description="The actor of what is done with it, such as `agent:gateway-1`."
    )
    roles: list[Role] = strawberry.field(description="What it may do, by name.")
    locations: list[strawberry.ID] | None = strawberry.field(
        description="The locations that it sees, with all below; null: the whole ledger."
    )
    assets: list[strawberry.ID] | None = strawberry.field(
        description="The assets that it speaks for; null: those of its locations."
    )
    state: ApiKeyState = strawberry.field(description="Whether it lets anybody in.")
    created_at: datetime = strawberry.field(description="When it was created.")
    created_by: str = strawberry.field(description="Who created it, such as `user:jane`.")
    expires_at: datetime | None = strawberry.field(
        description="When it ends by itself; null: when it is revoked."
    )
    revoked_at: datetime | None = strawberry.field(
        description="When it was revoked; null where it was not."
    )
    last_used_at: datetime | None = strawberry.field(
        description="When it was used last, to within 5 minutes; null where it was not."
    )

    @classmethod
    def of(cls, key: KeptKey, now: datetime) -> ApiKey:
        """Return `key` as the schema tells it, judged at `now`."""
        state = ApiKeyState.VALID if key.is_valid(now) else ApiKeyState.ENDED
        return cls(
            key_id=strawberry.ID(key.key_id),
            name=key.name,
            acts_as=key.acts_as,
            roles=sorted(key.roles),
            locations=_named(key.locations),
            assets=_named(key.assets),
            state=state if key.revoked_at is None else ApiKeyState.REVOKED,
            created_at=key.created_at,
            created_by=key.created_by,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            last_used_at=key.last_used_at,
        )


def _named(names: frozenset[str] | None) -> list[strawberry.ID] | None:
    return None if names is None else [strawberry.ID(name) for name in sorted(names)]


def check_sees_all(identity: Identity, what: str) -> None:
    """Refuse whoever sees a part of the ledger alone: a key may let in to all of it.

    Raises
    ------
    NotAllowed
        ``access.denied``
    """
    if not identity.sees_everything:
        raise denied(what, Right.ADMINISTER, identity, " over the whole ledger")
