"""Which frames go into the next batch: the oldest, but what is fresh does not wait for them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Final

from domain.frame_batches import encoded_size
from edge_agent.outbox.records import PendingFrame
from edge_agent.outbox.store import Store

FRESH_SHARE: Final = 0.75
"""Of a batch that fresh frames may fill while older ones wait: the rest is theirs."""
LAST_SEQUENCE: Final = 2**63 - 1


def select_frames(
    store: Store,
    frames_max: int,
    bytes_max: int,
    held: Collection[str],
    fresh_from: int | None,
) -> list[PendingFrame]:
    """Return what `Outbox.pending` says."""
    if fresh_from is None:
        return _frames(store, (0, LAST_SEQUENCE), frames_max, bytes_max, held)
    share = max(1, int(frames_max * FRESH_SHARE)), int(bytes_max * FRESH_SHARE)
    fresh = _frames(store, (fresh_from, LAST_SEQUENCE), *share, held)
    left = bytes_max - sum(encoded_size(len(frame.encoded)) for frame in fresh)
    older = _frames(
        store, (0, fresh_from - 1), frames_max - len(fresh), left, held, may_be_none=bool(fresh)
    )
    if not older and fresh:
        return _frames(store, (fresh_from, LAST_SEQUENCE), frames_max, bytes_max, held)
    return older + fresh


def _frames(
    store: Store,
    numbers: tuple[int, int],
    frames_max: int,
    bytes_max: int,
    held: Collection[str],
    *,
    may_be_none: bool = False,
) -> list[PendingFrame]:
    """Return the oldest frames of `numbers`, from the first to the last."""
    found: list[PendingFrame] = []
    left = bytes_max
    where = "sequence BETWEEN ? AND ?"
    arguments: tuple[object, ...] = numbers
    if held:
        where = "sequence IN (SELECT value FROM json_each(?))"
        arguments = (json.dumps(_sequences(store, numbers, frames_max, held)),)
    rows = store.each(
        f"SELECT sequence, event_id, source, frame FROM pending WHERE {where} "
        "ORDER BY sequence LIMIT ?",
        *arguments,
        frames_max,
    )
    for sequence, event_id, source, encoded in rows:
        left -= encoded_size(len(encoded))
        if left < 0 and (found or may_be_none):
            break
        found.append(PendingFrame(sequence, uuid.UUID(bytes=event_id), source, encoded))
    return found


def _sequences(
    store: Store, numbers: tuple[int, int], count: int, held: Collection[str]
) -> list[int]:
    sequences = [
        sequence
        for (source,) in store.rows("SELECT name FROM source")
        if source not in held
        for (sequence,) in store.rows(
            "SELECT sequence FROM pending WHERE source = ? AND sequence BETWEEN ? AND ? "
            "ORDER BY sequence LIMIT ?",
            source,
            *numbers,
            count,
        )
    ]
    return sorted(sequences)[:count]
