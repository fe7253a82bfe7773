"""Messages as bytes: frames as the protocol wants them, whatever their size and the id's."""

from __future__ import annotations

import orjson
import pytest
from websockets.frames import Frame, Opcode

from api.graphql.messages import COPIED_BYTES_MAX, Batch, Message, message_of
from api.graphql.operations import encode

SIZES = [0, 1, 60, 100, 125, 126, 127, 300, 65_400, 65_535, 65_536, 200_000]
IDS = ["1", "7d2c5f6e-3a53-4b2e-9d0e-0c6f8c7f5a11", 'a"b\\c', "ü" * 40, "x" * 300]


def message(size: int, number: int = 1) -> Message:
    return Message(encode({"data": "x" * size}), None, number, number, True)


def frame_of(message: Message, identifier: str) -> bytes:
    """Return the frame as the library that we do without would make it."""
    text = b'{"id":%b,"type":"next","payload":%b}' % (encode(identifier), message.payload)
    return Frame(Opcode.TEXT, text).serialize(mask=False)


@pytest.mark.parametrize("identifier", IDS)
@pytest.mark.parametrize("size", SIZES)
def test_message_is_framed_under_the_id_of_its_operation(size: int, identifier: str) -> None:
    batch = Batch([message(size)], 0)
    id_json = encode(identifier)

    expected = frame_of(message(size), identifier)
    assert batch.frames(id_json) == expected
    assert b"".join(batch.parts(id_json)) == expected


def test_messages_of_a_batch_follow_each_other_under_each_id() -> None:
    messages = [message(size, number) for number, size in enumerate(SIZES[:8], 1)]
    batch = Batch(messages, 0)

    for identifier in [*IDS, *IDS]:
        expected = b"".join(frame_of(each, identifier) for each in messages)
        assert batch.frames(encode(identifier)) == expected
    assert batch.last == 8


def test_large_payload_is_shared_and_not_copied() -> None:
    large = message(COPIED_BYTES_MAX)
    batch = Batch([large], 0)

    assert not batch.is_copied
    assert all(any(part is large.payload for part in batch.parts(b'"%d"' % n)) for n in range(3))


def test_event_carries_its_cursor_as_its_id() -> None:
    payload = {"data": {"renamed": {"cursor": "abc", "event": {"cursor": "other"}}}}
    told = message_of(payload, first=3, last=4, lasts=False)

    assert told.event == b"id: abc\nevent: next\ndata: %b\n\n" % orjson.dumps(payload)
    assert Batch([told, told], 2).events == told.event * 2


@pytest.mark.parametrize(
    "payload", [{"data": None}, {"data": {"events": None}}, {"data": {"a": {"cursor": 1}}}, {}]
)
def test_event_without_a_cursor_has_no_id(payload: dict[str, object]) -> None:
    told = message_of(payload, first=1, last=1, lasts=True)

    assert told.event == b"event: next\ndata: %b\n\n" % orjson.dumps(payload)
