"""What runners tell OpenTelemetry, by name, and the rate over the last minute.

================================  =========  =====================================================
``heddle.projection.position``    gauge      position that the rows reflect
``heddle.projection.lag``         gauge      events of the log that are not folded yet
``heddle.projection.rate``        gauge      events per second over the last minute
``heddle.projection.active``      gauge      1 where this process folds, 0 where it stands by
``heddle.projection.failed``      gauge      1 while the projection is stopped by a failure
``heddle.projection.events``      counter    events that this process has folded or passed over
``heddle.projection.fold``        histogram  seconds that a batch took, rows and checkpoint
================================  =========  =====================================================

Each carries the attributes ``heddle.projection`` and ``heddle.ledger``.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

meter = metrics.get_meter("heddle.projections")
events_folded: Final = meter.create_counter("heddle.projection.events", "{event}")
fold_duration: Final = meter.create_histogram("heddle.projection.fold", "s")

RATE_WINDOW_S: Final = 60

Attributes = dict[str, str]
Observations = Iterable[Observation]


class Measured(Protocol):
    """What is known of a projection at any moment."""

    @property
    def attributes(self) -> Attributes: ...
    @property
    def position(self) -> int: ...
    @property
    def lag(self) -> int: ...
    @property
    def rate_per_s(self) -> float: ...
    @property
    def active(self) -> bool: ...
    @property
    def failure(self) -> str | None: ...


_measured: weakref.WeakSet[Measured] = weakref.WeakSet()


def observe(runner: Measured) -> None:
    """Show `runner` for as long as it is there."""
    _measured.add(runner)


def forget(runner: Measured) -> None:
    """Show `runner` no more."""
    _measured.discard(runner)


_GAUGES: Final[dict[str, tuple[str, Callable[[Measured], float]]]] = {
    "heddle.projection.position": ("{event}", lambda runner: runner.position),
    "heddle.projection.lag": ("{event}", lambda runner: runner.lag),
    "heddle.projection.rate": ("{event}/s", lambda runner: runner.rate_per_s),
    "heddle.projection.active": ("1", lambda runner: int(runner.active)),
    "heddle.projection.failed": ("1", lambda runner: int(runner.failure is not None)),
}


def make_gauges() -> None:
    """Have the meter ask for the gauges whenever it is read."""
    for name, (unit, value) in _GAUGES.items():
        meter.create_observable_gauge(name, [_observed(value)], unit)


def _observed(value: Callable[[Measured], float]) -> Callable[[CallbackOptions], Observations]:
    return lambda _options: [
        Observation(value(runner), runner.attributes) for runner in tuple(_measured)
    ]


make_gauges()


class Rate:
    """Events per second over the last `RATE_WINDOW_S`, counted by whole seconds.

    Times are seconds of any clock that only goes forward.
    """

    def __init__(self, now_s: float) -> None:
        self._began_s = now_s
        self._seconds: deque[tuple[int, int]] = deque()

    def add(self, events: int, now_s: float) -> None:
        """Count `events` at `now_s`."""
        second = int(now_s)
        if self._seconds and self._seconds[-1][0] == second:
            events += self._seconds.pop()[1]
        self._seconds.append((second, events))
        self._drop(now_s)

    def per_s(self, now_s: float) -> float:
        """Return the rate, over less than the window while less time has passed."""
        self._drop(now_s)
        over_s = min(max(now_s - self._began_s, 1.0), RATE_WINDOW_S)
        return sum(events for _, events in self._seconds) / over_s

    def _drop(self, now_s: float) -> None:
        while self._seconds and self._seconds[0][0] <= now_s - RATE_WINDOW_S:
            self._seconds.popleft()
