"""What the agent knows of clocks: whether its own follows a reference, and how far others are off.

What is told of a window's times is part of its frames' headers (`domain.time_quality`). Headers
are built, packed and kept by whoever holds them, so what is told changes as seldom as it may:
offsets are told in steps, and only a much smaller one is told anew.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import time
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, Final

from domain.time_quality import AGENT, MIXED, OFFSET_NS_MAX, TimeQuality

SYNCHRONIZED_ASKED_EVERY_S: Final = 10.0
OFFSET_STEP_NS_MIN: Final = 1_000_000
"""Less is the network's, not the clock's."""
SMALLER_BY: Final = 10
"""An offset is told anew once it is so many times smaller than the one told last."""

_TIME_ERROR: Final = 5
"""What adjtimex(2) returns while the kernel's clock follows no reference."""


class _Timex(ctypes.Structure):
    """The head of the kernel's ``struct timex``; zeros ask without setting anything."""

    _fields_ = [("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 508)]


def kernel_synchronized() -> bool | None:
    """Return whether the kernel says that the clock follows a reference; None where none says.

    adjtimex(2): a daemon (chrony with rtcsync, ntpd, systemd-timesyncd) keeps the kernel's clock
    marked as synchronized; without one the mark falls.
    """
    adjtimex = _adjtimex()
    if adjtimex is None:
        return None
    state = adjtimex(ctypes.byref(_Timex()))
    return None if state < 0 else state != _TIME_ERROR


@lru_cache(maxsize=1)
def _adjtimex() -> Any:
    name = ctypes.util.find_library("c")
    try:
        return ctypes.CDLL(name).adjtimex if name else None
    except (OSError, AttributeError):  # not Linux
        return None


class AgentClock:
    """Whether the agent's own clock follows a reference; the kernel is asked now and then.

    Parameters
    ----------
    now_s : a clock that nobody sets
    """

    def __init__(
        self,
        ask: Callable[[], bool | None] = kernel_synchronized,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._now_s = now_s
        self._asked_s: float | None = None
        self._synchronized: bool | None = None

    @property
    def synchronized(self) -> bool | None:
        """Whether it did when last asked, `SYNCHRONIZED_ASKED_EVERY_S` ago at most."""
        now_s = self._now_s()
        if self._asked_s is None or now_s >= self._asked_s + SYNCHRONIZED_ASKED_EVERY_S:
            self._asked_s = now_s
            self._synchronized = self._ask()
        return self._synchronized


class SourceClock:
    """What is told of the times of one source's windows; it remembers the offset told last."""

    def __init__(self, agent_clock: AgentClock) -> None:
        self._agent_clock = agent_clock
        self._told_ns: int | None = None

    def quality(self, sources: Collection[str], lag_ns: int | None, stepped: bool) -> TimeQuality:
        """Return what is told of a window.

        Parameters
        ----------
        sources : who told the times in it, of `domain.time_quality.TIME_SOURCES`
        lag_ns : the agent's clock at an arrival less the latest time that arrived, of the
            arrival where they were closest; None where the agent's clock alone told times
        stepped : whether the agent's clock was set meanwhile
        """
        source = next(iter(sources)) if len(sources) == 1 else MIXED if sources else AGENT
        offset_ns = None
        if lag_ns is not None and source != AGENT:
            offset_ns = told_offset(lag_ns, self._told_ns)
            # While the clock is set nothing is learned of the others.
            if not stepped:
                self._told_ns = offset_ns
        return _quality(source, self._agent_clock.synchronized, offset_ns, stepped)


@lru_cache(maxsize=1_024)
def _quality(
    source: str, synchronized: bool | None, offset_ns: int | None, stepped: bool
) -> TimeQuality:
    return TimeQuality(source, synchronized, offset_ns, stepped)


def told_offset(lag_ns: int, told_ns: int | None) -> int:
    """Return the offset to tell for `lag_ns`: the one told last while it still covers it."""
    offset_ns = next_step(abs(lag_ns))
    if told_ns is not None and offset_ns <= told_ns < offset_ns * SMALLER_BY:
        return told_ns
    return offset_ns


def next_step(offset_ns: int) -> int:
    """Return the next of 1, 2 and 5 times a power of ten that is not below `offset_ns`, ns."""
    power = OFFSET_STEP_NS_MIN
    while power * 10 < offset_ns:
        power *= 10
    found = next(step * power for step in (1, 2, 5, 10) if step * power >= offset_ns)
    return min(found, OFFSET_NS_MAX)
