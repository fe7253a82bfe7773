"""Batches of frames: the body an edge agent sends and the ingest endpoint reads.

::

    "HDB" u8 version=1 | u32 frame count | frame count times:
        u32 frame length | u32 CRC-32 of the frame | 16 bytes event id | frame

Integers are little endian. A damaged frame is told from its neighbours by its checksum; what
follows a broken length cannot be told apart any more and is reported as one truncated rest.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from domain.errors import InvalidInput, MalformedFrame
from domain.frames import FRAME_BYTES_MAX

BATCH_MAGIC: Final = b"HDB"
BATCH_VERSION: Final = 1
BATCH_MEDIA_TYPE: Final = "application/vnd.heddle.frames"
BATCH_FRAMES_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024

_HEADER = struct.Struct("<3sBI")
_ITEM = struct.Struct("<II16s")


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One frame of a batch, still encoded, with the event id its agent gave it."""

    event_id: uuid.UUID
    encoded: bytes


def encode_batch(items: Iterable[BatchItem]) -> bytes:
    """Return the body that carries `items`, at most `BATCH_FRAMES_MAX` of them."""
    parts = [
        part
        for item in items
        for part in (
            _ITEM.pack(len(item.encoded), zlib.crc32(item.encoded), item.event_id.bytes),
            item.encoded,
        )
    ]
    return b"".join([_HEADER.pack(BATCH_MAGIC, BATCH_VERSION, len(parts) // 2), *parts])


def encoded_size(frame_bytes: int) -> int:
    """Return how many bytes of a batch a frame of `frame_bytes` takes."""
    return _ITEM.size + frame_bytes


def decode_batch(body: bytes) -> Iterator[BatchItem | MalformedFrame]:
    """Yield each frame of `body` in order, or the error that stands in its place.

    Raises
    ------
    InvalidInput
        ``batch.malformed`` or ``batch.version`` when `body` does not start as a batch does,
        ``batch.too_many_frames`` when it declares more than `BATCH_FRAMES_MAX`.
    """
    if len(body) < _HEADER.size or body[:3] != BATCH_MAGIC:
        raise InvalidInput(
            "batch.malformed",
            f"a body of {len(body)} bytes does not start as a batch of frames does",
            hint="see docs/frame-format.md",
        )
    _, version, count = _HEADER.unpack_from(body)
    if version != BATCH_VERSION:
        raise InvalidInput(
            "batch.version",
            f"batch version {version} is not known; this reader knows {BATCH_VERSION}",
            value=version,
            limit=BATCH_VERSION,
        )
    if not 1 <= count <= BATCH_FRAMES_MAX:
        raise InvalidInput(
            "batch.too_many_frames",
            f"a batch carries 1 to {BATCH_FRAMES_MAX} frames, not {count}",
            value=count,
            limit=BATCH_FRAMES_MAX,
        )
    return _items(body, count)


def _items(body: bytes, count: int) -> Iterator[BatchItem | MalformedFrame]:
    at = _HEADER.size
    for index in range(count):
        if at + _ITEM.size > len(body):
            yield _truncated(count - index)
            return
        length, checksum, event_id = _ITEM.unpack_from(body, at)
        at += _ITEM.size
        if length > FRAME_BYTES_MAX or at + length > len(body):
            yield _truncated(count - index)
            return
        encoded = body[at : at + length]
        at += length
        if zlib.crc32(encoded) != checksum:
            yield MalformedFrame(
                "frame.checksum",
                f"frame {index} of the batch does not match its checksum",
                hint="send it again",
                value=index,
            )
        else:
            yield BatchItem(uuid.UUID(bytes=event_id), encoded)
    if at != len(body):
        yield MalformedFrame(
            "batch.trailing_bytes", f"{len(body) - at} bytes follow the last frame of the batch"
        )


def _truncated(missing: int) -> MalformedFrame:
    return MalformedFrame(
        "batch.truncated",
        f"the body ends before the last {missing} frames of the batch",
        hint="send those frames again",
        value=missing,
    )
