"""Texts among readings: gathered from frames, in time order, thinned out to where they change.

A text has neither extremes nor a mean, so there is no rollup of it: what a range holds is read
from its frames or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from domain.frames import ByteArray, Column, Frame, IntArray, Quality
from eventlog.envelope import RecordedEvent


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of one channel as parallel columns, in time order.

    Parameters
    ----------
    times_ns : int64, shape (n,), ns since 1970 UTC
    texts : objects, shape (n,)
    qualities : uint8, shape (n,), `Quality`
    """

    times_ns: IntArray
    texts: Column
    qualities: ByteArray

    def __len__(self) -> int:
        return len(self.times_ns)

    def take(self, chosen: IntArray) -> Texts:
        """Return the readings at the indexes `chosen`, ascending."""
        return Texts(self.times_ns[chosen], self.texts[chosen], self.qualities[chosen])

    def thinned(self, points_max: int) -> Texts:
        """Return at most `points_max` readings: where the text changes, and the last one.

        Of more changes than that the latest stay.
        """
        if len(self) <= points_max:
            return self
        changes = np.flatnonzero(np.r_[True, self.texts[1:] != self.texts[:-1]])
        chosen = np.union1d(changes, [len(self) - 1])
        return self.take(chosen[-points_max:])


class TextParts:
    """The texts of some channels, as the frames of a range bring them."""

    def __init__(self, channels: Iterable[str]) -> None:
        self._parts: dict[str, list[tuple[int, Texts]]] = {channel: [] for channel in channels}

    def add(self, frames: Sequence[Frame], events: Sequence[RecordedEvent]) -> None:
        """Add the texts of `frames`, which `events` brought."""
        for frame, event in zip(frames, events, strict=True):
            for index in frame.text_channels:
                found = self._parts.get(frame.header.channels[index].name)
                if found is not None:
                    times = frame.channel_times_ns(index)
                    texts = Texts(times, frame.values[index], frame.qualities[index])
                    found.append((event.position, texts))

    def joined(self, channel: str, start_ns: int, end_ns: int, *, with_bad: bool) -> Texts | None:
        """Return the texts of `channel` within a range, both ends included; None without any.

        Of readings of one time the one at the highest position counts.
        """
        parts = self._parts[channel]
        if not parts:
            return None
        positions = np.repeat([position for position, _ in parts], [len(part) for _, part in parts])
        whole = Texts(
            np.concatenate([part.times_ns for _, part in parts]),
            np.concatenate([part.texts for _, part in parts]),
            np.concatenate([part.qualities for _, part in parts]),
        )
        order = np.lexsort((positions, whole.times_ns))
        ordered = whole.times_ns[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        worst = Quality.BAD if with_bad else Quality.UNCERTAIN
        wanted = last & (ordered >= start_ns) & (ordered <= end_ns)
        wanted &= whole.qualities[order] <= worst
        return whole.take(order[wanted])
