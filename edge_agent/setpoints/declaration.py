"""What is declared of a set-point on this site; nobody can send the agent other bounds."""

from __future__ import annotations

from dataclasses import dataclass

from domain.asset_model import Setpoint
from domain.units import Unit
from edge_agent.live import Target


@dataclass(frozen=True, slots=True)
class Interlock:
    """A condition on a live channel: closed while its value lies within bounds and is fresh.

    Parameters
    ----------
    least, most : SI; both ends included
    age_s_max : a value that is older tells nothing
    """

    asset: str
    channel: str
    least: float
    most: float
    age_s_max: float


@dataclass(frozen=True, slots=True)
class SafeReturn:
    """To which value a set-point goes back by itself, and when.

    Parameters
    ----------
    value : SI
    link_lost_s : after so long without a sign of life from the server; None: never
    twin_lost_s : after so long without a reading of the channels it watches; None: never
    """

    value: float
    link_lost_s: float | None
    twin_lost_s: float | None


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a set-point may move.

    Parameters
    ----------
    change_max : SI; from where `feedback` says that the machine stands
    every_s : seconds between two writes, at least
    feedback : channel of the asset
    age_s_max : a value of it that is older tells nothing
    """

    change_max: float
    every_s: float
    feedback: str
    age_s_max: float


@dataclass(frozen=True)
class DeclaredSetpoint:
    """One set-point of one asset, as this site allows it to be set.

    Parameters
    ----------
    connection : name of the connection over which `target` is written
    unit : of the value that is written
    closed_loop : False: it is told what would be set, and nothing is written
    least, most : SI; both ends included
    age_s_max : a directive that was issued longer ago is stale
    two_person : whoever proposed it may not be who approved it
    tolerance : SI; by so much what is read back may differ
    """

    asset: str
    described: Setpoint
    connection: str
    target: Target
    unit: Unit
    closed_loop: bool
    least: float
    most: float
    age_s_max: float
    two_person: bool
    tolerance: float
    rate: Rate | None
    interlocks: tuple[Interlock, ...]
    safe: SafeReturn | None

    @property
    def name(self) -> str:
        """Of the set-point."""
        return self.described.name

    @property
    def subject(self) -> str:
        """Asset and set-point as one text."""
        return f"{self.asset}/{self.name}"

    @property
    def watched(self) -> frozenset[tuple[str, str]]:
        """The live channels, as (asset, channel), on which it depends."""
        found = {(lock.asset, lock.channel) for lock in self.interlocks}
        if self.rate is not None:
            found.add((self.asset, self.rate.feedback))
        return frozenset(found)
