"""Windows: where one frame ends and the next begins.

Pure. A boundary depends on the rows since the last boundary alone, so whoever reads again from
there, after a restart, cuts the same windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.asset_model import AssetType
from domain.frame_checks import mark_out_of_range
from domain.frames import Frame, FrameHeader, Quality, build_frame
from edge_agent.readings import Rows


@dataclass(frozen=True, slots=True)
class WindowBounds:
    """A window closes at whichever comes first: its rows are full, or its time is over."""

    duration_ns: int
    rows_max: int


def cut_windows(
    still_open: Rows | None, rows: Rows, bounds: WindowBounds
) -> tuple[list[Rows], Rows | None]:
    """Return the windows that `rows` close, in order, and the rows of the one left open.

    A window holds at most ``bounds.rows_max`` rows, all within ``bounds.duration_ns`` of its
    first. It also ends before a time that does not follow its predecessor, because the times of
    a frame increase; so a source that repeats itself or goes back loses nothing.
    """
    if still_open is not None:
        rows = still_open.followed_by(rows)
    times, count = rows.times_ns, len(rows)
    breaks = [*(np.flatnonzero(times[1:] <= times[:-1]) + 1).tolist(), count]
    closed: list[Rows] = []
    start = 0
    for ordered_until in breaks:
        while start < ordered_until:
            full = start + bounds.rows_max
            # Unsigned, because two times may lie further apart than int64 can tell.
            elapsed_ns = (times[start : min(full, ordered_until)] - times[start]).view(np.uint64)
            end = start + int(np.searchsorted(elapsed_ns, np.uint64(bounds.duration_ns)))
            if end == count and end < full:
                return closed, rows.between(start, count)
            closed.append(rows.between(start, end))
            start = end
    return closed, None


def frame_of(
    window: Rows, header: FrameHeader, asset_type: AssetType, sequence: int, shift_ns: int = 0
) -> Frame:
    """Return the frame of `window`: absent values MISSING, impossible ones marked BAD.

    Parameters
    ----------
    shift_ns : added to every time, for a recording that is replayed as if it happened now
    """
    absent = np.isnan(window.values)
    frame = build_frame(
        header,
        sequence,
        [window.times_ns + shift_ns],
        list(window.values),
        [np.where(mask, np.uint8(Quality.MISSING), np.uint8(0)) for mask in absent],
    )
    return mark_out_of_range(frame, asset_type)
