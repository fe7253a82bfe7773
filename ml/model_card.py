"""The card of a trained detector: what it does, from what, how well, and where it stops.

References
----------
M. Mitchell et al., Model cards for model reporting, FAT* 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml.anomaly import AnomalyDetector, DetectionFigures


@dataclass(frozen=True)
class Training:
    """A detector, and how the way it was made did on recordings it had not seen.

    Parameters
    ----------
    candidate_count : settings from which one was chosen
    unseen : per recording, of a detector whose settings and fit came from the others alone
    fault_free : of the detector that serves, on the run without a fault, which it has not seen
    """

    detector: AnomalyDetector
    recordings: tuple[str, ...]
    candidate_count: int
    unseen: dict[str, DetectionFigures]
    fault_free: DetectionFigures | None

    @property
    def total(self) -> DetectionFigures:
        """The figures of all recordings together."""
        return sum(self.unseen.values(), start=DetectionFigures(0, 0, 0, 0))


def model_card(training: Training, described: Mapping[str, object], artefact_bytes: int) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    described : the manifest beside the artefact
    """
    settings = training.detector.settings
    parts = [
        f"# {described['model']} {described['version']}",
        f"Tells when a pump loop no longer behaves as in its first {settings.baseline_s} s under "
        "watch.",
        _facts(training, described, artefact_bytes),
        "## Data and split",
        _data(training),
        "## On recordings it has not seen",
        _figures(training),
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _facts(training: Training, described: Mapping[str, object], artefact_bytes: int) -> str:
    settings = training.detector.settings
    rows = {
        "input": f"deviation of each channel's mean over {settings.window_s} s from its baseline, "
        "in standard deviations of the baseline's seconds: `ml/deviation.py`",
        "output": "squared Mahalanobis distance over its limit (an anomaly above 1), the "
        "contribution of each channel to it, and a health index: 1 within the limit, its inverse "
        "share beyond",
        "channels": ", ".join(training.detector.channels),
        "artefact": f"`{described['artefact']}`, {artefact_bytes} bytes, SHA-256 "
        f"`{described['sha256']}`",
        "made by": "`python -m ml.train_anomaly --recordings skab/data --out DIR --version "
        f"{described['version']}`",
        "code": f"`{described['code_version']}`",
        "seed": f"{described['seed']}: nothing is drawn at random",
    }
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {told} |" for name, told in rows.items())]
    )


def _data(training: Training) -> str:
    settings = training.detector.settings
    settled = (
        "never after it"
        if settings.settled_s is None
        else f"or more than {settings.settled_s} s after it"
    )
    return (
        f"Skoltech Anomaly Benchmark (SKAB) v0.9: {len(training.recordings)} recordings of a water "
        "pump loop at 1 Hz, some twenty minutes each, with one labelled valve fault "
        f"({', '.join(training.recordings)}). Fitted on the seconds that are labelled fault-free "
        f"and lie after the baseline: before the fault, {settled}. Chosen among "
        f"{training.candidate_count} settings: window {settings.window_s} s, limit at the "
        f"{settings.limit_quantile:.0%} quantile of the fault-free scores."
    )


def _figures(training: Training) -> str:
    total = training.total
    seconds = total.hits + total.misses + total.false_alarms + total.silences
    lines = [
        "Each recording was left out in turn; the settings were chosen by cross-validation over "
        "the others, the detector was fitted on the others, and the recording was looked at once. "
        f"{seconds} seconds after the baselines, each counted once; what follows a fault before "
        "the loop has settled counts as fault-free, as it is labelled:",
        "",
        "| recording | F1 | false alarms | missed |",
        "|---|---|---|---|",
        *(
            f"| {name} | {one.f1:.2f} | {one.false_alarm_ratio:.2f} | {one.miss_ratio:.2f} |"
            for name, one in training.unseen.items()
        ),
        f"| **all** | **{total.f1:.3f}** | **{total.false_alarm_ratio:.3f}** | "
        f"**{total.miss_ratio:.3f}** |",
        "",
        "The detector that serves was fitted on all of them, with the settings that "
        "cross-validation over all chose; none of these recordings is unseen to it.",
    ]
    sound = training.fault_free
    if sound is not None:
        lines += [
            "",
            "On `anomaly-free/anomaly-free`, which took no part in training, it tells "
            f"{sound.false_alarm_ratio:.0%} of {sound.false_alarms + sound.silences} seconds. That "
            "run is at another working point (four times the flow) and two and a half hours long: "
            "the loop warms up far beyond the deviations of the twenty minutes that the detector "
            "knows. It may serve at the working point and over the times it was trained for, and "
            "nowhere else.",
        ]
    return "\n".join(lines)


LIMITS = """\
- The baseline has to be fault-free, and the loop in the state in which it is to be judged. A change
  of the working point, or warming up after the baseline, is told as an anomaly; who changes it on
  purpose lets the agent learn the baseline anew.
- One rig, one kind of fault (a valve that closes). It tells neither which fault it is nor when
  something will fail.
- A fault is seen, and its end too, late by up to the window; a loop that has not settled yet after
  a fault is told as faulty.
- A channel without a value in half of its window gives no answer."""
