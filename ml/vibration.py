"""What a vibration says of a machine: statistics, bands, velocity, and a bearing's defect lines.

One definition for training and for the agent beside the machine. Every function takes a batch of
windows, shape (n_windows, n_samples), and returns one value or spectrum a window; nothing is kept
between calls. Values come in the unit of the samples; frequencies are in Hz, a shaft's speed in
rad/s. Where a window gives no answer (silence, a shaft at rest, too short a window) it is NaN.

References
----------
R. B. Randall, Vibration-based Condition Monitoring, Wiley, 2011.
R. B. Randall, J. Antoni, Rolling element bearing diagnostics, a tutorial, Mechanical Systems and
Signal Processing 25 (2011) 485-520.
W. A. Smith, R. B. Randall, Rolling element bearing diagnostics using the Case Western Reserve
University data: a benchmark study, Mechanical Systems and Signal Processing 64-65 (2015) 100-131.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import cos, pi
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

SAMPLES_MIN: Final = 16
SAMPLES_MAX: Final = 1 << 22
HARMONICS: Final = 3
LINE_TOLERANCE_RATIO: Final = 0.01
"""Rolling elements slip: a line lies within 1 to 2 % of where the geometry says (Randall and
Antoni, section 2.1)."""
SURROUNDINGS_RATIO: Final = 0.06
SURROUNDINGS_BINS_MIN: Final = 20
LINE_BINS_MIN: Final = 8
"""A line lower than so many bins of the spectrum cannot be told from its neighbours."""
VELOCITY_BAND_HZ: Final = (10.0, 1_000.0)
"""The frequencies over which ISO 10816 and ISO 20816 take the RMS of a velocity."""


# --- bearings -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DefectOrders:
    """Events for each turn of the inner ring, the outer one standing still.

    Parameters
    ----------
    outer_ring, inner_ring : rolling elements that pass a point of the ring (BPFO, BPFI)
    rolling_element : strikes of a point of an element on either ring, twice its spin (2 x BSF)
    cage : turns of the cage (FTF)
    """

    outer_ring: float
    inner_ring: float
    rolling_element: float
    cage: float


def defect_orders(
    *,
    element_count: int,
    element_diameter_m: float,
    pitch_diameter_m: float,
    contact_angle_rad: float,
) -> DefectOrders:
    """Return the orders at which the defects of a rolling bearing strike.

    Notes
    -----
    Kinematic: pure rolling, a stationary outer ring. Slip moves the lines by 1 to 2 %.

    References
    ----------
    Randall and Antoni (2011), equations 1 to 4.

    Examples
    --------
    >>> orders = defect_orders(element_count=9, element_diameter_m=0.3126 * 0.0254,
    ...                        pitch_diameter_m=1.537 * 0.0254, contact_angle_rad=0.0)
    >>> round(orders.outer_ring, 4), round(orders.inner_ring, 4)
    (3.5848, 5.4152)
    """
    ratio = element_diameter_m / pitch_diameter_m * cos(contact_angle_rad)
    return DefectOrders(
        outer_ring=element_count / 2 * (1 - ratio),
        inner_ring=element_count / 2 * (1 + ratio),
        rolling_element=pitch_diameter_m / element_diameter_m * (1 - ratio**2),
        cage=(1 - ratio) / 2,
    )


# --- in time ------------------------------------------------------------------------------


def rms(windows: FloatArray) -> FloatArray:
    """Return the root mean square about each window's mean, shape (n_windows,)."""
    found: FloatArray = np.std(_checked(windows), axis=1)
    return found


def peak(windows: FloatArray) -> FloatArray:
    """Return the largest departure from each window's mean, shape (n_windows,)."""
    found: FloatArray = np.abs(_centred(windows)).max(axis=1)
    return found


def crest_factor(windows: FloatArray) -> FloatArray:
    """Return peak over RMS, shape (n_windows,): sqrt(2) for a sine, NaN for silence."""
    return _ratio(peak(windows), rms(windows))


def kurtosis(windows: FloatArray) -> FloatArray:
    """Return the fourth central moment over the squared variance, shape (n_windows,).

    3 for Gaussian noise, 1.5 for a sine, more for impulses; NaN for silence. (The kurtosis itself,
    not its excess over 3.)
    """
    squared = _centred(windows) ** 2
    return _ratio((squared**2).mean(axis=1), squared.mean(axis=1) ** 2)


# --- in frequency -------------------------------------------------------------------------


def amplitude_spectrum(windows: FloatArray, rate_hz: float) -> tuple[FloatArray, FloatArray]:
    """Return frequencies, Hz, shape (n_bins,), and amplitudes, shape (n_windows, n_bins).

    A sine of amplitude a on a bin has the amplitude a there (Hann window, single-sided).
    """
    centred = _centred(windows)
    count = centred.shape[1]
    taper = _hann(count)
    amplitudes: FloatArray = np.abs(np.fft.rfft(centred * taper, axis=1)) * (2 / taper.sum())
    return _frequencies(count, rate_hz), amplitudes


def band_rms(
    windows: FloatArray, rate_hz: float, bands_hz: Sequence[tuple[float, float]]
) -> FloatArray:
    """Return the RMS of what lies from `low` to, without, `high` Hz, shape (n_windows, n_bands).

    The squares of adjoining bands add up (Parseval; Hann window with its power made up for).

    Raises
    ------
    ValueError
        a band is empty or reaches beyond half of `rate_hz`
    """
    frequencies, power = _power_spectrum(windows, rate_hz)
    return np.sqrt(_band_sums(frequencies, power, rate_hz, bands_hz))


def velocity_rms(
    accelerations_m_per_s2: FloatArray,
    rate_hz: float,
    band_hz: tuple[float, float] = VELOCITY_BAND_HZ,
) -> FloatArray:
    """Return the RMS, m/s, of the velocity within `band_hz`, shape (n_windows,).

    The acceleration is integrated in frequency: each line over its angular frequency.

    Notes
    -----
    A window shorter than some turns of its lowest frequency tells little of it: 10 Hz wants 0.3 s.

    References
    ----------
    ISO 20816-1:2016, 4.2: the quantity and its usual band, 10 Hz to 1 kHz.
    """
    frequencies, power = _power_spectrum(accelerations_m_per_s2, rate_hz)
    if not 0 < band_hz[0] < min(band_hz[1], rate_hz / 2):
        raise ValueError(f"no velocity within {band_hz} Hz at {rate_hz} Hz")
    of_velocity = np.zeros_like(power)
    of_velocity[:, 1:] = power[:, 1:] / (2 * pi * frequencies[1:]) ** 2
    within = (band_hz[0], min(band_hz[1], rate_hz / 2))
    return np.sqrt(_band_sums(frequencies, of_velocity, rate_hz, [within])[:, 0])


def envelope(windows: FloatArray, rate_hz: float, band_hz: tuple[float, float]) -> FloatArray:
    """Return the envelope of what lies within `band_hz`, shape (n_windows, n_samples).

    Band-pass and Hilbert transform at once: the magnitude of the analytic signal whose spectrum
    is that of the window within the band, and nothing elsewhere.

    Raises
    ------
    ValueError
        the band is empty or reaches beyond half of `rate_hz`

    References
    ----------
    Randall and Antoni (2011), section 4.2, figure 16.
    """
    centred = _centred(windows)
    count = centred.shape[1]
    spectrum = np.fft.rfft(centred, axis=1)
    first, last = _bins(count, rate_hz, band_hz)
    analytic = np.zeros(centred.shape, np.complex128)
    analytic[:, first:last] = 2 * spectrum[:, first:last]
    return np.abs(np.fft.ifft(analytic, axis=1))


def envelope_spectrum(
    windows: FloatArray, rate_hz: float, band_hz: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Return the amplitude spectrum of the envelope, as `amplitude_spectrum` does."""
    return amplitude_spectrum(envelope(windows, rate_hz, band_hz), rate_hz)


# --- lines of an envelope -----------------------------------------------------------------


def line_amplitudes(
    frequencies_hz: FloatArray, amplitudes: FloatArray, lines_hz: FloatArray
) -> FloatArray:
    """Return the largest amplitude around each window's line, shape (n_windows,).

    Parameters
    ----------
    frequencies_hz : evenly spaced from 0, shape (n_bins,)
    amplitudes : shape (n_windows, n_bins)
    lines_hz : shape (n_windows,); a line that the spectrum does not resolve gives NaN
    """
    found = np.full(len(amplitudes), np.nan)
    for n, line_hz in enumerate(lines_hz):
        near = _near(frequencies_hz, float(line_hz))
        if near is not None:
            found[n] = amplitudes[n, near].max()
    return found


def line_prominences(
    frequencies_hz: FloatArray, amplitudes: FloatArray, lines_hz: FloatArray
) -> FloatArray:
    """Return how far each window's lines stand out, shape (n_windows,).

    The geometric mean, over the first three harmonics, of the largest amplitude around the line
    over the median of its surroundings. Noise alone gives 2 to 3.

    Parameters
    ----------
    frequencies_hz, amplitudes, lines_hz : as in `line_amplitudes`
    """
    found = np.full(len(amplitudes), np.nan)
    for n, line_hz in enumerate(lines_hz):
        ratios = [
            _prominence(frequencies_hz, amplitudes[n], float(line_hz) * harmonic)
            for harmonic in range(1, HARMONICS + 1)
        ]
        known = np.array([ratio for ratio in ratios if ratio is not None])
        if ratios[0] is not None and (known > 0).all():
            found[n] = np.exp(np.log(known).mean())
    return found


def _prominence(frequencies_hz: FloatArray, amplitudes: FloatArray, line_hz: float) -> float | None:
    near = _near(frequencies_hz, line_hz)
    if near is None:
        return None
    width = max(round(SURROUNDINGS_RATIO * line_hz / frequencies_hz[1]), SURROUNDINGS_BINS_MIN)
    centre = round(line_hz / frequencies_hz[1])
    low, high = max(centre - width, 1), min(centre + width + 1, len(amplitudes))
    around = np.concatenate((amplitudes[low : near.start], amplitudes[near.stop : high]))
    floor = float(np.median(around)) if len(around) else 0.0
    return float(amplitudes[near].max()) / floor if floor > 0 else None


def _near(frequencies_hz: FloatArray, line_hz: float) -> slice | None:
    """Return the bins within the tolerance of a line, None where the spectrum resolves none."""
    step_hz = float(frequencies_hz[1])
    # NaN and a shaft at rest fail the first comparison.
    if not line_hz >= LINE_BINS_MIN * step_hz:
        return None
    reach = max(LINE_TOLERANCE_RATIO * line_hz / step_hz, 1.0)
    low, high = int(np.ceil(line_hz / step_hz - reach)), int(line_hz / step_hz + reach)
    return None if high >= len(frequencies_hz) else slice(low, high + 1)


# --- all of it ----------------------------------------------------------------------------

DEFECTS: Final = {
    "bpfo": "outer_ring",
    "bpfi": "inner_ring",
    "bsf": "rolling_element",
    "ftf": "cage",
}
"""The features that are lines of the envelope: name and the `DefectOrders` that places it."""


def waveform_features(
    windows: FloatArray,
    rate_hz: float,
    names: Sequence[str],
    *,
    bands_hz: Sequence[tuple[int, int]] = (),
    envelope_band_hz: tuple[float, float] | None = None,
    orders: DefectOrders | None = None,
    speed_rad_per_s: FloatArray | None = None,
) -> dict[str, FloatArray]:
    """Return the features called `names`, and one ``band_<low>_<high>`` for each band.

    Parameters
    ----------
    windows : shape (n_windows, n_samples); for ``velocity_rms`` in m/s2
    envelope_band_hz : for the envelope's features, where the structure rings
    orders, speed_rad_per_s : for those of a bearing; the shaft's speed in each window

    Returns
    -------
    each float64, shape (n_windows,); NaN where a window has no answer

    Raises
    ------
    ValueError
        a name is unknown or what it needs is not given
    """
    found: dict[str, FloatArray] = {}
    if bands_hz:
        columns = band_rms(windows, rate_hz, bands_hz)
        for n, (low, high) in enumerate(bands_hz):
            found[f"band_{low}_{high}"] = columns[:, n]
    simple = {"rms": rms, "peak": peak, "crest_factor": crest_factor, "kurtosis": kurtosis}
    of_envelope = []
    for name in names:
        if name in simple:
            found[name] = simple[name](windows)
        elif name == "velocity_rms":
            found[name] = velocity_rms(windows, rate_hz)
        else:
            of_envelope.append(name)
    if of_envelope:
        if envelope_band_hz is None:
            raise ValueError(f"{', '.join(of_envelope)}: no band of the envelope is given")
        enveloped = envelope(windows, rate_hz, envelope_band_hz)
        found |= _envelope_features(enveloped, rate_hz, of_envelope, orders, speed_rad_per_s)
    return found


def _envelope_features(
    enveloped: FloatArray,
    rate_hz: float,
    names: Sequence[str],
    orders: DefectOrders | None,
    speed_rad_per_s: FloatArray | None,
) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    spectrum: tuple[FloatArray, FloatArray] | None = None
    for name in names:
        if name == "envelope_rms":
            found[name] = np.sqrt((enveloped**2).mean(axis=1) / 2)  # that of the band itself
            continue
        defect = DEFECTS.get(name.removesuffix("_prominence"))
        if defect is None:
            raise ValueError(f"no feature is called {name!r}")
        if orders is None or speed_rad_per_s is None:
            raise ValueError(f"{name}: no bearing or no speed is given")
        spectrum = spectrum or amplitude_spectrum(enveloped, rate_hz)
        lines_hz = getattr(orders, defect) * np.asarray(speed_rad_per_s) / (2 * pi)
        measure = line_prominences if name.endswith("_prominence") else line_amplitudes
        found[name] = measure(*spectrum, lines_hz)
    return found


# --- a rule that was not trained ----------------------------------------------------------


class BearingCondition(StrEnum):
    """What the envelope rule says of a bearing."""

    SOUND = "SOUND"
    OUTER_RING = "OUTER_RING"
    INNER_RING = "INNER_RING"
    ROLLING_ELEMENT = "ROLLING_ELEMENT"


PROMINENCE_LIMIT: Final = 6.0
"""Over its surroundings' median the largest of ten Rayleigh-distributed bins stays below 3.7 in
999 of 1,000 spectra of noise; the geometric mean of three such lines has to exceed it clearly."""
KURTOSIS_LIMIT: Final = 4.0
"""Gaussian noise has 3, with a standard error of sqrt(24 / n): 0.05 for 12,000 samples."""


def bearing_conditions(
    windows: FloatArray,
    rate_hz: float,
    orders: DefectOrders,
    speed_rad_per_s: FloatArray,
    envelope_band_hz: tuple[float, float],
) -> list[BearingCondition]:
    """Return what each window says of the bearing, by a rule that was trained on nothing.

    A ring is damaged where its defect lines stand out of the envelope's spectrum; both do, then
    the more prominent one is. Impulses that keep to neither ring's line are those of a rolling
    element: a ball does not always meet the rings with its damage, so that its line comes and
    goes (Smith and Randall, section 5.3).

    Notes
    -----
    Blind to damage that neither rings nor strikes. Windows should hold at least ten turns.
    """
    features = waveform_features(
        windows,
        rate_hz,
        ("kurtosis", "bpfo_prominence", "bpfi_prominence"),
        envelope_band_hz=envelope_band_hz,
        orders=orders,
        speed_rad_per_s=speed_rad_per_s,
    )
    conditions = []
    for impulses, outer, inner in zip(*features.values(), strict=True):
        if max(outer, inner) >= PROMINENCE_LIMIT:
            ring = BearingCondition.OUTER_RING if outer >= inner else BearingCondition.INNER_RING
            conditions.append(ring)
        elif impulses >= KURTOSIS_LIMIT:
            conditions.append(BearingCondition.ROLLING_ELEMENT)
        else:
            conditions.append(BearingCondition.SOUND)
    return conditions


# --- shared steps -------------------------------------------------------------------------


def _checked(windows: FloatArray) -> FloatArray:
    found = np.asarray(windows, np.float64)
    if found.ndim != 2 or not SAMPLES_MIN <= found.shape[1] <= SAMPLES_MAX:
        raise ValueError(
            f"windows of shape {found.shape} are not (n_windows, {SAMPLES_MIN} to {SAMPLES_MAX})"
        )
    return found


def _centred(windows: FloatArray) -> FloatArray:
    found = _checked(windows)
    centred: FloatArray = found - found.mean(axis=1, keepdims=True)
    return centred


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    found: FloatArray = np.full(len(above), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


@lru_cache(maxsize=16)
def _hann(count: int) -> FloatArray:
    """Return the periodic Hann window of `count` samples."""
    taper: FloatArray = 0.5 - 0.5 * np.cos(2 * pi * np.arange(count) / count)
    taper.flags.writeable = False
    return taper


def _frequencies(count: int, rate_hz: float) -> FloatArray:
    found: FloatArray = np.arange(count // 2 + 1, dtype=np.float64) * (rate_hz / count)
    return found


def _power_spectrum(windows: FloatArray, rate_hz: float) -> tuple[FloatArray, FloatArray]:
    """Return frequencies and the share of each bin in the mean square."""
    centred = _centred(windows)
    count = centred.shape[1]
    taper = _hann(count)
    power: FloatArray = np.abs(np.fft.rfft(centred * taper, axis=1)) ** 2
    power *= 2 / (count * float((taper**2).sum()))
    if count % 2 == 0:
        power[:, -1] /= 2  # the bin at half the rate has no twin
    power[:, 0] /= 2
    return _frequencies(count, rate_hz), power


def _bins(count: int, rate_hz: float, band_hz: tuple[float, float]) -> tuple[int, int]:
    """Return the first bin of a band and the one after its last."""
    low, high = band_hz
    if not 0 <= low < high <= rate_hz / 2:
        raise ValueError(f"no band from {low} to {high} Hz at {rate_hz} samples a second")
    first = int(np.ceil(low * count / rate_hz))
    return first, max(int(np.ceil(high * count / rate_hz)), first + 1)


def _band_sums(
    frequencies: FloatArray,
    power: FloatArray,
    rate_hz: float,
    bands_hz: Sequence[tuple[float, float]],
) -> FloatArray:
    # Two bins more or less than samples halve: the rate tells how many samples there were.
    count = round(rate_hz / float(frequencies[1]))
    sums = np.empty((len(power), len(bands_hz)))
    for n, band_hz in enumerate(bands_hz):
        first, last = _bins(count, rate_hz, band_hz)
        sums[:, n] = power[:, first:last].sum(axis=1)
    return sums
