"""JSON text of rows that were told before: cut once, and joined to every answer that tells them.

Where a selection reads nothing but a row, its text changes when the row does. It is kept beside the
row that it was made of, and told again as long as the row that is read equals that one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

import orjson

TEXT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of all texts that a server keeps together."""

ENTRY_BYTES: Final = 500
"""What a kept text takes beside itself, at least: its row, and where it is found."""

Encode = Callable[[object], bytes]


class KeptTexts:
    """What is kept of all selections; beyond the bound all of it goes, and is made again."""

    def __init__(self, encode: Encode, bytes_max: int = TEXT_BYTES_MAX) -> None:
        self.encode = encode
        self._bytes_max = bytes_max
        self._selections: WeakSet[SelectionTexts] = WeakSet()
        self.bytes_kept = 0

    def selection(self) -> SelectionTexts:
        """Return room for the texts of one selection."""
        made = SelectionTexts(self)
        self._selections.add(made)
        return made

    def take(self, size: int) -> None:
        """Count a text of `size` bytes that is about to be kept."""
        self.bytes_kept += size + ENTRY_BYTES
        if self.bytes_kept > self._bytes_max:
            for selection in self._selections:
                selection.forget()
            self.bytes_kept = size + ENTRY_BYTES


class SelectionTexts:
    """The texts of one selection, by the key of their row."""

    __slots__ = ("__weakref__", "_by_key", "_kept")

    def __init__(self, kept: KeptTexts) -> None:
        self._kept = kept
        self._by_key: dict[object, tuple[object, orjson.Fragment]] = {}

    def forget(self) -> None:
        """Keep nothing."""
        self._by_key.clear()

    def of(self, rows: Any, key: str, make: Callable[[Any], object]) -> list[orjson.Fragment]:
        """Return the text of each of `rows`.

        Parameters
        ----------
        key : attribute of a row that tells it from the others
        make : returns what is told of a row, and looks at nothing but the row
        """
        by_key = self._by_key
        texts = []
        for row in rows:
            name = getattr(row, key)
            held = by_key.get(name)
            if held is None or held[0] != row:
                text = self._kept.encode(make(row))
                self._kept.take(len(text))
                held = by_key[name] = (row, orjson.Fragment(text))
            texts.append(held[1])
        return texts
