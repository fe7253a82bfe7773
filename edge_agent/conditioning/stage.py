"""Conditioning of a source's windows: the declared steps of each channel, in the order of steps.

First every channel goes through the steps that look at it alone (unit, calibration, range, spike,
flat line), then through those that look at others (drift, redundancy), and at last through those
that leave readings out (resampling, dead-band). What a sensor delivered is kept, where declared,
as ``<channel>.raw``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from domain.asset_model import RAW
from domain.frame_header import VALUE_TYPES
from domain.frames import Quality
from edge_agent.conditioning.drift import Drift
from edge_agent.conditioning.redundancy import Redundancy
from edge_agent.conditioning.samples import Samples, Step, no_samples
from edge_agent.live import DeliveredChannel
from edge_agent.live.window import ChannelWindow, Window

MISSING: Final = int(Quality.MISSING)
FLOAT: Final = "f8"
EXACT_AS_FLOAT: Final = frozenset({"f8", "f4", "i4", "i2", "i1", "u4", "u2", "u1"})
"""Types whose every value a float64 holds exactly; others become floats when conditioned."""


@dataclass(frozen=True, kw_only=True)
class ChannelConditioning:
    """What is declared for one channel.

    Parameters
    ----------
    channel : as it goes on, with its unit after conditioning
    alone : steps up to the flat line, in order
    thinning : resampling and dead-band, in order
    """

    channel: DeliveredChannel
    alone: tuple[Step, ...] = ()
    drift: Drift | None = None
    redundancy: Redundancy | None = None
    thinning: tuple[Step, ...] = ()
    keep_raw: bool = False

    @property
    def changes_values(self) -> bool:
        """Whether a value may come out that was not delivered."""
        return self.redundancy is not None or any(
            step.changes_values for step in (*self.alone, *self.thinning)
        )


class ConditioningStage:
    """Conditions the windows of one source; see `edge_agent.live.window.Stage`."""

    def __init__(self, declared: Sequence[ChannelConditioning]) -> None:
        self._declared = {one.channel.name: one for one in declared}
        self._counts: Counter[tuple[str, str]] = Counter()

    def take_counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often steps found something since last asked, by (channel, code)."""
        counts, self._counts = self._counts, Counter()
        return counts

    def apply(self, window: Window) -> Window:
        """Return `window` conditioned; channels without a declaration stay as they are."""
        # A value beyond what a float holds becomes MISSING, and is no fault of the agent.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._applied(window)

    def _applied(self, window: Window) -> Window:
        conditioned: dict[str, Samples] = {}
        out: list[ChannelWindow] = []
        delivered: dict[str, ChannelWindow] = {}
        for channel in window.channels:
            name = channel.channel.name
            declared = self._declared.get(name)
            if declared is None:
                out.append(channel)
                if channel.channel.rate_hz is None and channel.channel.value_type != "str":
                    conditioned[name] = _samples(channel)
                continue
            samples = _samples(channel)
            if declared.keep_raw:
                out.append(_raw(channel, samples))
            samples = self._alone(name, samples)
            if channel.channel.rate_hz is not None:
                out.append(_delivered(channel, declared, samples))
            else:
                delivered[name] = channel
                conditioned[name] = samples
        self._judge_drift(conditioned)
        fused = self._fused(conditioned)
        for name, declared in self._declared.items():
            samples_left = fused.get(name) if declared.redundancy else conditioned.get(name)
            if samples_left is None or not len(samples_left):
                continue
            thinned = self._thinned(name, samples_left)
            if len(thinned):
                out.append(_delivered(delivered.get(name), declared, thinned))
        return replace(window, channels=tuple(out))

    # --- phases ---------------------------------------------------------------------------

    def _alone(self, name: str, samples: Samples) -> Samples:
        declared = self._declared[name]
        samples, steps = self._through(name, declared.alone, samples)
        self._declared[name] = replace(declared, alone=steps)
        return samples

    def _judge_drift(self, conditioned: dict[str, Samples]) -> None:
        # Each is judged against the others as they came out of the steps before, so that the
        # order of the channels does not matter.
        before = dict(conditioned)
        for name, declared in self._declared.items():
            if declared.drift is None:
                continue
            samples = before.get(name)
            if samples is None:
                # Nothing to judge; what the others say is remembered all the same.
                _, drift, _ = declared.drift.apply(no_samples(), before)
            else:
                conditioned[name], drift, counts = declared.drift.apply(samples, before)
                self._count(name, counts)
            self._declared[name] = replace(declared, drift=drift)

    def _fused(self, conditioned: Mapping[str, Samples]) -> dict[str, Samples]:
        fused: dict[str, Samples] = {}
        for name, declared in self._declared.items():
            if declared.redundancy is not None:
                fused[name], redundancy, counts = declared.redundancy.apply(conditioned)
                self._count(name, counts)
                self._declared[name] = replace(declared, redundancy=redundancy)
        return fused

    def _thinned(self, name: str, samples: Samples) -> Samples:
        declared = self._declared[name]
        samples, steps = self._through(name, declared.thinning, samples)
        self._declared[name] = replace(declared, thinning=steps)
        return samples

    def _through(
        self, name: str, steps: tuple[Step, ...], samples: Samples
    ) -> tuple[Samples, tuple[Step, ...]]:
        later: list[Step] = []
        for step in steps:
            applied = step.apply(samples)
            samples = applied.samples
            later.append(applied.step)
            self._count(name, applied.counts)
        return samples, tuple(later)

    def _count(self, name: str, counts: Mapping[str, int]) -> None:
        for code, count in counts.items():
            if count:
                self._counts[name, code] += count


def conditioned_type(value_type: str, *, changes_values: bool) -> str:
    """Return the type of a channel's values after conditioning."""
    return value_type if not changes_values and value_type in EXACT_AS_FLOAT else FLOAT


def _samples(channel: ChannelWindow) -> Samples:
    """Return the readings as float64; what is no finite number is MISSING."""
    values = np.asarray(channel.values, np.float64)
    absent = (channel.qualities == MISSING) | ~np.isfinite(values)
    if not absent.any():
        return Samples(channel.times_ns, values, channel.qualities)
    qualities = np.where(absent, np.uint8(Quality.MISSING), channel.qualities)
    return Samples(channel.times_ns, np.where(absent, np.nan, values), qualities)


def _raw(channel: ChannelWindow, samples: Samples) -> ChannelWindow:
    """Return the readings as they were delivered; only what no frame can hold is MISSING."""
    values = channel.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        values = np.where(np.isfinite(values), values, np.nan).astype(values.dtype)
    described = replace(channel.channel, name=f"{channel.channel.name}.{RAW}")
    return ChannelWindow(described, channel.times_ns, values, samples.qualities)


def _delivered(
    channel: ChannelWindow | None, declared: ChannelConditioning, samples: Samples
) -> ChannelWindow:
    """Return `samples` as a channel of the window, in the type it is declared to have."""
    described = declared.channel
    if channel is not None and channel.channel.rate_hz != described.rate_hz:
        described = replace(described, rate_hz=channel.channel.rate_hz)
    dtype = VALUE_TYPES[described.value_type]
    if bool(np.isfinite(samples.values).all()):
        values = samples.values.astype(dtype, copy=False)
        return ChannelWindow(described, samples.times_ns, values, samples.qualities)
    # A calibration or a unit may take a value beyond what a float holds.
    absent = ~np.isfinite(samples.values)
    qualities = np.where(absent, np.uint8(Quality.MISSING), samples.qualities)
    is_float = declared.channel.value_type in ("f8", "f4")
    values = np.where(absent, np.nan if is_float else 0.0, samples.values)
    return ChannelWindow(
        described,
        samples.times_ns,
        values.astype(dtype),
        qualities.astype(np.uint8),
    )
