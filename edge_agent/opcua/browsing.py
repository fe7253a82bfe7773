"""What a server offers: the variables below a node, breadth first, each with value and unit."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from domain.errors import InvalidInput, NotFound
from edge_agent.live import BrowsedItem
from edge_agent.opcua.nodes import check_node, resolved_node_id

NODES_VISITED_MAX: Final = 20_000
SHOWN_MAX: Final = 60


async def browse(client: Client, below: str | None, count_max: int) -> AsyncIterator[BrowsedItem]:
    """Yield at most `count_max` variables below the node `below`, or below the Objects folder.

    Raises
    ------
    InvalidInput, NotFound
        ``node.malformed``, ``node.unknown``
    """
    start = await _start(client, below)
    # The server's own diagnostics are hundreds of variables that no machine delivers.
    seen: set[ua.NodeId] = {start.nodeid, ua.NodeId(ua.Int32(ObjectIds.Server))}
    waiting: deque[tuple[Node, str]] = deque([(start, "")])
    count = 0
    while waiting and len(seen) < NODES_VISITED_MAX:
        node, path = waiting.popleft()
        for child in await node.get_children_descriptions():
            if child.NodeId in seen:
                continue
            seen.add(child.NodeId)
            title = f"{path}/{child.BrowseName.Name}" if path else str(child.BrowseName.Name)
            found = client.get_node(child.NodeId)
            if child.NodeClass == ua.NodeClass.Variable:
                yield await _item(found, title)
                count += 1
                if count >= count_max:
                    return
            if child.NodeClass in (ua.NodeClass.Object, ua.NodeClass.Variable):
                waiting.append((found, title))


async def _start(client: Client, below: str | None) -> Node:
    if below is None:
        return client.get_objects_node()
    node_id = resolved_node_id(check_node(below), await client.get_namespace_array())
    if node_id is None:
        raise InvalidInput("node.malformed", f"{below!r}: the server has no such namespace")
    node = client.get_node(node_id)
    try:
        await node.read_browse_name()
    except UaStatusCodeError as error:
        raise NotFound("node.unknown", f"{below}: {error}", value=below) from error
    return node


async def _item(node: Node, title: str) -> BrowsedItem:
    address = node.nodeid.to_string()
    try:
        variant = (await node.read_data_value(raise_on_bad_status=False)).Value
    except UaStatusCodeError as error:
        return BrowsedItem(address, title, f"({error})"[:SHOWN_MAX], "")
    if variant is None or variant.Value is None:
        return BrowsedItem(address, title, "", "")
    kind = variant.VariantType.name
    if isinstance(variant.Value, list):
        return BrowsedItem(address, title, f"{len(variant.Value)} values", f"{kind}[]")
    return BrowsedItem(address, title, f"{variant.Value!s:.{SHOWN_MAX}}", kind, await _unit(node))


async def _unit(node: Node) -> str:
    """Return the engineering unit's symbol where the server tells one (OPC 10000-8, 5.6.3)."""
    try:
        found = await node.get_child("0:EngineeringUnits")
        unit = await found.read_value()
    except UaError:
        return ""
    return str(getattr(getattr(unit, "DisplayName", None), "Text", "") or "")
