"""Topics and topic filters of MQTT, compared level by level.

References
----------
OASIS, MQTT Version 5.0 (2019), 4.7; the same in MQTT Version 3.1.1 (2014), 4.7.
"""

from __future__ import annotations

from typing import Final

from domain.errors import InvalidInput

TOPIC_BYTES_MAX: Final = 65_535
LEVELS_MAX: Final = 64
"""Deeper topics than any plant's; a deeper one is nobody's."""


def check_filter(text: str) -> tuple[str, ...]:
    """Return the levels of the topic filter `text`.

    Raises
    ------
    InvalidInput
        ``mapping.topic``
    """
    levels = text.split("/")
    told = ""
    if not text or len(text.encode()) > TOPIC_BYTES_MAX or "\x00" in text:
        told = "is empty, too long, or holds a zero"
    elif len(levels) > LEVELS_MAX:
        told = f"has more than {LEVELS_MAX} levels"
    elif levels[0] == "$share":
        told = "is shared with other clients, and a reading shared is a reading lost"
    elif "#" in text and (levels[-1] != "#" or text.count("#") > 1):
        told = "has a '#' that is not its last level"
    elif any("+" in level and level != "+" for level in levels):
        told = "has a '+' that is not a whole level"
    if told:
        hint = "such as plant/pump-7/#, or plant/+/flow"
        raise InvalidInput("mapping.topic", f"topic filter {text!r:.120} {told}", hint=hint)
    return tuple(levels)


def matches(levels: tuple[str, ...], topic: str) -> bool:
    """Return whether the filter of `levels` matches `topic`."""
    if topic.startswith("$") and levels[0] in ("+", "#"):
        return False
    if len(topic) > TOPIC_BYTES_MAX or topic.count("/") >= LEVELS_MAX:
        return False
    found = topic.split("/")
    if levels[-1] == "#":
        # `plant/#` matches `plant` as well.
        wanted = levels[:-1]
        return len(found) >= len(wanted) and all(
            level in ("+", token) for level, token in zip(wanted, found, strict=False)
        )
    return len(found) == len(levels) and all(
        level in ("+", token) for level, token in zip(levels, found, strict=True)
    )
