"""A window of live readings, and what is done with it on its way.

The agent's clock cuts the windows of live sources, so a window knows no rows: each channel brings
its own times. Stages (conditioning, features) turn a window into a window; observers (models) say
what a window means. Pure but for what a stage remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from domain.asset_model import AssetType
from domain.frames import ByteArray, Column, IntArray
from domain.time_quality import TimeQuality
from edge_agent.live import DeliveredChannel

if TYPE_CHECKING:
    from edge_agent.outbox.records import AgentCommand


@dataclass(frozen=True, eq=False)
class ChannelWindow:
    """Readings of one channel within a window.

    Parameters
    ----------
    times_ns : int64, shape (n,), ns since 1970 UTC, not decreasing; readings of an equal time have
        other values, and the last of them counts. Of a waveform the times are those of
        `domain.frames.waveform_times_ns`, whatever they say here but for the first.
    values : as delivered, shape (n,), of the channel's type
    qualities : uint8, shape (n,), `domain.frames.Quality`
    """

    channel: DeliveredChannel
    times_ns: IntArray
    values: Column
    qualities: ByteArray

    def __len__(self) -> int:
        return len(self.times_ns)

    def between(self, start: int, stop: int) -> ChannelWindow:
        """Return the readings from index `start` up to, without, `stop`."""
        return replace(
            self,
            times_ns=self.times_ns[start:stop],
            values=self.values[start:stop],
            qualities=self.qualities[start:stop],
        )


@dataclass(frozen=True, eq=False)
class Window:
    """Readings of one source between two cuts.

    Parameters
    ----------
    channels : those with a reading, in the source's order; a waveform stands here once for every
        run of samples without a gap, any other channel once
    time : how far the times can be trusted; None where nothing is known of it
    """

    source: str
    asset: str
    asset_type: AssetType
    channels: tuple[ChannelWindow, ...]
    time: TimeQuality | None = None

    @property
    def reading_count(self) -> int:
        """Readings of all channels together."""
        return sum(len(channel) for channel in self.channels)


class Stage(Protocol):
    """One step that turns a window into a window; it may remember earlier ones, within bounds.

    It never raises for a value: it marks qualities.
    """

    def apply(self, window: Window) -> Window:
        """Return `window` as it goes on; windows of a source come in their order."""


@runtime_checkable
class CountingStage(Stage, Protocol):
    """A stage that counts what it marked, by channel and stable code."""

    def take_counts(self) -> Mapping[tuple[str, str], int]:
        """Return what was marked since the last call."""


class Observer(Protocol):
    """Something that says what windows mean, such as a model."""

    def observe(self, windows: Sequence[Window]) -> Sequence[Sequence[AgentCommand]]:
        """Return for each of `windows`, all that are due together, what it gives rise to.

        Called in a thread of its own, one call at a time. The commands are kept in the same
        commit as their window's frames.
        """
