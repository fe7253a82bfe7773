"""A feed that remembers what a connection delivers, and keeps it when the test says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from edge_agent.configuration import AgentConfiguration, read_configuration
from edge_agent.live import Connection, LiveSource, Readings

ARRIVES_S_MAX: Final = 20.0


@dataclass
class Fault:
    """What a connection has told of a fault."""

    code: str
    message: str
    channel: str
    text: str


@dataclass
class RecordingFeed:
    """All that was delivered, in order; `keeps` says whether it reaches the disk."""

    taken: list[Readings] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    losses: list[tuple[str, int, int, int | None]] = field(default_factory=list)
    resumptions: list[tuple[str, bool]] = field(default_factory=list)
    keeps: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.keeps.set()

    async def take(self, readings: Sequence[Readings]) -> None:
        """Remember what was delivered."""
        self.taken += readings

    def fault(self, code: str, message: str, *, channel: str = "", text: str = "") -> None:
        """Remember a fault."""
        self.faults.append(Fault(code, message, channel, text))

    def lost(self, reason: str, from_ns: int, to_ns: int, count: int | None = None) -> None:
        """Remember a declared loss."""
        self.losses.append((reason, from_ns, to_ns, count))

    def resumed(self, kept_by: str = "", *, was_kept: bool = False) -> None:
        """Remember who keeps what comes while nobody listens, and whether it has."""
        self.resumptions.append((kept_by, was_kept))

    async def kept(self) -> None:
        """Wait for the test to let things reach the disk."""
        await self.keeps.wait()

    def codes(self) -> Counter[str]:
        """Return how often each fault was told."""
        return Counter(fault.code for fault in self.faults)

    def values(self, channel: int) -> list[Any]:
        """Return the values of a channel in the order of arrival."""
        return self._column(channel, "values")

    def times_ns(self, channel: int) -> list[int]:
        """Return the times of a channel in the order of arrival."""
        return [int(time) for time in self._column(channel, "times_ns")]

    def qualities(self, channel: int) -> list[int]:
        """Return the qualities of a channel in the order of arrival."""
        return [int(quality) for quality in self._column(channel, "qualities")]

    def _column(self, channel: int, name: str) -> list[Any]:
        found = [getattr(taken, name) for taken in self.taken if taken.channel == channel]
        return list(np.concatenate(found).tolist()) if found else []


async def until(condition: Callable[[], object], told: str = "") -> None:
    """Wait until `condition` holds."""
    try:
        async with asyncio.timeout(ARRIVES_S_MAX):
            while not condition():  # noqa: ASYNC110 (it may be true of another process)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(told or "what the test waits for did not happen") from None


@asynccontextmanager
async def delivering(
    connection: Connection, *sources: tuple[LiveSource, RecordingFeed]
) -> AsyncIterator[asyncio.Task[None]]:
    """Run `connection` beside the test; what it raises is raised when it is awaited."""
    task = asyncio.create_task(connection.run(sources))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def live_configuration(
    folder: Path, connections: dict[str, Any], *sources: dict[str, Any]
) -> AgentConfiguration:
    """Return the configuration of an agent with these connections and sources."""
    file = folder / "live.yaml"
    document = {"agent": "test-agent", "connections": connections, "sources": list(sources)}
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return read_configuration(file, folder)
