"""Node identifiers as a configuration writes them: ``ns=2;s=Pump1.Flow`` or ``nsu=URI;s=…``.

The index of a namespace may change whenever a server starts; its URI does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asyncua import ua
from asyncua.ua.uaerrors import UaError

from domain.errors import InvalidInput

NODE_LENGTH_MAX: Final = 4_096
_BY_URI: Final = "nsu="


def check_node(text: str) -> str:
    """Return `text` when it names a node.

    Raises
    ------
    InvalidInput
        ``node.malformed``
    """
    identifier = text
    if text.startswith(_BY_URI):
        uri, semicolon, rest = text.removeprefix(_BY_URI).partition(";")
        identifier = rest if uri and semicolon else ""
    try:
        if identifier and len(text) <= NODE_LENGTH_MAX:
            ua.NodeId.from_string(identifier)
            return text
    except (UaError, ValueError):
        pass
    raise InvalidInput(
        "node.malformed",
        f"{text!r:.120} is no node identifier",
        hint="such as ns=2;s=Pump1.Flow, ns=3;i=1001 or nsu=http://example.org/plant;s=Flow",
        value=text[:120],
    )


def resolved_node_id(text: str, namespaces: Sequence[str]) -> ua.NodeId | None:
    """Return the node that `text`, which was checked, names on a server with `namespaces`.

    None where the server does not know the namespace.
    """
    if not text.startswith(_BY_URI):
        return ua.NodeId.from_string(text)
    uri, _, identifier = text.removeprefix(_BY_URI).partition(";")
    if uri not in namespaces:
        return None
    return ua.NodeId.from_string(f"ns={namespaces.index(uri)};{identifier}")
