"""Topics of Sparkplug B: ``spBv1.0/group/TYPE/node[/device]`` and ``spBv1.0/STATE/host``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from domain.errors import InvalidInput

NAMESPACE: Final = "spBv1.0"
ID_LENGTH_MAX: Final = 256
_RESERVED: Final = "+/#"


class MessageType(StrEnum):
    """The verbs of Sparkplug's topics, but for STATE."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    NDATA = "NDATA"
    DDATA = "DDATA"
    NCMD = "NCMD"
    DCMD = "DCMD"

    @property
    def of_device(self) -> bool:
        """Whether its topic names a device."""
        return self.value.startswith("D")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic names."""

    type: MessageType
    group: str
    node: str
    device: str | None = None

    def __str__(self) -> str:
        device = "" if self.device is None else f"/{self.device}"
        return f"{NAMESPACE}/{self.group}/{self.type}/{self.node}{device}"


def parse_topic(text: str) -> Topic | None:
    """Return what `text` names, or None where it is no topic of a node or a device."""
    tokens = text.split("/", 5)
    if len(tokens) not in (4, 5) or tokens[0] != NAMESPACE or not all(tokens):
        return None
    try:
        kind = MessageType(tokens[2])
    except ValueError:
        return None
    if kind.of_device != (len(tokens) == 5):
        return None
    return Topic(kind, tokens[1], tokens[3], tokens[4] if kind.of_device else None)


def state_topic(host_id: str) -> str:
    """Return the topic of a host application's births and deaths."""
    return f"{NAMESPACE}/STATE/{host_id}"


def check_id(kind: str, text: str) -> str:
    """Return `text`, the id of a group, a node, a device or a host.

    Raises
    ------
    InvalidInput
        ``sparkplug.id``
    """
    told = ""
    if not text or len(text) > ID_LENGTH_MAX:
        told = f"has not 1 to {ID_LENGTH_MAX} characters"
    elif any(character in _RESERVED or ord(character) < 32 for character in text):
        told = "holds '+', '/', '#' or a control character"
    elif any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        told = "is no UTF-8"
    elif kind == "group" and text == "STATE":
        told = "is the topic of host applications"
    if told:
        raise InvalidInput("sparkplug.id", f"{kind} {text!r:.120} {told}", value=text[:120])
    return text
