"""What a live source hands over: readings as they arrive, and what was lost on the way.

A *source* is one asset's channels on one *connection*; several sources share a connection, which
is one session with a controller, a broker or a serial line. This is the vocabulary between the
protocols in `edge_agent.sources` and the windows; it knows neither frames nor the outbox.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domain.errors import Unavailable
from domain.frames import ByteArray, Column, IntArray
from domain.time_quality import AGENT


@dataclass(frozen=True, slots=True)
class DeliveredChannel:
    """A channel as a source delivers it.

    Parameters
    ----------
    name : of the asset type's channel
    unit : symbol of the unit its values are in
    value_type : a key of `domain.frame_header.VALUE_TYPES`
    rate_hz : for a waveform, its samples a second
    """

    name: str
    unit: str
    value_type: str = "f8"
    rate_hz: float | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Every window of every source is looked up by its channels.
        told = hash((self.name, self.unit, self.value_type, self.rate_hz))
        object.__setattr__(self, "_hash", told)

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, eq=False)
class Readings:
    """Readings of one channel, in the order in which they arrived.

    Parameters
    ----------
    channel : index into the channels of the source
    times_ns : int64, shape (n,), ns since 1970 UTC: when the value was measured, as the device
        tells it, or when it was asked for where the device tells no time
    values : as delivered, shape (n,), of the channel's type
    qualities : uint8, shape (n,), `domain.frames.Quality`
    clock : who told the times, of `domain.time_quality.TIME_SOURCES`
    """

    channel: int
    times_ns: IntArray
    values: Column
    qualities: ByteArray
    clock: str = AGENT


class Feed(Protocol):
    """Where the readings of one source go; bounded, so taking may have to wait."""

    async def take(self, readings: Sequence[Readings]) -> None:
        """Take what arrived; wait while more is held than the agent may hold."""

    def fault(self, code: str, message: str, *, channel: str = "", text: str = "") -> None:
        """Count and tell a value that could not be taken as delivered (``value.*``), or a whole
        message that was refused (``message.*``), when `channel` is empty.
        """

    def lost(self, reason: str, from_ns: int, to_ns: int, count: int | None = None) -> None:
        """Declare that readings measured from `from_ns` to `to_ns` are lost for `reason`.

        Parameters
        ----------
        reason : a stable code such as ``connection.down``, ``queue.overflow``, ``sequence.gap``
        count : how many, where that can be told
        """

    def resumed(self, kept_by: str = "", *, was_kept: bool = False) -> None:
        """Note that the other side delivers from now on: what was missed until now is lost.

        Parameters
        ----------
        kept_by : names the session, and what is subscribed to in it, in which the other side keeps
            what comes while nobody listens; empty where it keeps nothing
        was_kept : it has kept that session until now; where it was the source's own before, what
            came meanwhile is delivered, and nothing was missed
        """

    async def kept(self) -> None:
        """Return once all that was taken so far is on disk: what may then be acknowledged."""


class ConnectionLost(Unavailable):
    """The other side of a connection went away or never answered; it is tried again."""


@dataclass(frozen=True, slots=True)
class BrowsedItem:
    """Something that a controller or broker offers.

    Parameters
    ----------
    address : as the configuration names it, such as ``ns=2;s=Pump1.Flow``
    """

    address: str
    title: str
    value: str
    value_type: str
    unit: str = ""


class LiveSource(Protocol):
    """One asset's channels on one connection, as configured; what else it holds is its kind's."""

    @property
    def channels(self) -> tuple[DeliveredChannel, ...]:
        """What it delivers."""


class Target(Protocol):
    """Something that can be written, as configured; what it holds is its kind's."""

    @property
    def address(self) -> str:
        """Its place on the device, as the configuration names it."""


class Connection(Protocol):
    """One session with a controller, broker or line, and everything that goes over it."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""

    async def run(self, sources: Sequence[tuple[LiveSource, Feed]]) -> None:
        """Deliver to every source's feed until cancelled.

        Returns never; the agent calls again, after a growing pause, when it raises.

        Raises
        ------
        ConnectionLost
            ``connection.*``: who went away, and why
        """

    def browse(self, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:
        """Yield at most `count_max` things that are offered below an address."""

    async def write(self, target: Target, value: float) -> float:
        """Write `value`, in the target's unit, and return what the device reads back.

        Raises
        ------
        ConnectionLost
        HeddleError
            ``target.*`` when the device refuses it
        """
