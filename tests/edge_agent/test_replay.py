"""When the rows of a recording are due."""

from __future__ import annotations

import numpy as np

from edge_agent.readings import Rows
from edge_agent.replay import Replay, Timeline

S = 1_000_000_000


def rows(*times_s: int) -> Rows:
    count = len(times_s)
    numbers = np.arange(count, dtype=np.int64)
    return Rows(numbers, numbers, np.array(times_s, np.int64) * S, np.zeros((1, count)))


def test_everything_is_due_at_once_without_a_speed() -> None:
    timeline = Timeline(Replay(None, "recorded"), anchor_ns=500 * S, first_ns=0)
    assert timeline.due_count(rows(0, 10, 10_000), 500 * S) == 3
    assert timeline.shift_ns == 0


def test_recording_replayed_now_happens_from_the_anchor_on() -> None:
    timeline = Timeline(Replay(1.0, "now"), anchor_ns=500 * S, first_ns=100 * S)
    recording = rows(100, 101, 102)
    assert timeline.shift_ns == 400 * S
    assert timeline.due_count(recording, 499 * S) == 0
    assert timeline.due_count(recording, 501 * S) == 2
    assert timeline.wait_s(recording.between(2, 3), 501 * S) == 1.0


def test_what_became_due_in_a_long_pause_is_due_at_once() -> None:
    timeline = Timeline(Replay(1.0, "now"), anchor_ns=0, first_ns=0)
    recording = rows(*range(100))
    assert timeline.due_count(recording, 70 * S) == 71
    assert timeline.wait_s(recording.between(71, 100), 90 * S) == 0.0


def test_speed_shortens_the_pauses_and_leaves_the_times() -> None:
    timeline = Timeline(Replay(10.0, "recorded"), anchor_ns=0, first_ns=0)
    assert timeline.shift_ns == 0
    assert timeline.due_count(rows(0, 10, 20, 30), 2 * S) == 3
    assert timeline.wait_s(rows(30), 2 * S) == 1.0
