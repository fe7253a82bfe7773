"""The demo's simulated plant: its pumps, and how an edge agent reads and sets them.

The first pump is read over OPC UA and its flow may be set: what is desired in GraphQL changes the
plant. The second is read over Modbus TCP.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

ASSET_TYPE: Final = "skab-pump-loop"
OPCUA_PUMP: Final = ("simulated-pump-1", "SIMULATED pump, read over OPC UA; its flow can be set")
MODBUS_PUMP: Final = ("simulated-pump-2", "SIMULATED pump, read over Modbus TCP")
NAMESPACE: Final = "urn:heddle:simulated-plant"
LIBRARIES: Final = ("asyncua", "pymodbus")
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
    """Where the plant is served on this machine."""

    opcua: int
    modbus: int

    @classmethod
    def free(cls) -> PlantPorts:
        """Return ports that nobody uses just now."""
        with socket.socket() as first, socket.socket() as second:
            for opened in (first, second):
                opened.bind(("127.0.0.1", 0))
            return cls(first.getsockname()[1], second.getsockname()[1])


def protocols_installed() -> bool:
    """Return whether the protocols' libraries (``heddle[edge]``) are installed."""
    return all(find_spec(library) is not None for library in LIBRARIES)


def plant_arguments(ports: PlantPorts) -> list[str]:
    """Return how ``heddle`` is called for the plant."""
    faults = [f"--fault={fault}" for fault in FAULTS]
    return [
        "plant",
        "--pumps=2",
        "--seed=1",
        "--period=0.2",
        f"--opcua={ports.opcua}",
        f"--modbus={ports.modbus}",
        f"--repeat={FAULTS_EVERY_S}",
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
    return {
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
