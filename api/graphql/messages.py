"""Messages of subscriptions as bytes, made once for all who get them.

A message over a WebSocket differs from client to client by the id of the operation alone. So
frames are made with a mark in its place, and copied with the id; a frame of graphql-sse is the
same for everybody.

References
----------
RFC 6455, section 5.2, "Base Framing Protocol".
GraphQL over WebSocket Protocol (graphql-transport-ws), message "Next".
GraphQL over Server-Sent Events Protocol, event "next".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from api.graphql.operations import Payload, encode

COPIED_BYTES_MAX: Final = 16 * 1024
"""Frames of more than this share the payload; smaller ones are sooner copied."""

_MARK: Final = b"\xff\xfe\xfd\xfc\xff"
"""Stands for the id: bytes that no UTF-8 text holds, and no header of a frame."""

_TEXT_FRAME: Final = 0x81
_LENGTH_16_BITS: Final = 126
_LENGTH_64_BITS: Final = 127


@dataclass(frozen=True, slots=True)
class Message:
    """A result of a subscription.

    Parameters
    ----------
    payload : the result as JSON
    cursor : the one in its root field, where it was asked for
    first, last : positions of the first and the last event that it tells of
    lasts : whether it stays true
    """

    payload: bytes
    cursor: str | None
    first: int
    last: int
    lasts: bool

    @property
    def event(self) -> bytes:
        """The message as a server-sent event, under the cursor that it carries."""
        told = b"event: next\ndata: " + self.payload + b"\n\n"
        return told if self.cursor is None else b"id: " + self.cursor.encode() + b"\n" + told


class Batch:
    """Messages that go out together, in order.

    Parameters
    ----------
    after : a position beyond which they tell of everything
    """

    def __init__(self, messages: Sequence[Message], after: int) -> None:
        self.messages = messages
        self.after = after
        self.size_bytes = sum([len(message.payload) for message in messages])
        self._templates: dict[int, bytes] = {}
        self._last: tuple[bytes, bytes] = (b"", b"")

    @property
    def last(self) -> int:
        """Position of the last event that it tells of."""
        return self.messages[-1].last

    @property
    def is_copied(self) -> bool:
        """Whether `frames` serves it better than `parts`."""
        return self.size_bytes <= COPIED_BYTES_MAX

    def frames(self, id_json: bytes) -> bytes:
        """Return the messages as WebSocket frames of the operation with this id, JSON quoted."""
        last_id, frames = self._last
        if id_json == last_id:
            return frames
        template = self._templates.get(len(id_json))
        if template is None:
            parts = [part for m in self.messages for part in _framed(m, len(id_json), _MARK)]
            template = self._templates[len(id_json)] = b"".join(parts)
        frames = template.replace(_MARK, id_json)
        self._last = id_json, frames
        return frames

    def parts(self, id_json: bytes) -> list[bytes]:
        """Return the frames in parts, of which the payloads are shared with everybody else."""
        return [part for m in self.messages for part in _framed(m, len(id_json), id_json)]

    @cached_property
    def events(self) -> bytes:
        """The messages as server-sent events."""
        return b"".join([message.event for message in self.messages])


def _framed(message: Message, id_length: int, id_json: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a text frame as its head, the payload, and its end."""
    length = len(_BEFORE_ID) + id_length + len(_AFTER_ID) + len(message.payload) + len(_END)
    return frame_header(length) + _BEFORE_ID + id_json + _AFTER_ID, message.payload, _END


_BEFORE_ID: Final = b'{"id":'
_AFTER_ID: Final = b',"type":"next","payload":'
_END: Final = b"}"


def frame_header(length: int) -> bytes:
    """Return the header of an unmasked text frame with `length` bytes of payload."""
    if length < _LENGTH_16_BITS:
        return struct.pack("!BB", _TEXT_FRAME, length)
    if length < 2**16:
        return struct.pack("!BBH", _TEXT_FRAME, _LENGTH_16_BITS, length)
    return struct.pack("!BBQ", _TEXT_FRAME, _LENGTH_64_BITS, length)


def message_of(payload: Payload, *, first: int, last: int, lasts: bool) -> Message:
    """Return the message of a result."""
    return Message(encode(payload), _cursor(payload), first, last, lasts)


def _cursor(payload: Payload) -> str | None:
    """Return the cursor in the root field of a subscription's result, where it was asked for."""
    data: Any = payload.get("data")
    if isinstance(data, dict):
        for message in data.values():
            if isinstance(message, dict) and isinstance(message.get("cursor"), str):
                cursor: str = message["cursor"]
                return cursor
    return None
