"""Bundles of traces with one thing altered, wherever there is something to alter."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where in a JSON document its plain values are."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in items:
            yield from places(value, (*path, key))
    else:
        yield path


def with_another(document: Any, place: tuple[Any, ...]) -> Any:
    """Return a copy of `document` with another value, of its type if it can be, at `place`."""
    if not place:
        return another(document)
    changed = copy.copy(document)
    changed[place[0]] = with_another(document[place[0]], place[1:])
    return changed


def another(value: Any) -> Any:
    match value:
        case None:
            return "1"
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if value:
            middle = len(value) // 2
            return value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :]
        case _:
            return "A"


LINES: Final = {
    "header": "format",
    "events": "entry",
    "things": "nodes",
    "links": "edges",
    "files": "document",
    "signature": "signature",
}
"""What a line of each kind begins with."""


def variants(bundle: Path, kind: str, *, names: bool) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """Yield the bundle with one value, or one name of a value, of lines of `kind` altered.

    Each with where that is: the number of the line, and the place in its document.
    """
    lines = bundle.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        document = json.loads(line)
        if next(iter(document)) != LINES[kind]:
            continue
        changed = {place: with_another(document, place) for place in places(document)}
        if names:
            changed = {
                (name,): {another(key) if key == name else key: document[key] for key in document}
                for name in document
            }
        for place, other in changed.items():
            written = json.dumps(other, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            yield (
                (number + 1, *place),
                b"".join([*lines[:number], written, *lines[number + 1 :]]),
            )
