"""Which frames a source has put lately, and where they stand in the ledger once they do.

In memory: what a model has seen of a source it has seen since the process started, so whoever asks
for the frames of a model's input asks for frames of this process. Frames of sources that no model
judges are not remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final

from edge_agent.outbox.records import NewFrame, Priority

FRAMES_MAX: Final = 16_384
"""Frames of a source that are remembered; older ones are as if they had not been."""


class RecentFrames:
    """Remembers frames by source: their numbers, until when they reach, where they stand."""

    def __init__(self) -> None:
        self._of_source: dict[str, deque[tuple[int, int]]] = {}
        self._spans_ns: dict[str, int] = {}
        self._positions: dict[int, int] = {}

    def watch(self, spans_ns: Mapping[str, int]) -> None:
        """Remember the frames of these sources, by name, for so long; and of no others."""
        self._spans_ns = {
            source: max(span_ns, self._spans_ns.get(source, 0))
            for source, span_ns in spans_ns.items()
        }
        self._of_source = {
            source: self._of_source.get(source, deque()) for source in self._spans_ns
        }
        self._forget()

    def put(self, source: str, frames: Sequence[NewFrame]) -> None:
        """Remember `frames` of `source`; waveforms are no input of a model."""
        kept = self._of_source.get(source)
        if kept is None or not frames:
            return
        # Numbers that were given before belong to a commit that failed.
        while kept and kept[-1][0] >= frames[0].sequence:
            kept.pop()
        for frame in frames:
            if frame.priority is not Priority.WAVEFORM:
                kept.append((frame.sequence, frame.to_ns))
        oldest_ns = frames[-1].to_ns - self._spans_ns[source]
        while kept and (len(kept) > FRAMES_MAX or kept[0][1] < oldest_ns):
            self._positions.pop(kept.popleft()[0], None)

    def stored(self, positions: Mapping[int, int]) -> None:
        """Remember where frames stand in the ledger; those of nobody's interest are left out."""
        if not self._of_source:
            return
        self._positions.update(positions)
        # Twice as many as are of interest, and a few: then the others have to go.
        if len(self._positions) > 1_000 + 2 * sum(map(len, self._of_source.values())):
            self._forget()

    def _forget(self) -> None:
        known = {number for kept in self._of_source.values() for number, _ in kept}
        self._positions = {n: at for n, at in self._positions.items() if n in known}

    def since(self, source: str, from_ns: int) -> list[int]:
        """Return the numbers of the latest frames of `source` that reach beyond `from_ns`.

        In order, without a gap: an earlier frame that reaches beyond it, after one that does not,
        is of a clock that was set.
        """
        kept = self._of_source.get(source, ())
        if kept:
            # Another version of a model may look further back from now on.
            self._spans_ns[source] = max(self._spans_ns[source], 2 * (kept[-1][1] - from_ns))
        latest = reversed(kept)
        return [n for n, _ in takewhile(lambda one: one[1] >= from_ns, latest)][::-1]

    def position(self, sequence: int) -> int | None:
        """Return where a frame stands, None while it is not acknowledged or no longer known."""
        return self._positions.get(sequence)
