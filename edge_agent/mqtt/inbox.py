"""Messages taken from a broker and not yet looked at: bounded, and the broker feels the bound."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edge_agent.mqtt.client import MqttClient

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

HELD_MAX: Final = 5_000
"""Messages held; more are left with the broker."""
BATCH_MAX: Final = 500


class Inbox:
    """What arrived, each message with the time of its arrival (ns since 1970 UTC)."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._held: deque[tuple[MQTTMessage, int]] = deque()
        self._arrived = asyncio.Event()

    def put(self, client: MqttClient, message: MQTTMessage) -> None:
        """Take a message; where too many wait, let the broker keep the next ones."""
        self._held.append((message, self._now_ns()))
        if len(self._held) >= HELD_MAX:
            client.pause()
        self._arrived.set()

    async def batch(self, wait_s: float | None = None) -> list[tuple[MQTTMessage, int]]:
        """Return what arrived next, at least one message, or none after `wait_s`."""
        if not self._held:
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        return [self._held.popleft() for _ in range(min(len(self._held), BATCH_MAX))]

    def settle(self, client: MqttClient) -> None:
        """Go on reading once there is room again."""
        if len(self._held) <= HELD_MAX // 2:
            client.resume()
