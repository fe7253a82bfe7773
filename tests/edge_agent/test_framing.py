"""Windows that become frames together are the frames that each would be alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.asset_types import asset_type
from domain.errors import HeddleError, InvalidInput
from domain.frame_checks import header_for, mark_all_out_of_range, mark_out_of_range
from domain.frame_decoding import decode
from domain.frame_encoding import encode, encode_many
from domain.frames import Frame, Quality, build_frame, canonical_bytes
from edge_agent.live import DeliveredChannel
from edge_agent.live.framing import frames_of, frames_of_all
from edge_agent.live.window import ChannelWindow, Window

PUMP = asset_type("skab-pump-loop")
CHANNELS = (
    DeliveredChannel("flow", "l/min"),
    DeliveredChannel("pressure", "bar"),
    DeliveredChannel("motor_current", "A"),
)
COARSE = DeliveredChannel("flow", "l/min", "f4")
UNKNOWN_UNIT = DeliveredChannel("flow", "furlong")


def channel_window(
    channel: DeliveredChannel, times: Sequence[int], values: Sequence[float], quality: int = 0
) -> ChannelWindow:
    dtype = np.float32 if channel.value_type == "f4" else np.float64
    return ChannelWindow(
        channel,
        np.array(times, np.int64),
        np.array(values, dtype),
        np.full(len(times), quality, np.uint8),
    )


def window_of(asset: str, channels: Sequence[ChannelWindow]) -> Window:
    return Window(asset, asset, PUMP, tuple(channels))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Draw a window: mostly plain, now and then one of those that are not."""
    count = draw(st.integers(1, 3))
    start = draw(st.integers(0, 2))
    times = list(range(start, start + count))
    value = st.one_of(st.floats(-1e3, 1e3), st.integers(-999, 999).map(lambda n: n / 10))
    channels = []
    for channel in draw(st.sampled_from([CHANNELS, CHANNELS[:2], CHANNELS[1:], (COARSE,)])):
        own = draw(st.sampled_from([times] * 8 + [[0] * count, [t + 5 for t in times], times[:1]]))
        quality = draw(st.sampled_from([Quality.GOOD] * 8 + [Quality.UNCERTAIN, Quality.BAD]))
        values = draw(st.lists(value, min_size=len(own), max_size=len(own)))
        channels.append(channel_window(channel, own, values, quality))
    return window_of(draw(st.sampled_from(["pump-1", "pump-2"])), channels)


def same(frame: Frame, other: Frame) -> bool:
    return canonical_bytes(frame) == canonical_bytes(other) and encode(frame) == encode(other)


@given(st.lists(windows(), max_size=8))
def test_windows_of_a_pass_become_the_frames_that_each_becomes_alone(
    together: list[Window],
) -> None:
    made = frames_of_all(together, "edge-1", 5)
    sequence = 5
    for window, frames in zip(together, made, strict=True):
        alone = frames_of(window, "edge-1", sequence)
        assert not isinstance(frames, HeddleError)
        assert [frame.sequence for frame in frames] == list(range(sequence, sequence + len(frames)))
        assert len(frames) == len(alone)
        assert all(same(*pair) for pair in zip(frames, alone, strict=True))
        sequence += len(frames)


@given(st.lists(windows(), min_size=1, max_size=8))
def test_what_is_made_marked_and_encoded_together_is_so_one_by_one(together: list[Window]) -> None:
    frames = [
        frame
        for made in frames_of_all(together, "edge-1", 1)
        if not isinstance(made, HeddleError)
        for frame in made
    ]
    marked = mark_all_out_of_range(frames, PUMP)
    for frame, encoded in zip(marked, encode_many(marked), strict=True):
        # Built again from its columns, it shares no matrix with others.
        alone = build_frame(
            frame.header, frame.sequence, frame.clocks, frame.values, frame.qualities
        )
        alone = mark_out_of_range(alone, PUMP)
        assert canonical_bytes(frame) == canonical_bytes(alone)
        assert encoded == encode(alone)
        assert canonical_bytes(decode(encoded)) == canonical_bytes(alone)


@pytest.mark.parametrize("count", [1, 3])
def test_plain_window_is_the_frame_of_its_columns(count: int) -> None:
    times, values = list(range(7, 7 + count)), np.linspace(0.1, 0.7, 3 * count).reshape(3, count)
    window = window_of(
        "pump-1",
        [channel_window(c, times, v.tolist()) for c, v in zip(CHANNELS, values, strict=True)],
    )
    header = header_for(PUMP, "pump-1", "edge-1", [(c.name, c.unit) for c in CHANNELS])
    expected = build_frame(header, 4, [np.array(times)], values, [None] * 3)
    (frame,) = frames_of(window, "edge-1", 4)
    assert same(frame, expected)


@pytest.mark.parametrize(
    "broken",
    [
        channel_window(UNKNOWN_UNIT, [1], [1.0]),
        channel_window(CHANNELS[0], [1], [float("nan")]),
        ChannelWindow(CHANNELS[0], np.array([1]), np.array([1], np.int16), np.zeros(1, np.uint8)),
        ChannelWindow(CHANNELS[0], np.array([1]), np.array([1.0, 2.0]), np.zeros(1, np.uint8)),
    ],
    ids=["unit", "not-finite", "type", "length"],
)
def test_window_that_cannot_be_a_frame_takes_no_number_from_its_neighbours(
    broken: ChannelWindow,
) -> None:
    sound = window_of("pump-1", [channel_window(c, [1], [1.5]) for c in CHANNELS[:1]])
    several = window_of("pump-2", [channel_window(CHANNELS[0], [1, 1], [1.0, 2.0])])
    first, error, second, third = frames_of_all(
        [sound, window_of("pump-3", [broken]), several, sound], "edge-1", 1
    )
    assert isinstance(error, InvalidInput)
    assert [
        frame.sequence
        for made in (first, second, third)
        if not isinstance(made, HeddleError)
        for frame in made
    ] == [1, 2, 3, 4]
