"""What happens to the keys by which agents and integrations are recognised.

A key's secret, and what is kept to check it, are no part of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain.events import event_type


def api_key_stream(key_id: str) -> str:
    """Return the stream of a key's facts."""
    return f"api-key:{key_id}"


@event_type("access.key_created")
@dataclass(frozen=True)
class ApiKeyCreated:
    """Whoever has the secret of this key is let in as `acts_as` from here on.

    Parameters
    ----------
    name : what people call it; a key that replaces another one may have the same name
    acts_as : the actor of what is done with it, such as ``agent:gateway-1``
    roles : what it may do
    locations : ids of the locations that it sees, with all below; None: the whole ledger
    assets : the assets that it speaks for; None: those of its locations
    expires_at : when it ends by itself; None: when it is revoked
    """

    key_id: str
    name: str
    acts_as: str
    roles: tuple[str, ...]
    locations: tuple[str, ...] | None
    assets: tuple[str, ...] | None
    expires_at: datetime | None


@event_type("access.key_revoked")
@dataclass(frozen=True)
class ApiKeyRevoked:
    """The key lets nobody in any more; `reason` in words."""

    key_id: str
    reason: str
