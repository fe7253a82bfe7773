"""What of live sources has to go when not all can be kept, and in which order.

Waveforms first, the oldest of them; then frames that the server has rejected; then live frames by
the order declared for their sources, the oldest first. Never alerts, and never recordings, which
wait instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from edge_agent.outbox.records import Loss, Priority
from edge_agent.outbox.store import Store

FULL: Final = "outbox.full"
EXPIRED: Final = "outbox.expired"
DROP_CLASS_NEVER: Final = 0
DROP_RANK_MAX: Final = 1_000
WAVEFORM_CLASS: Final = 2 * DROP_RANK_MAX
DROPPED_AT_ONCE: Final = 256

Dropped = Callable[[str, int, Loss], None]
"""Told of each frame that goes: its source, its bytes, and the loss that it is."""


def drop_class(priority: Priority, rank: int) -> int:
    """Return how early a live frame goes: the higher, the sooner; 0 never.

    Parameters
    ----------
    rank : of its source, 0 to `DROP_RANK_MAX` - 1
    """
    match priority:
        case Priority.ALERT:
            return DROP_CLASS_NEVER
        case Priority.WAVEFORM:
            return WAVEFORM_CLASS + rank
        case Priority.LIVE:
            return 1 + rank


class Drops:
    """Drops frames of an outbox. Its methods are parts of the outbox's transactions."""

    def __init__(self, store: Store, dropped: Dropped) -> None:
        self._store = store
        self._dropped = dropped
        self.spared: frozenset[int] = frozenset()

    def drop_bytes(self, size: int) -> None:
        """Drop frames of at least `size` bytes, or all that may go."""
        spared = json.dumps(sorted(self.spared))
        for table, least in (("pending", WAVEFORM_CLASS), ("rejected", 1), ("pending", 1)):
            while size > 0:
                found = self._store.rows(
                    f"SELECT sequence, length(frame) FROM {table} WHERE drop_class >= ? "
                    "AND drop_class > 0 AND sequence NOT IN (SELECT value FROM json_each(?)) "
                    "ORDER BY drop_class DESC, sequence LIMIT ?",
                    least,
                    spared,
                    DROPPED_AT_ONCE,
                )
                if not found:
                    break
                for sequence, length in found:
                    self._drop(table, sequence, FULL)
                    size -= length
                    if size <= 0:
                        return

    def drop_older(self, before_s: float, count_max: int) -> None:
        """Drop at most `count_max` frames that were kept before `before_s` of the run."""
        for table in ("pending", "rejected"):
            # In the order of their numbers they are in the order of their age.
            oldest = self._store.rows(
                f"SELECT sequence, kept_at_s FROM {table} INDEXED BY {table}_to_expire "
                "WHERE drop_class > 0 ORDER BY sequence LIMIT ?",
                count_max,
            )
            for sequence, kept_at_s in oldest:
                if kept_at_s >= before_s:
                    break
                if sequence not in self.spared:
                    self._drop(table, sequence, EXPIRED)

    def _drop(self, table: str, sequence: int, reason: str) -> None:
        for source, size, from_ns, to_ns, count in self._store.rows(
            f"DELETE FROM {table} WHERE sequence = ? "
            "RETURNING source, length(frame), from_ns, to_ns, reading_count",
            sequence,
        ):
            self._dropped(source, size, Loss(reason, from_ns, to_ns, count))
