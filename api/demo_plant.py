"""The demo's simulated plant: its pumps, and how an edge agent reads and sets them.

The first pump is read over OPC UA and its flow may be set: what is desired in GraphQL changes the
plant. The second is read over Modbus TCP, the third over MQTT by Sparkplug B, where there is a
broker.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

ASSET_TYPE: Final = "skab-pump-loop"
OPCUA_PUMP: Final = ("simulated-pump-1", "SIMULATED pump, read over OPC UA; its flow can be set")
MODBUS_PUMP: Final = ("simulated-pump-2", "SIMULATED pump, read over Modbus TCP")
SPARKPLUG_PUMP: Final = ("simulated-pump-3", "SIMULATED pump, read over MQTT (Sparkplug B)")
NAMESPACE: Final = "urn:heddle:simulated-plant"
SPARKPLUG_GROUP: Final = "simulated-plant"
SPARKPLUG_NODE: Final = "edge-1"
LIBRARIES: Final = ("asyncua", "paho", "pymodbus")
CHANNELS: Final = {
    "accelerometer_1": "g_n",
    "accelerometer_2": "g_n",
    "motor_current": "A",
    "pressure": "bar",
    "housing_temperature": "degC",
    "fluid_temperature": "degC",
    "supply_voltage": "V",
    "flow": "l/min",
}
"""In the order in which the plant has them, each with the unit in which it tells it."""
FAULTS: Final = ("valve@600+300", "stuck:pressure@300+60", "spike:flow@420+2", "drop@480+10")
FAULTS_EVERY_S: Final = 1_200


@dataclass(frozen=True)
class PlantPorts:
    """Where the plant is served on this machine; `broker` is that of MQTT, 0: there is none."""

    opcua: int
    modbus: int
    broker: int = 0

    @property
    def pumps(self) -> list[tuple[str, str]]:
        """The names and titles of the pumps that can be read."""
        found = [OPCUA_PUMP, MODBUS_PUMP]
        return [*found, SPARKPLUG_PUMP] if self.broker else found

    @classmethod
    def free(cls, *, with_broker: bool = False) -> PlantPorts:
        """Return ports that nobody uses just now."""
        opcua, modbus, broker = free_ports(3)
        return cls(opcua, modbus, broker if with_broker else 0)


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody uses just now, all different."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]


def protocols_installed() -> bool:
    """Return whether the protocols' libraries (``heddle[edge]``) are installed."""
    return all(find_spec(library) is not None for library in LIBRARIES)


def plant_arguments(ports: PlantPorts) -> list[str]:
    """Return how ``heddle`` is called for the plant."""
    faults = [f"--fault={fault}" for fault in FAULTS]
    broker = [f"--broker=mqtt://127.0.0.1:{ports.broker}"] if ports.broker else []
    return [
        "plant",
        f"--pumps={len(ports.pumps)}",
        "--seed=1",
        "--period=0.2",
        f"--opcua={ports.opcua}",
        f"--modbus={ports.modbus}",
        f"--repeat={FAULTS_EVERY_S}",
        *broker,
        *faults,
    ]


def plant_configuration(ports: PlantPorts, verifier_key: str) -> dict[str, Any]:
    """Return what an agent's configuration says of the plant: connections, sources, set-points.

    Parameters
    ----------
    verifier_key : of the ledger, whose directives the agent obeys
    """
    window = {"seconds": 2, "readings": 1000}
    node = f"nsu={NAMESPACE};s={OPCUA_PUMP[0]}"
    declared: dict[str, Any] = {
        "connections": {
            "plc": {"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{ports.opcua}/simulated"},
            "drives": {"kind": "modbus-tcp", "host": "127.0.0.1", "port": ports.modbus},
        },
        "sources": [
            {
                "kind": "opcua",
                "connection": "plc",
                "asset": OPCUA_PUMP[0],
                "asset_type": ASSET_TYPE,
                "window": window,
                "channels": {
                    channel: {"node": f"{node}.{channel}", "unit": unit}
                    for channel, unit in CHANNELS.items()
                },
            },
            {
                "kind": "modbus-tcp",
                "connection": "drives",
                "asset": MODBUS_PUMP[0],
                "asset_type": ASSET_TYPE,
                "device_id": 2,
                "period_ms": 200,
                "window": window,
                "channels": {
                    channel: {
                        "table": "input",
                        "address": 2 * place,
                        "type": "float32",
                        "unit": unit,
                    }
                    for place, (channel, unit) in enumerate(CHANNELS.items())
                },
            },
        ],
        "directives": {"keys": [verifier_key]},
        "setpoints": [
            {
                "asset": OPCUA_PUMP[0],
                "asset_type": ASSET_TYPE,
                "setpoint": "flow",
                "connection": "plc",
                "target": {"node": f"{node}.flow_setpoint"},
                "unit": "l/min",
                "mode": "closed-loop",
                "range": {"min": 20, "max": 45},
                "tolerance": 0.01,
                "interlocks": [
                    {"channel": "supply_voltage", "unit": "V", "min": 180, "age_s_max": 60}
                ],
            }
        ],
    }
    if ports.broker:
        broker = f"mqtt://127.0.0.1:{ports.broker}"
        declared["connections"]["cell"] = {"kind": "sparkplug", "url": broker}
        declared["sources"].append(
            {
                "kind": "sparkplug",
                "connection": "cell",
                "asset": SPARKPLUG_PUMP[0],
                "asset_type": ASSET_TYPE,
                "group": SPARKPLUG_GROUP,
                "node": SPARKPLUG_NODE,
                "device": SPARKPLUG_PUMP[0],
                "window": window,
                "channels": {
                    channel: {"metric": channel, "unit": unit} for channel, unit in CHANNELS.items()
                },
            }
        )
    return declared
