"""Recently decoded frames, so that several followers of the log decode each frame once.

Keyed by the hash of the canonical form: whoever decoded it, the same hash is the same frame.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from domain.frames import Frame, decode

READINGS_MAX: Final = 1_000_000
"""Readings kept at most; as delivered, in SI and with their times, some 30 MB."""


class DecodedFrames:
    """A bounded memory of frames, the least recently used leaving first."""

    def __init__(self, readings_max: int = READINGS_MAX) -> None:
        self._frames: OrderedDict[bytes, Frame] = OrderedDict()
        self._readings = 0
        self._readings_max = readings_max

    def put(self, frame: Frame) -> None:
        """Remember `frame`, whose hash is known to be right."""
        held = self._frames.pop(frame.canonical_sha256, None)
        if held is not None:
            self._readings -= held.reading_count
        self._frames[frame.canonical_sha256] = frame
        self._readings += frame.reading_count
        while self._readings > self._readings_max and len(self._frames) > 1:
            _, oldest = self._frames.popitem(last=False)
            self._readings -= oldest.reading_count

    def get(self, canonical_sha256: bytes, encoded: bytes) -> Frame:
        """Return the frame of that hash, decoded from `encoded` unless it is remembered."""
        held = self._frames.get(canonical_sha256)
        if held is not None:
            self._frames.move_to_end(canonical_sha256)
            return held
        frame = decode(encoded)
        # The log vouches for the hash of what it stores; hashing again would cost as much again.
        frame.__dict__["canonical_sha256"] = canonical_sha256
        self.put(frame)
        return frame


DECODED: Final = DecodedFrames()
"""This process's memory of decoded frames."""
