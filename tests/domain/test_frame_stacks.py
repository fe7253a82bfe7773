"""Stacks: the readings of many frames as one array are those of each frame."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.frame_decoding import decode_many
from domain.frame_encoding import encode_many
from domain.frame_stacks import hash_frames, stacked
from domain.frames import (
    ChannelHeader,
    Frame,
    FrameHeader,
    Quality,
    build_frame,
    canonical_bytes,
    with_qualities,
)
from tests.domain.frame_samples import frames


def decoded(several: list[Frame]) -> list[Frame]:
    return [frame for frame in decode_many(encode_many(several)) if isinstance(frame, Frame)]


def assert_stacks_of(several: list[Frame]) -> None:
    seen = []
    for stack in stacked(several):
        assert stack.si.shape[:2] == (len(stack.places), len(stack.indexes))
        for row, (place, frame) in enumerate(zip(stack.places, stack.frames, strict=True)):
            assert frame is several[place]
            assert stack.channels == tuple(frame.header.channels[n] for n in stack.indexes)
            (group,) = (g for g in frame.clock_groups if g.indexes == stack.indexes)
            np.testing.assert_array_equal(stack.times_ns[row], group.times_ns)
            np.testing.assert_array_equal(stack.si[row], group.si)
            np.testing.assert_array_equal(stack.quality[row], group.quality)
            np.testing.assert_array_equal(stack.good_si[row], group.good_si)
            seen.append((place, stack.clock))
        assert stack.all_good == all(
            frame.qualities[n].max() == Quality.GOOD
            for frame in stack.frames
            for n in stack.indexes
        )
    groups = sum(len(frame.clock_groups) for frame in several)
    assert len(set(seen)) == len(seen) == groups


@given(st.lists(frames(), min_size=1, max_size=5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_stack_holds_what_its_frames_hold(several: list[Frame], together: bool) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        assert_stacks_of(decoded(several) if together else several)


@given(st.lists(frames(), min_size=1, max_size=5))
@settings(max_examples=60)
def test_hashing_together_is_hashing_alone(several: list[Frame]) -> None:
    for frames_together in (several, decoded(several)):
        hash_frames(frames_together)
        for frame in frames_together:
            expected = hashlib.sha256(canonical_bytes(frame)).digest()
            assert frame.canonical_sha256 == expected


def fleet(count: int) -> list[Frame]:
    channels = (ChannelHeader("a", "V", 2.0, 1.0), ChannelHeader("b", "V", 1.0, 0.0))
    return [
        build_frame(
            FrameHeader(f"pump-{n}", f"agent-{n}", channels),
            1,
            [np.arange(5) + n],
            np.arange(10.0).reshape(2, 5) + n,
            [None, None],
        )
        for n in range(count)
    ]


def test_assets_of_one_kind_share_a_stack_without_a_copy() -> None:
    several = decoded(fleet(7))
    (stack,) = stacked(several)
    assert stack.si.shape == (7, 2, 5)
    assert np.shares_memory(stack.si, several[3].clock_groups[0].si)
    assert stack.all_good


def test_a_stack_knows_of_the_one_bad_reading() -> None:
    several = decoded(fleet(3))
    bad = np.array([0, 0, Quality.BAD, 0, 0], np.uint8)
    several[1] = with_qualities(several[1], [bad, several[1].qualities[1]])
    (stack,) = stacked(several)
    assert not stack.all_good
    assert np.isnan(stack.good_si).sum() == 1
    assert np.isnan(stack.good_si[1, 0, 2])
    assert_stacks_of(several)
