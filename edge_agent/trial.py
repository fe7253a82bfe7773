"""Listening for a moment without keeping or sending anything: what a configuration would bring."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from domain.errors import HeddleError
from domain.frames import Quality
from domain.units import unit
from edge_agent.configuration import AgentConfiguration, ConfiguredConnection, ConfiguredLiveSource
from edge_agent.live import Connection, Readings


@runtime_checkable
class Sharing(Protocol):
    """A connection whose session belongs to one at a time, such as that of an agent that runs."""

    def for_trial(self) -> Connection:
        """Return one beside it that takes nothing from it and leaves nothing behind."""


def connection_for_trial(connection: Connection) -> Connection:
    """Return what may listen while an agent of the same configuration runs."""
    return connection.for_trial() if isinstance(connection, Sharing) else connection


@dataclass(frozen=True, slots=True)
class TriedReading:
    """One reading as delivered and in SI; None where there is none."""

    source: str
    channel: str
    time_ns: int
    value: float | str | None
    unit: str
    si: float | None
    si_unit: str
    quality: str


@dataclass
class Trial:
    """What one source brought; `failure` tells why its connection brought nothing more."""

    source: str
    readings: list[TriedReading] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    silent_channels: tuple[str, ...] = ()


class _TrialFeed:
    """Takes the first readings of each channel, and acknowledges nothing."""

    def __init__(self, configured: ConfiguredLiveSource, count_max: int) -> None:
        self.trial = Trial(configured.name)
        self.complete = asyncio.Event()
        self._configured = configured
        self._count_max = count_max
        self._counts: Counter[int] = Counter()

    async def take(self, readings: Sequence[Readings]) -> None:
        """Note what is still wanted of `readings`."""
        for given in readings:
            room = self._count_max - self._counts[given.channel]
            count = min(room, len(given.times_ns))
            for at in range(max(0, count)):
                self.trial.readings.append(self._told(given, at))
            self._counts[given.channel] += max(0, count)
        channels = range(len(self._configured.source.channels))
        if all(self._counts[channel] >= self._count_max for channel in channels):
            self.complete.set()

    def fault(self, code: str, message: str, *, channel: str = "", text: str = "") -> None:
        """Note the first fault of each kind."""
        key = f"{channel}: {code}" if channel else code
        self.trial.faults.setdefault(key, f"{message} {text}".strip())

    def lost(self, reason: str, from_ns: int, to_ns: int, count: int | None = None) -> None:
        """Ignore losses: nothing is kept."""

    def resumed(self, kept_by: str = "", *, was_kept: bool = False) -> None:
        """Ignore who keeps what comes later."""

    async def kept(self) -> None:
        """Never return: what is not kept is not acknowledged."""
        await asyncio.Event().wait()

    def silent_channels(self) -> tuple[str, ...]:
        """Return the channels that brought nothing."""
        channels = self._configured.source.channels
        return tuple(c.name for index, c in enumerate(channels) if not self._counts[index])

    def _told(self, given: Readings, at: int) -> TriedReading:
        channel = self._configured.source.channels[given.channel]
        quality = Quality(int(given.qualities[at]))
        # tolist makes a Python number, or leaves the text that it is.
        value = None if quality == Quality.MISSING else given.values[at : at + 1].tolist()[0]
        is_number = isinstance(value, int | float)
        return TriedReading(
            source=self._configured.name,
            channel=channel.name,
            time_ns=int(given.times_ns[at]),
            value=value,
            unit=channel.unit,
            si=unit(channel.unit).to_si(float(value)) if is_number and value is not None else None,
            si_unit=self._configured.asset_type.channel(channel.name).si_unit,
            quality=quality.name,
        )


async def try_live_sources(
    configuration: AgentConfiguration, count_max: int, seconds_max: float
) -> list[Trial]:
    """Return the first readings of every live source, at most `count_max` for each channel.

    Ends once every channel has brought as many, or after `seconds_max`.
    """
    tried = await asyncio.gather(
        *(
            _try_connection(
                connection,
                [s for s in configuration.live if s.connection == connection.name],
                count_max,
                seconds_max,
            )
            for connection in configuration.connections
        )
    )
    return [trial for of_connection in tried for trial in of_connection]


async def _try_connection(
    configured: ConfiguredConnection,
    sources: Sequence[ConfiguredLiveSource],
    count_max: int,
    seconds_max: float,
) -> list[Trial]:
    feeds = [_TrialFeed(source, count_max) for source in sources]
    running = asyncio.create_task(
        connection_for_trial(configured.connection).run(
            [(source.source, feed) for source, feed in zip(sources, feeds, strict=True)]
        )
    )
    complete: asyncio.Future[Any] = asyncio.gather(*(feed.complete.wait() for feed in feeds))
    try:
        await asyncio.wait(
            [running, complete], timeout=seconds_max, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        complete.cancel()
        running.cancel()
    (ended, _) = await asyncio.gather(running, complete, return_exceptions=True)
    for feed in feeds:
        feed.trial.failure = str(ended) if isinstance(ended, HeddleError) else ""
        feed.trial.silent_channels = feed.silent_channels()
    return [feed.trial for feed in feeds]
