"""Recently decoded frames, so that several followers of the log decode each frame once.

Keyed by the hash of the canonical form: whoever decoded it, the same hash is the same frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from domain.frame_decoding import decode, decode_many
from domain.frames import Frame

READINGS_MAX: Final = 8_000_000
"""Readings kept at most; as delivered, in SI and with their times, some 160 MB."""


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
        if frame.rows is not None:
            # Once encoded and counted, a frame is asked for its readings alone.
            frame.rows[0].forget_integers()
        while self._readings > self._readings_max and len(self._frames) > 1:
            _, oldest = self._frames.popitem(last=False)
            self._readings -= oldest.reading_count

    def find(self, canonical_sha256: bytes) -> Frame | None:
        """Return the frame of that hash if it is remembered."""
        held = self._frames.get(canonical_sha256)
        if held is not None:
            self._frames.move_to_end(canonical_sha256)
        return held

    def decode_all(self, encoded: Mapping[bytes, bytes]) -> None:
        """Remember the frames of `encoded`, by hash: together they cost less than one by one.

        One that cannot be decoded is left out; whoever gets it is told what is wrong with it.
        """
        missing = [sha256 for sha256 in encoded if sha256 not in self._frames]
        decoded = decode_many([encoded[sha256] for sha256 in missing])
        for sha256, frame in zip(missing, decoded, strict=True):
            if isinstance(frame, Frame):
                self._remember(sha256, frame)

    def get(self, canonical_sha256: bytes, encoded: bytes) -> Frame:
        """Return the frame of that hash, decoded from `encoded` unless it is remembered."""
        held = self.find(canonical_sha256)
        if held is not None:
            return held
        frame = decode(encoded)
        self._remember(canonical_sha256, frame)
        return frame

    def _remember(self, canonical_sha256: bytes, frame: Frame) -> None:
        # The log vouches for the hash of what it stores; hashing again would cost as much again.
        frame.__dict__["canonical_sha256"] = canonical_sha256
        self.put(frame)


DECODED: Final = DecodedFrames()
"""This process's memory of decoded frames."""
