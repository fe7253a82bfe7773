"""Batches: a damaged frame is told from its neighbours, and bounds hold before anything is read."""

from __future__ import annotations

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput, MalformedFrame
from domain.frame_batches import (
    BATCH_FRAMES_MAX,
    BatchItem,
    decode_batch,
    encode_batch,
    encoded_size,
)
from domain.frame_encoding import encode
from domain.frames import FRAME_BYTES_MAX
from tests.domain.frame_samples import small_frame

ITEMS = st.lists(st.builds(BatchItem, st.uuids(), st.binary(max_size=300)), min_size=1, max_size=20)
HEADER_BYTES = 8


def batch_of(count: int) -> tuple[list[BatchItem], bytes]:
    encoded = encode(small_frame())
    items = [BatchItem(uuid.UUID(int=n + 1), encoded) for n in range(count)]
    return items, encode_batch(items)


@given(ITEMS)
def test_a_batch_gives_back_its_frames_in_order(items: list[BatchItem]) -> None:
    body = encode_batch(items)
    assert list(decode_batch(body)) == items
    assert len(body) == HEADER_BYTES + sum(encoded_size(len(item.encoded)) for item in items)


@given(ITEMS, st.data())
def test_a_damaged_frame_does_not_harm_its_neighbours(
    items: list[BatchItem], data: st.DataObject
) -> None:
    body = bytearray(encode_batch(items))
    damaged = data.draw(st.integers(0, len(items) - 1))
    at = HEADER_BYTES + sum(encoded_size(len(item.encoded)) for item in items[:damaged])
    body[at + 4] ^= 0xFF  # its checksum
    decoded = list(decode_batch(bytes(body)))
    refused = decoded.pop(damaged)
    assert isinstance(refused, MalformedFrame)
    assert (refused.code, refused.value) == ("frame.checksum", damaged)
    assert decoded == items[:damaged] + items[damaged + 1 :]


def test_every_truncation_gives_the_whole_frames_before_it() -> None:
    items, body = batch_of(3)
    size = encoded_size(len(items[0].encoded))
    for length in range(HEADER_BYTES, len(body)):
        whole = (length - HEADER_BYTES) // size
        *decoded, rest = decode_batch(body[:length])
        assert decoded == items[:whole]
        assert isinstance(rest, MalformedFrame)
        assert (rest.code, rest.value) == ("batch.truncated", 3 - whole)


def test_a_length_beyond_a_frame_s_bound_ends_the_batch() -> None:
    items, body = batch_of(2)
    at = HEADER_BYTES + encoded_size(len(items[0].encoded))
    body = body[:at] + struct.pack("<I", FRAME_BYTES_MAX + 1) + body[at + 4 :]
    first, rest = decode_batch(body)
    assert first == items[0]
    assert isinstance(rest, MalformedFrame)
    assert rest.code == "batch.truncated"


def test_bytes_after_the_last_frame_are_reported() -> None:
    items, body = batch_of(2)
    *decoded, rest = decode_batch(body + b"?")
    assert decoded == items
    assert isinstance(rest, MalformedFrame)
    assert rest.code == "batch.trailing_bytes"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "batch.malformed"),
        (b"HDB\x01\x01\x00\x00", "batch.malformed"),
        (b"<html></html>", "batch.malformed"),
        (struct.pack("<3sBI", b"HDF", 1, 1), "batch.malformed"),
        (struct.pack("<3sBI", b"HDB", 2, 1), "batch.version"),
        (struct.pack("<3sBI", b"HDB", 1, 0), "batch.too_many_frames"),
        (struct.pack("<3sBI", b"HDB", 1, BATCH_FRAMES_MAX + 1), "batch.too_many_frames"),
        (struct.pack("<3sBI", b"HDB", 1, 2**32 - 1), "batch.too_many_frames"),
    ],
)
def test_a_body_that_does_not_start_as_a_batch_is_refused_whole(body: bytes, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_batch(body)
    assert refused.value.code == code


@given(st.binary(max_size=200), st.integers(1, 5))
def test_random_bytes_after_the_start_yield_frames_or_errors(raw: bytes, count: int) -> None:
    body = struct.pack("<3sBI", b"HDB", 1, count) + raw
    assert all(isinstance(item, BatchItem | MalformedFrame) for item in decode_batch(body))
