"""The buffer between a connection and the windows: takes readings as they come, bounded.

A reading goes on as it was delivered, with three exceptions, each counted and told once: a
number that is none becomes MISSING; a time that no clock in order can have told is replaced by
the time of arrival, and the reading is UNCERTAIN; what is not of its channel's type is refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from domain.frame_header import VALUE_TYPES
from domain.frames import TEXT_LENGTH_MAX, Quality
from domain.time_quality import AGENT, MIXED
from edge_agent.configuration import ConfiguredLiveSource
from edge_agent.live import Readings
from edge_agent.outbox.records import Loss
from edge_agent.readings import RowFault

FUTURE_NS_MAX: Final = 60 * 10**9
"""A device whose clock goes further ahead than this is not believed; Heddle refuses frames of the
future, and one such reading would be the latest for years."""
TIME_NS_MIN: Final = 946_684_800 * 10**9
"""2000-01-01: clocks that were never set start in 1601, 1970, 1980 or 1984."""
BACKLOG_WINDOWS_MAX: Final = 4
"""Windows that wait for the disk before `take` waits."""
REFUSED_MAX: Final = 100
"""Refused messages kept with their text, for each window."""
CLOCK_STEPPED: Final = "clock.stepped"
LOSSES_MAX: Final = 100
"""Losses declared within one window; what is more goes into the last, which then covers all."""
TEXT_SHOWN_MAX: Final = 500

BoolArray = npt.NDArray[np.bool_]

_log = logging.getLogger("heddle.edge.feed")


@dataclass
class RawWindow:
    """What arrived between two cuts, in the order of arrival.

    Parameters
    ----------
    clocks : who told the times, of `domain.time_quality.TIME_SOURCES`
    lag_ns : the agent's clock at an arrival less the latest time that arrived, where least; None
        where the agent's clock alone told times
    stepped : whether the agent's clock was set meanwhile
    """

    readings: list[Readings] = field(default_factory=list)
    count: int = 0
    taken: int = 0
    clocks: set[str] = field(default_factory=set)
    lag_ns: int | None = None
    stepped: bool = False

    def note_clock(self, clock: str, lag_ns: int | None) -> None:
        """Note who told the times of an arrival, and how far behind the agent's clock they lay."""
        self.clocks.add(clock)
        if lag_ns is not None and (self.lag_ns is None or abs(lag_ns) < abs(self.lag_ns)):
            self.lag_ns = lag_ns


@dataclass
class Incidents:
    """What went wrong since it was last asked."""

    losses: list[Loss] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: list[RowFault] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.losses or self.counts)


class SourceFeed:
    """The feed of one live source (`edge_agent.live.Feed`).

    Parameters
    ----------
    wake : called when a window is full or somebody waits for what is open
    now_ns : the wall clock, ns since 1970 UTC
    """

    def __init__(
        self,
        configured: ConfiguredLiveSource,
        wake: Callable[[], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.configured = configured
        self.listening = True
        self.on_heard: Callable[[], None] = _nothing
        self.kept_by = ""
        self.on_kept_by: Callable[[str], None] = _kept_nowhere
        self.incidents = Incidents()
        self.reading_count = 0
        self._wake = wake
        self._now_ns = now_ns
        self._channels = configured.source.channels
        self._open = RawWindow()
        self._closed: deque[RawWindow] = deque()
        self._taken = 0
        self._kept = 0
        self._moved = asyncio.Event()
        self._told: set[tuple[str, str]] = set()
        self._missed: tuple[str, int] | None = None
        self.kept_wanted_s: float | None = None

    # --- the connection's side ------------------------------------------------------------

    async def take(self, readings: Sequence[Readings]) -> None:
        """Take what arrived; wait while `BACKLOG_WINDOWS_MAX` windows wait for the disk."""
        now_ns = self._now_ns()
        self._heard(now_ns)
        for given in readings:
            checked = self._checked(given)
            if checked is not None:
                # A time that is not believed still tells how far off its clock is.
                told = given.clock != AGENT
                self._append(checked, now_ns - given.times_ns.item(-1) if told else None)
        while len(self._closed) > BACKLOG_WINDOWS_MAX:
            self._moved.clear()
            await self._moved.wait()

    def fault(self, code: str, message: str, *, channel: str = "", text: str = "") -> None:
        """Count a value or a message that was refused; tell the first of its kind."""
        self._count(code, message, channel, 1)
        if not channel and len(self.incidents.refused) < REFUSED_MAX:
            self.incidents.refused.append(
                RowFault(0, 0, code, message[:TEXT_SHOWN_MAX], text[:TEXT_SHOWN_MAX])
            )

    def resumed(self, kept_by: str = "", *, was_kept: bool = False) -> None:
        """Note that the other side delivers from now on; see `edge_agent.live.Feed`."""
        if was_kept and kept_by and kept_by == self.kept_by:
            self._missed = None
        self._heard(self._now_ns())
        if kept_by != self.kept_by:
            self.kept_by = kept_by
            self.on_kept_by(kept_by)

    def lost(self, reason: str, from_ns: int, to_ns: int, count: int | None = None) -> None:
        """Declare a loss; neighbours of one reason become one."""
        self._heard(min(from_ns, self._now_ns()))
        self._declare(reason, from_ns, to_ns, count)

    def _declare(self, reason: str, from_ns: int, to_ns: int, count: int | None) -> None:
        # A clock that was set back meanwhile turns them round; the hour between is in doubt.
        from_ns, to_ns = min(from_ns, to_ns), max(from_ns, to_ns)
        losses = self.incidents.losses
        last = losses[-1] if losses else None
        if last is not None and (last.reason == reason or len(losses) >= LOSSES_MAX):
            both = None if last.count is None or count is None else last.count + count
            spans = min(last.from_ns, from_ns), max(last.to_ns, to_ns)
            losses[-1] = Loss(last.reason, *spans, both)
        else:
            losses.append(Loss(reason, from_ns, to_ns, count))

    async def kept(self) -> None:
        """Return once all that was taken so far is in the outbox."""
        target = self._taken
        if self._kept < target and self.kept_wanted_s is None:
            self.kept_wanted_s = time.monotonic()
            self._wake()
        while self._kept < target:
            self._moved.clear()
            await self._moved.wait()

    def missed(self, reason: str, since_ns: int) -> None:
        """Declare lost for `reason` what was measured from `since_ns` until something is heard."""
        self._missed = (reason, since_ns)
        self.listening = False

    # --- the collector's side -------------------------------------------------------------

    @property
    def has_full_window(self) -> bool:
        """Whether a window was closed because it is full."""
        return bool(self._closed)

    def clock_stepped(self) -> None:
        """Note that the agent's clock was set while the windows that wait here were open."""
        self.incidents.counts["", CLOCK_STEPPED] += 1
        for window in (*self._closed, self._open):
            window.stepped = True

    def cut(self, *, whole: bool) -> list[RawWindow]:
        """Return the windows that are full and, when `whole`, the one that is open, in order."""
        windows = list(self._closed)
        self._closed.clear()
        if whole:
            if self._open.readings:
                windows.append(self._open)
                self._open = RawWindow()
            self.kept_wanted_s = None
        return windows

    def cut_incidents(self) -> Incidents:
        """Return what went wrong since the last call."""
        found, self.incidents = self.incidents, Incidents()
        return found

    def has_kept(self, window: RawWindow) -> None:
        """Note that `window` and all before it are on disk."""
        self._kept = window.taken
        self.reading_count += window.count

    def moved(self) -> None:
        """Let whoever waits look again."""
        self._moved.set()

    def _heard(self, time_ns: int) -> None:
        """Note that the other side is there; what was missed until `time_ns` is lost."""
        if self.listening:
            return
        self.listening = True
        if self._missed is not None:
            reason, since_ns = self._missed
            self._missed = None
            self._declare(reason, since_ns, time_ns, None)
        self.on_heard()

    # --- taking ---------------------------------------------------------------------------

    def _append(self, readings: Readings, lag_ns: int | None) -> None:
        """Add `readings` to the open window; what does not fit begins the next."""
        most, start, count = self.configured.readings_max, 0, len(readings.times_ns)
        while start < count:
            stop = min(count, start + most - self._open.count)
            part = readings if stop - start == count else _between(readings, start, stop)
            self._taken += 1
            self._open.readings.append(part)
            self._open.note_clock(part.clock, lag_ns)
            self._open.count += stop - start
            self._open.taken = self._taken
            start = stop
            if self._open.count >= most:
                self._closed.append(self._open)
                self._open = RawWindow()
                self._wake()

    def _checked(self, given: Readings) -> Readings | None:
        """Return `given` as it can be stored, or None after counting why it cannot."""
        channel = self._channels[given.channel]
        count = len(given.times_ns)
        if not count:
            return None
        dtype = VALUE_TYPES[channel.value_type]
        if not (
            given.values.dtype == dtype
            and given.times_ns.dtype == np.int64
            and given.values.shape == given.qualities.shape == given.times_ns.shape == (count,)
        ):
            told = f"{given.values.dtype} of shape {given.values.shape} where {dtype} is declared"
            self._count("value.wrong_type", told, channel.name, count)
            return None
        if dtype.kind == "f":
            given = self._without_non_numbers(given)
        elif channel.value_type == "str":
            given = self._without_non_texts(given)
        return self._with_sound_times(given)

    def _without_non_numbers(self, given: Readings) -> Readings:
        # Most come one at a time, and Python looks at one number faster than NumPy does.
        if len(given.values) == 1 and math.isfinite(given.values[0]):
            return given
        finite = np.isfinite(given.values)
        if finite.all():
            return given
        return self._missing(given, ~finite, "value.not_finite", "NaN or infinite")

    def _without_non_texts(self, given: Readings) -> Readings:
        wrong = np.array([not _is_text(text) for text in given.values.tolist()], np.bool_)
        if not wrong.any():
            return given
        told = f"not a text of at most {TEXT_LENGTH_MAX} bytes of UTF-8"
        missing = self._missing(given, wrong, "value.not_text", told)
        values = missing.values.copy()
        values[wrong] = ""
        return replace(missing, values=values)

    def _missing(self, given: Readings, wrong: BoolArray, code: str, told: str) -> Readings:
        told_missing = given.qualities == Quality.MISSING
        count = int((wrong & ~told_missing).sum())
        if count:
            self._count(code, told, self._channels[given.channel].name, count)
        return replace(given, qualities=np.where(wrong, np.uint8(Quality.MISSING), given.qualities))

    def _with_sound_times(self, given: Readings) -> Readings:
        now_ns = self._now_ns()
        if len(given.times_ns) == 1 and TIME_NS_MIN <= given.times_ns[0] <= now_ns + FUTURE_NS_MAX:
            return given
        wrong = (given.times_ns > now_ns + FUTURE_NS_MAX) | (given.times_ns < TIME_NS_MIN)
        if not wrong.any():
            return given
        channel = self._channels[given.channel]
        first = int(given.times_ns[np.flatnonzero(wrong)[0]])
        told = f"the device's clock tells {first} ns since 1970, the agent's {now_ns}"
        self._count("value.time_unsound", told, channel.name, int(wrong.sum()))
        qualities = np.where(
            wrong, np.maximum(given.qualities, np.uint8(Quality.UNCERTAIN)), given.qualities
        )
        # One nanosecond apart, so that each stays a reading of its own.
        arrival = now_ns + np.arange(len(wrong), dtype=np.int64)
        clock = AGENT if wrong.all() else MIXED
        return replace(
            given,
            times_ns=np.where(wrong, arrival, given.times_ns),
            qualities=qualities,
            clock=clock,
        )

    def _count(self, code: str, message: str, channel: str, count: int) -> None:
        self.incidents.counts[channel, code] += count
        if (channel, code) not in self._told:
            self._told.add((channel, code))
            _log.warning(
                "source %s: %s: %s%s (told once, counted from now on)",
                self.configured.name,
                code,
                f"channel {channel}: " if channel else "",
                message,
            )


def _nothing() -> None:
    """Do nothing."""


def _kept_nowhere(_kept_by: str) -> None:
    """Remember nothing."""


def _between(readings: Readings, start: int, stop: int) -> Readings:
    return replace(
        readings,
        times_ns=readings.times_ns[start:stop],
        values=readings.values[start:stop],
        qualities=readings.qualities[start:stop],
    )


def _is_text(text: object) -> bool:
    try:
        return isinstance(text, str) and len(text.encode()) <= TEXT_LENGTH_MAX
    except UnicodeEncodeError:
        return False
