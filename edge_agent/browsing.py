"""What a declared connection offers, and the lines of a configuration that would map it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from domain.errors import NotFound, Unavailable
from domain.units import UNITS
from edge_agent.configuration import read_connections
from edge_agent.live import BrowsedItem


async def browse_connection(
    file: Path, name: str, below: str | None, count_max: int, seconds_max: float
) -> tuple[str, list[BrowsedItem]]:
    """Return the kind of the connection called `name`, and what it offers below an address.

    Its sources need not be declared yet, nor be right.

    Raises
    ------
    ConfigurationFaults
        what is wrong with the connections
    NotFound
        ``connection.unknown``
    ConnectionLost
    Unavailable
        ``connection.slow``: nothing came within `seconds_max`
    """
    connections = {found.name: found for found in read_connections(file)}
    if name not in connections:
        raise NotFound(
            "connection.unknown",
            f"{file} declares no connection {name!r}",
            hint=f"its connections: {', '.join(connections)}" if connections else "",
            value=name,
        )
    found: list[BrowsedItem] = []
    try:
        async with asyncio.timeout(seconds_max):
            async for item in connections[name].connection.browse(below, count_max):
                found.append(item)  # noqa: PERF401 (what came before the time is over counts)
    except TimeoutError:
        if not found:
            told = f"{name} has shown nothing within {seconds_max:g} s"
            raise Unavailable("connection.slow", told) from None
    return connections[name].kind, found


def channels_to_paste(kind: str, items: Sequence[BrowsedItem]) -> str:
    """Return `items` as YAML for ``channels``; names and unknown units are to be filled in."""
    devices = [item for item in items if kind == "bacnet" and item.value.startswith("device,")]
    if devices:
        found = (f"# {one.address}  {_one_line(one.title)} ({one.value})\n" for one in devices)
        return "# devices; browse one of them with --below\n" + "".join(found)
    lines = ["channels:\n"]
    for number, item in enumerate(items, start=1):
        unit = item.unit if item.unit in UNITS else '"?"'
        told = " ".join(part for part in (item.title, "=", item.value, item.value_type) if part)
        native = f", tells its unit as {item.unit}" if item.unit and item.unit not in UNITS else ""
        mapping = f"{{{_address(kind, item.address)}, unit: {unit}}}"
        lines.append(f'  "?{number}": {mapping}  # {_one_line(told)}{native}\n')
    return "".join(lines)


def _address(kind: str, address: str) -> str:
    """Return the keys by which a mapping of `kind` names the place."""
    first, _, second = (json.dumps(part, ensure_ascii=False) for part in address.rpartition("#"))
    match kind:
        case "modbus-tcp" | "modbus-rtu":
            table, _, number = address.partition(":")
            return f"table: {table}, address: {number}"
        case "mqtt":
            return f"topic: {first}, field: {second}"
        case "sparkplug":
            return f"metric: {second}"
        case "bacnet":
            return f"object: {json.dumps(address)}"
        case _:
            return f"node: {json.dumps(address, ensure_ascii=False)}"


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "·" for character in text)[:200]
