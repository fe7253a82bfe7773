"""Where windows end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from domain.asset_types import asset_type
from domain.frame_checks import header_for
from domain.frames import Quality
from edge_agent.readings import Rows
from edge_agent.window import WindowBounds, cut_windows, frame_of

BOUNDS = WindowBounds(duration_ns=10, rows_max=4)
PUMP = asset_type("skab-pump-loop")
HEADER = header_for(PUMP, "pump-1", "agent-1", [("flow", "l/min")])


def rows(*times_ns: int) -> Rows:
    """Return rows of one channel whose values number them."""
    count = len(times_ns)
    return Rows(
        np.zeros(count, np.int64),
        np.arange(count, dtype=np.int64),
        np.array(times_ns, np.int64),
        np.arange(count, dtype=np.float64)[np.newaxis],
    )


def times(windows: list[Rows]) -> list[list[int]]:
    return [window.times_ns.tolist() for window in windows]


def test_window_closes_when_its_rows_are_full() -> None:
    closed, still_open = cut_windows(None, rows(1, 2, 3, 4, 5), BOUNDS)
    assert times(closed) == [[1, 2, 3, 4]]
    assert still_open is not None
    assert still_open.times_ns.tolist() == [5]


def test_full_window_closes_without_waiting_for_another_row() -> None:
    closed, still_open = cut_windows(None, rows(1, 2, 3, 4), BOUNDS)
    assert times(closed) == [[1, 2, 3, 4]]
    assert still_open is None


def test_window_closes_when_its_time_is_over() -> None:
    closed, still_open = cut_windows(None, rows(0, 9, 10), BOUNDS)
    assert times(closed) == [[0, 9]]
    assert still_open is not None
    assert still_open.times_ns.tolist() == [10]


def test_repeated_or_backward_time_starts_a_new_window() -> None:
    closed, still_open = cut_windows(None, rows(5, 6, 6, 3, 4), BOUNDS)
    assert times(closed) == [[5, 6], [6]]
    assert still_open is not None
    assert still_open.times_ns.tolist() == [3, 4]


def test_window_at_the_end_of_time_closes_like_any_other() -> None:
    last = 2**63 - 1
    closed, still_open = cut_windows(None, rows(last - 1, last), BOUNDS)
    assert sum(map(len, closed)) + (len(still_open) if still_open else 0) == 2


@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.data())
def test_windows_do_not_depend_on_the_steps_in_which_rows_arrive(
    row_times: list[int], data: st.DataObject
) -> None:
    everything = rows(*row_times)
    at_once, rest = cut_windows(None, everything, BOUNDS)
    in_steps: list[Rows] = []
    still_open: Rows | None = None
    start = 0
    while start < len(everything):
        stop = data.draw(st.integers(start + 1, len(everything)))
        closed, still_open = cut_windows(still_open, everything.between(start, stop), BOUNDS)
        in_steps += closed
        start = stop
    assert times(in_steps) == times(at_once)
    assert (still_open is None) == (rest is None)
    if rest is not None and still_open is not None:
        at_once.append(rest)
        assert still_open.times_ns.tolist() == rest.times_ns.tolist()
    assert [t for window in times(at_once) for t in window] == row_times
    for window in at_once:
        assert len(window) <= BOUNDS.rows_max
        assert window.times_ns[-1] - window.times_ns[0] < BOUNDS.duration_ns


def test_absent_reading_is_missing_and_impossible_one_is_bad() -> None:
    window = rows(1, 2, 3)
    window.values[0] = [32.0, np.nan, 9_000.0]
    frame = frame_of(window, HEADER, PUMP, sequence=7)
    assert frame.sequence == 7
    assert frame.qualities[0].tolist() == [Quality.GOOD, Quality.MISSING, Quality.BAD]
    assert frame.values[0][2] == 9_000.0


def test_replayed_window_happens_later_by_the_shift() -> None:
    frame = frame_of(rows(1, 2), HEADER, PUMP, sequence=1, shift_ns=100)
    assert frame.clocks[0].tolist() == [101, 102]
