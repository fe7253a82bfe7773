"""A controller that counts, in a thread of its own: which reading is which can be told for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from asyncua import ua
from asyncua.server.server import Server

from tests.end_to_end.processes import PATIENCE_S, free_port

PERIOD_S = 0.02
FIRST = 10.0
STEP = 0.0009765625
"""A power of two, so that every count is exact as it is told."""
PRESSURE_EVERY = 5
PRESSURES_BAR = (0.2, 0.7, 1.7)
"""Three, so that whichever two a model has learnt as normal, it soon finds something new."""
PRESSURE_LASTS_S = 2


class CountingPlc:
    """An OPC UA server whose flow grows by `STEP` every `PERIOD_S`, while it is counting.

    Its pressure leaps every `PRESSURE_LASTS_S`, so that a model has something to tell.
    """

    def __init__(self) -> None:
        self.url = f"opc.tcp://127.0.0.1:{free_port()}/plant"
        self.told: dict[float, int] = {}
        self.clock_ahead_s = 0.0
        self._number = 0
        self._counting = threading.Event()
        self._ended = threading.Event()
        self._open = threading.Event()
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        self.start()
        self._counting.set()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve, and go on counting where it was."""
        self._ended.clear()
        self._open.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._open.wait(PATIENCE_S)

    def stop(self) -> None:
        """Serve nobody until it is started again."""
        self._ended.set()
        self._thread.join(PATIENCE_S)

    def pause(self) -> None:
        """Count no further."""
        self._counting.clear()
        time.sleep(5 * PERIOD_S)

    async def _run(self) -> None:
        server = Server()
        await server.init()
        server.set_endpoint(self.url)
        index = await server.register_namespace("urn:heddle:counting")
        nodes: list[Any] = []
        for name in ("Flow", "Pressure"):
            node_id = ua.NodeId.from_string(f"ns={index};s={name}")
            nodes.append(await server.nodes.objects.add_variable(node_id, name, 0.0))
        async with server:
            self._open.set()
            while not self._ended.is_set():
                if self._counting.is_set():
                    await self._count(*nodes)
                await asyncio.sleep(PERIOD_S)

    async def _count(self, flow: Any, pressure: Any) -> None:
        self._number += 1
        value = FIRST + self._number * STEP
        now: Any = datetime.now(UTC) + timedelta(seconds=self.clock_ahead_s)
        await flow.write_value(_told(value, now))
        self.told[value] = round(now.timestamp() * 1e6) * 1000
        if self._number % PRESSURE_EVERY == 0:
            await pressure.write_value(_told(pressure_at(now.timestamp()), now))


def pressure_at(at_s: float) -> float:
    """Return the pressure, bar, at a time, s since 1970 UTC."""
    second = int(at_s)
    level = PRESSURES_BAR[second // PRESSURE_LASTS_S % len(PRESSURES_BAR)]
    return level + 0.001 * (second % 2)  # what stands still cannot be learnt


def _told(value: float, now: Any) -> ua.DataValue:
    return ua.DataValue(ua.Variant(value), SourceTimestamp=now, ServerTimestamp=now)
