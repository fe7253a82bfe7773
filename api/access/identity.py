"""An identity: who acts, in which roles, within which part of the plant, and until when."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

from api.access.rights import RIGHTS_OF, Right, Role


@dataclass(frozen=True)
class Identity:
    """Somebody whom an authenticator vouches for.

    Parameters
    ----------
    actor : as events name him, such as ``user:jane`` or ``agent:edge-1``
    roles : what he is
    locations : ids of the sites and areas that he sees, with all below them; None: the whole
        ledger
    assets : of an agent: the assets it speaks for; None: those of its locations
    expires_at : after this nothing is done in his name any more; None: until revoked
    method : how he was recognised: ``open``, ``oidc``, ``development``, ``api_key`` or ``proxy``
    key_id : of an API key: which one
    """

    actor: str
    roles: frozenset[Role]
    locations: frozenset[str] | None = None
    assets: frozenset[str] | None = None
    expires_at: datetime | None = None
    method: str = "open"
    key_id: str | None = None

    @cached_property
    def rights(self) -> frozenset[Right]:
        """What he may do within his scope."""
        return frozenset[Right]().union(*(RIGHTS_OF[role] for role in self.roles))

    @property
    def sees_everything(self) -> bool:
        """Whether nothing of the ledger is beyond his scope."""
        return self.locations is None and self.assets is None

    @property
    def permissions(self) -> Hashable:
        """What answers depend on: identities that agree in it may share one execution."""
        return self.rights, self.locations, self.assets


LOCAL_ADMIN: Final = Identity("user:local", frozenset({Role.ADMIN}))
"""Whoever asks a server that only this machine can reach, and that names no authenticator."""
