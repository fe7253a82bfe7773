"""A controller that counts, in a thread of its own: which reading is which can be told for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Any, Self

from asyncua import ua
from asyncua.server.server import Server

from tests.end_to_end.processes import PATIENCE_S, free_port

PERIOD_S = 0.02
FIRST = 10.0
STEP = 0.0009765625
"""A power of two, so that every count is exact as it is told."""


class CountingPlc:
    """An OPC UA server whose flow grows by `STEP` every `PERIOD_S`, while it is counting."""

    def __init__(self) -> None:
        self.url = f"opc.tcp://127.0.0.1:{free_port()}/plant"
        self.told: dict[float, int] = {}
        self._counting = threading.Event()
        self._ended = threading.Event()
        self._open = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._open.wait(PATIENCE_S)
        self._counting.set()
        return self

    def __exit__(self, *_: object) -> None:
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
        node_id = ua.NodeId.from_string(f"ns={index};s=Flow")
        node: Any = await server.nodes.objects.add_variable(node_id, "Flow", 0.0)
        async with server:
            self._open.set()
            number = 0
            while not self._ended.is_set():
                if self._counting.is_set():
                    number += 1
                    value = FIRST + number * STEP
                    now: Any = datetime.now(UTC)
                    await node.write_value(
                        ua.DataValue(ua.Variant(value), SourceTimestamp=now, ServerTimestamp=now)
                    )
                    self.told[value] = round(now.timestamp() * 1e6) * 1000
                await asyncio.sleep(PERIOD_S)
