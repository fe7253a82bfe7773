"""A machine that counts and publishes to a broker, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import suppress
from typing import Self

from domain.errors import HeddleError
from edge_agent.mqtt.client import Broker, MqttClient, Publication
from tests.brokers import MosquittoBroker
from tests.end_to_end.counting_plc import FIRST, PERIOD_S, STEP, pressure_at
from tests.end_to_end.processes import PATIENCE_S

RETRY_S = 0.1


class CountingPublisher:
    """Publishes a count every `PERIOD_S`, again until the broker has acknowledged it."""

    def __init__(self, broker: MosquittoBroker) -> None:
        self.told: dict[float, int] = {}
        self._broker = Broker(host="127.0.0.1", port=broker.port, client_id="machine")
        self._counting = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._counting.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE_S)

    def pause(self) -> None:
        """Count no further."""
        self._counting.clear()
        time.sleep(5 * PERIOD_S)

    async def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            client = MqttClient(self._broker, lambda _message: None)
            try:
                await client.connect()
                while not self._ended.is_set():
                    await asyncio.sleep(PERIOD_S)
                    if self._counting.is_set():
                        await self._publish(client, number + 1)
                        number += 1
            except HeddleError:
                await asyncio.sleep(RETRY_S)
            finally:
                with suppress(HeddleError):
                    await client.close()

    async def _publish(self, client: MqttClient, number: int) -> None:
        value = FIRST + number * STEP
        at_ms = time.time_ns() // 1_000_000
        told = {"ts": at_ms, "flow": value, "pressure": pressure_at(at_ms / 1000)}
        await client.publish(Publication("plant/pump-7", json.dumps(told).encode(), qos=1))
        self.told[value] = at_ms * 1_000_000
