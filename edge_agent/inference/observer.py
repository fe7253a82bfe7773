"""The observer that asks an anomaly model about windows, and tells what is new of its answers.

All windows that are due together are one batch, whatever their assets. See
`edge_agent.live.window.Observer`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.events import format_time
from domain.frames import time_from_ns
from edge_agent.inference.guarded import GuardedModel
from edge_agent.inference.runtimes import Runtime, SingleArray
from edge_agent.inference.verdicts import Verdict, VerdictRule, judged
from edge_agent.inference.watch import SECOND_NS, Watch
from edge_agent.live.window import Window
from edge_agent.outbox.records import FROM_POSITION, TO_POSITION, AgentCommand


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """How a model is used.

    Parameters
    ----------
    sources : whose windows it judges; empty: all whose asset type it knows
    asset_types : of the sources that it judges; every version has to know them
    shadow : it is asked, counted and compared, and nothing is sent
    every_s : so often it is asked about a source
    """

    agent: str
    model: str
    sources: frozenset[str]
    shadow: bool
    every_s: int
    rule: VerdictRule
    asset_types: frozenset[str] = frozenset()


@dataclass
class _Followed:
    """A source, what the model has seen of it, and what was told."""

    watch: Watch
    verdict: Verdict


class AnomalyObserver:
    """Asks one model about the windows of its sources.

    Parameters
    ----------
    sha256 : of the model's file
    declared : its section as text, by which a new configuration tells what has changed
    now_s : a monotonic clock
    """

    def __init__(
        self,
        model: GuardedModel,
        use: ModelUse,
        sha256: str,
        declared: str = "",
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.declared = declared
        self._sha256 = sha256
        self.use = use
        self._model = model
        self._now_s = now_s
        self._lock = threading.Lock()  # windows and new versions come from different threads
        self._followed: dict[str, _Followed] = {}
        self._on_anomaly: Mapping[str, Sequence[Callable[[], None]]] = {}
        self._answers = 0
        self._anomalous_answers = 0
        self._predictions = 0

    def call_on_anomaly(self, by_source: Mapping[str, Sequence[Callable[[], None]]]) -> None:
        """Call what is given for a source when an anomaly of it begins, such as for waveforms."""
        with self._lock:
            self._on_anomaly = by_source

    @property
    def called_on_anomaly(self) -> Mapping[str, Sequence[Callable[[], None]]]:
        """What is called when an anomaly begins, by source."""
        return self._on_anomaly

    def serves(self, version: str, sha256: str) -> bool:
        """Return whether that very file serves."""
        serving = self._model.runtime.description.version, self._sha256
        return not self.retired and (version, sha256) == serving

    def judges(self, source: str, asset_type: str) -> bool:
        """Return whether it is asked about windows of a source of that type."""
        if self.use.sources:
            return source in self.use.sources
        return asset_type in self._model.runtime.description.asset_types

    @property
    def input_span_ns(self) -> int:
        """How far back from a window's end lie readings on which a prediction of it may rest.

        Twice the model's window: the channels of a source do not come at the same time.
        """
        return 2 * self._model.runtime.description.window_s * SECOND_NS

    @property
    def serving(self) -> str:
        """The version that serves, or served last, as ``MODEL-ID@VERSION``."""
        return self._model.runtime.description.name

    @property
    def retired(self) -> str:
        """Why that version is asked no more, or empty."""
        return self._model.retired

    def retire(self, reason: str) -> None:
        """Ask the version no more: its rule answers where there is one, or nobody does."""
        self._model.retire(reason)

    def swap(self, runtime: Runtime, sha256: str) -> None:
        """Let another version of the model serve from the next windows on.

        Where it looks at the same channels in the same way, what was learnt of the sources stays.
        """
        with self._lock:
            self._sha256 = sha256
            self._swapped(runtime)

    def _swapped(self, runtime: Runtime) -> None:
        before, after = self._model.runtime.description, runtime.description
        self._model.swap(runtime)
        alike = (before.channels, before.baseline_s, before.window_s) == (
            after.channels,
            after.baseline_s,
            after.window_s,
        )
        if not alike:
            self._followed = {}

    def status(self) -> Mapping[str, object]:
        """Return what a person wants to know of it."""
        description = self._model.runtime.description
        return {
            "model": description.name,
            "device": self._model.runtime.device,
            "shadow": self.use.shadow,
            "retired": self.retired,
            "failure": self._model.failure,
            "failures": self._model.failures,
            "fallback_answers": self._model.fallback_answers,
            "answers": self._answers,
            "anomalous_answers": self._anomalous_answers,
            "predictions": self._predictions,
            "sources": {
                name: {
                    "learning_s_left": followed.watch.learning_s_left,
                    "anomalous": followed.verdict.is_anomalous,
                    "health": followed.verdict.told_health,
                }
                for name, followed in list(self._followed.items())
            },
        }

    def observe(self, windows: Sequence[Window]) -> Sequence[Sequence[AgentCommand]]:
        """Return for each of `windows` the predictions that it gives rise to."""
        with self._lock:
            return self._observed(windows)

    def _observed(self, windows: Sequence[Window]) -> Sequence[Sequence[AgentCommand]]:
        commands: list[Sequence[AgentCommand]] = [()] * len(windows)
        due: dict[str, tuple[int, SingleArray]] = {}
        for n, window in enumerate(windows):
            if not self.judges(window.source, window.asset_type.name):
                continue
            watch = self._follow(window.source).watch
            watch.take(window)
            found = watch.due()
            if found is not None:
                # Of two windows of a source in one batch the later one speaks.
                due[window.source] = (n, found.astype(np.float32))
        if not due:
            return commands
        batch = np.stack([deviations for _, deviations in due.values()])
        answered = self._model.ask(batch, self._now_s())
        if answered is None:
            return commands
        name, answer = answered
        for row, (n, deviations) in enumerate(due.values()):
            told = self._judged(
                windows[n],
                name,
                deviations,
                (float(answer.ratio[row]), float(answer.health[row]), answer.contributions[row]),
            )
            if told is not None:
                commands[n] = (told,)
        return commands

    def _follow(self, source: str) -> _Followed:
        found = self._followed.get(source)
        if found is None:
            watch = Watch(self._model.runtime.description, self.use.every_s)
            found = self._followed[source] = _Followed(watch, Verdict())
        return found

    def _judged(
        self,
        window: Window,
        name: str,
        deviations: SingleArray,
        answer: tuple[float, float, SingleArray],
    ) -> AgentCommand | None:
        ratio, health, contributions = answer
        health = min(max(health, 0.0), 1.0)
        followed = self._followed[window.source]
        self._answers += 1
        self._anomalous_answers += ratio > 1
        second = followed.watch.latest_s
        was_anomalous = followed.verdict.is_anomalous
        followed.verdict, is_new = judged(followed.verdict, self.use.rule, second, ratio, health)
        if followed.verdict.is_anomalous and not was_anomalous:
            for call in self._on_anomaly.get(window.source, ()):
                call()
        if not is_new or self.use.shadow:
            return None
        self._predictions += 1
        return self._prediction(window, name, second, health, deviations, contributions)

    def _prediction(
        self,
        window: Window,
        name: str,
        second: int,
        health: float,
        deviations: SingleArray,
        contributions: SingleArray,
    ) -> AgentCommand:
        """Return the mutation that tells it; its identifiers follow from what it speaks of."""
        words = (self.use.agent, window.source, name, str(second))
        identifier = hashlib.sha256("\x1f".join(words).encode()).hexdigest()[:32]
        # Shares of what health has lost: they are in the output's unit and add up to it.
        ratio = float(contributions.sum())
        shares = contributions * ((health - 1) / ratio if ratio > 0 else 0.0)
        channels = self._model.runtime.description.channels
        return AgentCommand(
            mutation="assessHealth",
            input={
                "predictionId": f"edge-{identifier}",
                "assetId": window.asset,
                "model": name,
                "health": health,
                "occurredAt": format_time(time_from_ns((second + 1) * SECOND_NS)),
                "inputFromPosition": FROM_POSITION,
                "inputToPosition": TO_POSITION,
                "explanation": [
                    {
                        "feature": f"{channel}.deviation",
                        "value": float(value),
                        "contribution": float(share),
                    }
                    for channel, value, share in zip(channels, deviations, shares, strict=True)
                ],
            },
            idempotency_key=f"prediction:edge-{identifier}",
            # Its input: the seconds of one window of the model, whole windows of readings of which
            # may have come before this one.
            input_from_ns=(second + 1 - self._model.runtime.description.window_s) * SECOND_NS,
        )
