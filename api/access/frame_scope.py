"""For which assets, and as which agent, whoever sends frames may speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from api.access.identity import Identity
from api.access.requirements import denied
from api.access.rights import Right, Role
from api.access.sight import Sight
from domain.errors import NotAllowed
from domain.frame_header import FrameHeader

AGENT_PREFIX: Final = "agent:"


def check_may_ingest(identity: Identity) -> None:
    """Raise unless `identity` may send frames at all.

    Raises
    ------
    NotAllowed
        ``access.denied``
    """
    if Right.INGEST not in identity.rights:
        raise denied("sending frames", Right.INGEST, identity)


@dataclass(frozen=True, slots=True)
class FrameScope:
    """What of the plant an identity sends frames of."""

    identity: Identity
    sight: Sight

    def fault(self, header: FrameHeader) -> NotAllowed | None:
        """Return why a frame is not taken from this sender; None: it is.

        An agent sends under its own name alone: frames are numbered by their agent, and under
        another's name it could take that one's numbers away.
        """
        if not self.sight.sees_asset(header.asset):
            return NotAllowed(
                "access.denied",
                f"{self.identity.actor} does not speak for asset {header.asset!r}",
                hint="its key names the assets that it speaks for; have one made that names this",
                value=header.asset,
            )
        actor = self.identity.actor
        own = actor.removeprefix(AGENT_PREFIX)
        if Role.AGENT in self.identity.roles and own != actor and own != header.agent:
            return NotAllowed(
                "access.denied",
                f"{actor} sent a frame of agent {header.agent!r}",
                hint="an agent's key has the name of the agent",
                value=header.agent,
                limit=own,
            )
        return None
