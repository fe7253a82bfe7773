"""The plant over OPC UA: an object for each pump, a variable for each channel, a set-point."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.server import Server
from asyncua.ua.status_codes import StatusCodes

from domain.frames import Quality
from edge_agent.simulated_plant.machine import CHANNELS, UNITS, Sample, SimulatedPump

NAMESPACE: Final = "urn:heddle:simulated-plant"
SETPOINT: Final = "flow_setpoint"
_STATUS: Final = {
    Quality.UNCERTAIN: StatusCodes.UncertainSensorNotAccurate,
    Quality.BAD: StatusCodes.BadSensorFailure,
    Quality.MISSING: StatusCodes.BadNoData,
}
_EUNIT_NAMESPACE: Final = "http://www.opcfoundation.org/UA/units/un/cefact"


class OpcUaPlant:
    """Serves the plant on ``opc.tcp://host:port/simulated``; set-points may be written."""

    def __init__(self, host: str, port: int) -> None:
        self._url = f"opc.tcp://{host}:{port}/simulated"
        self._server: Server | None = None
        self._nodes: dict[tuple[str, str], Node] = {}
        self._told: dict[str, float] = {}

    @property
    def address(self) -> str:
        """Where it is found."""
        return self._url

    async def open(self, pumps: Sequence[SimulatedPump]) -> None:
        """Begin to serve `pumps`."""
        # It tells of each of its hundreds of standard nodes.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        server = Server()
        await server.init()
        server.set_endpoint(self._url)
        server.set_server_name("Heddle SIMULATED plant")
        index = await server.register_namespace(NAMESPACE)
        for pump in pumps:
            await self._add(server, index, pump)
        await server.start()
        self._server = server

    async def tell(self, pump: SimulatedPump, sample: Sample) -> None:
        """Write the sample; take over what a client has written to the set-point."""
        await self._follow(pump)
        moment: Any = datetime.fromtimestamp(sample.time_ns / 1e9, UTC)
        for channel in CHANNELS:
            status = _STATUS.get(sample.qualities.get(channel, Quality.GOOD), StatusCodes.Good)
            value = ua.DataValue(
                ua.Variant(sample.values[channel], ua.VariantType.Double),
                ua.StatusCode(ua.UInt32(status)),
                moment,
            )
            await self._nodes[pump.name, channel].write_value(value)

    async def close(self) -> None:
        """Cut every connection and stop listening."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def _follow(self, pump: SimulatedPump) -> None:
        node = self._nodes[pump.name, SETPOINT]
        written = float(await node.read_value())
        if written != self._told[pump.name]:
            pump.want_flow(written)
        followed = pump.flow_setpoint_l_per_min  # another protocol may have changed it, too
        if followed != written:
            await node.write_value(followed)
        self._told[pump.name] = followed

    async def _add(self, server: Server, index: int, pump: SimulatedPump) -> None:
        parent = await server.nodes.objects.add_object(_node_id(index, pump.name), pump.name)
        for channel in CHANNELS:
            node = await parent.add_variable(
                _node_id(index, f"{pump.name}.{channel}"), f"{index}:{channel}", 0.0
            )
            await _add_unit(node, UNITS[channel])
            self._nodes[pump.name, channel] = node
        setpoint = await parent.add_variable(
            _node_id(index, f"{pump.name}.{SETPOINT}"),
            f"{index}:{SETPOINT}",
            pump.flow_setpoint_l_per_min,
        )
        await setpoint.set_writable()
        await _add_unit(setpoint, UNITS["flow"])
        self._nodes[pump.name, SETPOINT] = setpoint
        self._told[pump.name] = pump.flow_setpoint_l_per_min


def _node_id(index: int, name: str) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns={index};s={name}")


async def _add_unit(node: Node, symbol: str) -> None:
    """Tell the unit as OPC 10000-8, 5.6.3 has it."""
    information = ua.EUInformation(
        NamespaceUri=_EUNIT_NAMESPACE, UnitId=-1, DisplayName=ua.LocalizedText(symbol)
    )
    await node.add_property(ua.NodeId(), ua.QualifiedName("EngineeringUnits", 0), information)
