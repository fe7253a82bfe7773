"""How far a machine has moved from its own baseline: the features of an anomaly detector.

A machine is compared with itself: its first minutes under watch are its baseline. The feature of
a channel is the mean over the last seconds minus that of the baseline, in standard deviations of
the baseline's seconds. The agent and the training call the same functions.

Everything starts from *second means*: per channel the mean of a second's usable readings, NaN
where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

COVERAGE_RATIO: Final = 0.5
"""Of the seconds of a window, or of a baseline, at least so many need a value."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A machine as it was: `mean` and `deviation` (standard) of each channel's seconds, SI.

    A channel that stood still all the time has the deviation NaN: nothing can be measured in it.
    """

    mean: FloatArray
    deviation: FloatArray


def baseline_of(second_means: FloatArray) -> Baseline:
    """Return the baseline that `second_means`, shape (n_seconds, n_channels), make.

    A channel without a value in half of the seconds has none: NaN.
    """
    known = np.isfinite(second_means)
    count = known.sum(axis=0)
    enough = count >= max(COVERAGE_RATIO * len(second_means), 2)
    divisor = np.where(enough, count, 1)
    total = np.where(known, second_means, 0.0).sum(axis=0)
    mean = np.where(enough, total / divisor, np.nan)
    squares = np.where(known, (second_means - np.where(enough, mean, 0.0)) ** 2, 0.0).sum(axis=0)
    deviation = np.sqrt(np.where(enough, squares / divisor, np.nan))
    return Baseline(mean, np.where(deviation > 0, deviation, np.nan))


def deviations(second_means: FloatArray, baseline: Baseline, window_s: int) -> FloatArray:
    """Return for each second the deviation of the `window_s` seconds that end with it.

    Causal: a second's row depends on it and on those before it alone.

    Parameters
    ----------
    second_means : shape (n_seconds, n_channels), consecutive seconds

    Returns
    -------
    float64, the same shape; NaN for the first ``window_s - 1`` seconds, and where half of a
    window's seconds have no value
    """
    found = np.full(second_means.shape, np.nan)
    if len(second_means) < window_s:
        return found
    windows = np.lib.stride_tricks.sliding_window_view(second_means, window_s, axis=0)
    found[window_s - 1 :] = (_means(windows) - baseline.mean) / baseline.deviation
    return found


def latest_deviation(window: FloatArray, baseline: Baseline) -> FloatArray:
    """Return what `deviations` says of the last second of one whole window.

    Parameters
    ----------
    window : its second means, shape (window_s, n_channels)

    Returns
    -------
    float64, shape (n_channels,)
    """
    found: FloatArray = (_means(window.T) - baseline.mean) / baseline.deviation
    return found


def _means(windows: FloatArray) -> FloatArray:
    """Return the mean over the last axis of what is known, NaN where half of it is not."""
    known = np.isfinite(windows)
    count = known.sum(axis=-1)
    total = np.where(known, windows, 0.0).sum(axis=-1)
    enough = count >= COVERAGE_RATIO * windows.shape[-1]
    means: FloatArray = np.where(enough, total / np.where(enough, count, 1), np.nan)
    return means
