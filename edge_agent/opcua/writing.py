"""Writing one value to a node, in the node's own type, and reading it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.uaerrors import UaStatusCodeError

from domain.errors import CommandRejected
from domain.frames import Quality
from edge_agent.opcua.nodes import resolved_node_id
from edge_agent.opcua.values import delivered
from edge_agent.scaling import Scaling

INTEGER_RANGES: Final = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}
FLOATS: Final = (ua.VariantType.Double, ua.VariantType.Float)


@dataclass(frozen=True)
class OpcUaTarget:
    """A node that may be written, and what its numbers mean."""

    node: str
    scaling: Scaling

    @property
    def address(self) -> str:
        """The node's identifier."""
        return self.node


async def write_and_read_back(client: Client, target: OpcUaTarget, value: float) -> float:
    """Write `value`, in the target's unit, and return what the node holds then.

    Raises
    ------
    CommandRejected
        ``target.unknown``, ``target.refused``, ``target.wrong_type``, ``target.out_of_range``,
        ``target.unreadable``
    """
    node_id = resolved_node_id(target.node, await client.get_namespace_array())
    if node_id is None:
        raise CommandRejected("target.unknown", f"{target.node}: its namespace is not known")
    node = client.get_node(node_id)
    try:
        variant_type = await node.read_data_type_as_variant_type()
        variant = ua.Variant(_typed(target, value, variant_type), variant_type)
        # Without times: most servers set their own and refuse others.
        await node.write_value(ua.DataValue(variant))
    except UaStatusCodeError as error:
        raise CommandRejected("target.refused", f"{target.node}: {error}") from error
    try:
        found = delivered(await node.read_data_value())
    except UaStatusCodeError as error:
        raise CommandRejected("target.unreadable", f"{target.node}: {error}") from error
    if found.quality != Quality.GOOD:
        raise CommandRejected(
            "target.unreadable", f"{target.node} reads back as {found.message or 'not Good'}"
        )
    return float(target.scaling.apply(np.array([found.raw], np.float64))[0])


def _typed(target: OpcUaTarget, value: float, variant_type: ua.VariantType) -> float | int | bool:
    raw = target.scaling.invert(value)
    if variant_type in FLOATS:
        return raw
    if variant_type == ua.VariantType.Boolean and raw in (0.0, 1.0):
        return bool(raw)
    limits = INTEGER_RANGES.get(variant_type)
    if limits is None:
        raise CommandRejected(
            "target.wrong_type", f"{target.node} is a {variant_type.name}, no number", value=value
        )
    whole = round(raw)
    if not limits[0] <= whole <= limits[1]:
        raise CommandRejected(
            "target.out_of_range",
            f"{target.node} is a {variant_type.name} and cannot hold {whole}",
            value=whole,
            limit=limits,
        )
    return whole
