"""The simulated plant as a process: made from settings, served until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

from domain.errors import Unavailable
from edge_agent.simulated_plant.faults import read_faults
from edge_agent.simulated_plant.machine import CHANNELS, SimulatedPump
from edge_agent.simulated_plant.plant import PlantServer, SimulatedPlant
from edge_agent.waiting import end_all, first_ended


@dataclass(frozen=True, kw_only=True)
class PlantSettings:
    """What plant is served where; a port of 0, or no broker, leaves its protocol out."""

    pump_count: int
    seed: int
    period_s: float
    host: str
    opcua_port: int
    modbus_port: int
    broker_url: str = ""
    faults: tuple[str, ...] = ()
    repeat_s: float = 0.0


def pump_name(number: int) -> str:
    """Return the name of a pump, numbered from 1."""
    return f"simulated-pump-{number}"


async def serve_plant(settings: PlantSettings, say: Callable[[str], None]) -> None:
    """Serve the plant until SIGINT or SIGTERM; `say` is told when it is there.

    Raises
    ------
    InvalidInput
        ``fault.malformed``
    Unavailable
        ``plant.address_in_use``
    """
    faults = read_faults(settings.faults, CHANNELS, settings.repeat_s)
    pumps = [
        SimulatedPump(pump_name(number), settings.seed + number, settings.period_s, faults)
        for number in range(1, settings.pump_count + 1)
    ]
    servers = _servers(settings)
    plant = SimulatedPlant(pumps, servers, faults, settings.period_s)
    try:
        await plant.open()
    except (OSError, RuntimeError) as error:
        raise Unavailable("plant.address_in_use", f"the plant cannot listen: {error}") from error
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(plant.run())
    stopped = asyncio.create_task(stop.wait())
    try:
        for server in servers:
            say(f"SIMULATED plant on {server.address}")
        await first_ended((running, stopped))
    finally:
        await end_all((running, stopped))
        await plant.close()


def _servers(settings: PlantSettings) -> list[PlantServer]:
    """Return the servers that are asked for; each protocol's library is imported for its own."""
    servers: list[PlantServer] = []
    if settings.opcua_port:
        from edge_agent.simulated_plant.opcua_server import OpcUaPlant

        servers.append(OpcUaPlant(settings.host, settings.opcua_port))
    if settings.modbus_port:
        from edge_agent.simulated_plant.modbus_server import ModbusPlant

        servers.append(ModbusPlant(settings.host, settings.modbus_port))
    if settings.broker_url:
        from edge_agent.mqtt.client import Broker, broker_place
        from edge_agent.simulated_plant.mqtt_clients import JsonPlant, SparkplugPlant

        _, host, port = broker_place(settings.broker_url)
        broker = Broker(host=host, port=port, client_id="simulated-plant")
        servers += [SparkplugPlant(broker), JsonPlant(broker)]
    return servers
