"""A model that is asked within a bounded time, and what stands in for it when it fails.

A run that takes too long cannot be stopped; its thread is left to end, the rule answers meanwhile,
and the model is asked again only once the run has ended and a pause is over. A failure is logged
once, and so is the recovery.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as RunTimeout
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_agent.inference.runtimes import Answer, Runtime, SingleArray

RETRY_S: Final = 10.0

_log = logging.getLogger("heddle.edge.inference")


@dataclass(frozen=True, slots=True)
class FallbackRule:
    """The simpler rule: the largest deviation of a channel against a limit.

    Parameters
    ----------
    model : ``MODEL-ID@VERSION`` under which its answers are told
    limit : in standard deviations of the baseline
    """

    model: str
    limit: float

    def run(self, deviations: SingleArray) -> Answer:
        """Return ratio, contributions and health by the rule; one channel carries all of it."""
        sizes = np.abs(deviations) / np.float32(self.limit)
        ratio = sizes.max(axis=1)
        largest = np.arange(sizes.shape[1]) == sizes.argmax(axis=1)[:, None]
        contributions = np.where(largest, sizes, np.float32(0))
        health = 1 / np.maximum(ratio, 1)
        return Answer(ratio, contributions.astype(np.float32), np.asarray(health, np.float32))


class GuardedModel:
    """A model that may be exchanged while it serves.

    Parameters
    ----------
    time_limit_s : of one run
    fallback : answers while the model does not; None: silence
    """

    def __init__(
        self, runtime: Runtime, time_limit_s: float, fallback: FallbackRule | None
    ) -> None:
        self._time_limit_s = time_limit_s
        self._fallback = fallback
        self._lock = threading.Lock()
        self._runtime = runtime
        self._pool = self._new_pool()
        self._running: Future[Answer] | None = None
        self._failed: str | None = None
        self._retired = ""
        self._retry_at_s = 0.0
        self.failures = 0
        self.fallback_answers = 0

    @staticmethod
    def _new_pool() -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="heddle-model")

    @property
    def runtime(self) -> Runtime:
        """The version that serves."""
        return self._runtime

    @property
    def failure(self) -> str | None:
        """Why it does not answer, or None."""
        return self._failed

    @property
    def retired(self) -> str:
        """Why it is asked no more, or empty."""
        return self._retired

    def retire(self, reason: str) -> None:
        """Ask it no more, until another version or the same one is to serve."""
        with self._lock:
            self._retired = reason

    def swap(self, runtime: Runtime) -> None:
        """Let another version serve from the next run on; a run that hangs is left behind."""
        with self._lock:
            self._runtime = runtime
            self._retired = ""
            self._pool.shutdown(wait=False)
            self._pool, self._running = self._new_pool(), None
            self._retry_at_s = 0.0

    def ask(self, deviations: SingleArray, now_s: float) -> tuple[str, Answer] | None:
        """Return who answered and what; None where nobody does.

        Parameters
        ----------
        deviations : shape (n, n_channels), all finite
        now_s : of a monotonic clock
        """
        with self._lock:
            answer = self._answer(deviations, now_s)
            name = self._runtime.description.name
        if answer is not None:
            return name, answer
        if self._fallback is None:
            return None
        self.fallback_answers += len(deviations)
        return self._fallback.model, self._fallback.run(deviations)

    def _answer(self, deviations: SingleArray, now_s: float) -> Answer | None:
        if self._retired or (self._running is not None and not self._running.done()):
            return None
        if self._failed is not None and now_s < self._retry_at_s:
            return None
        self._running = self._pool.submit(self._runtime.run, deviations)
        try:
            answer = self._running.result(self._time_limit_s)
        except RunTimeout:
            self._fail(f"no answer within {self._time_limit_s * 1e3:g} ms", now_s)
            return None
        except Exception as error:  # whatever a runtime raises
            self._fail(f"{type(error).__name__}: {error}", now_s)
            return None
        if not _is_sound(answer, deviations.shape):
            self._fail("an answer that is no number", now_s)
            return None
        if self._failed is not None:
            _log.warning("%s answers again", self._runtime.description.name)
            self._failed = None
        return answer

    def _fail(self, told: str, now_s: float) -> None:
        self.failures += 1
        self._retry_at_s = now_s + RETRY_S
        if self._failed is None:
            stands_in = f"{self._fallback.model} answers" if self._fallback else "it is silent"
            _log.error("%s fails: %.300s; %s", self._runtime.description.name, told, stands_in)
        self._failed = told


def _is_sound(answer: Answer, shape: tuple[int, ...]) -> bool:
    """Whether shapes are right and every number is finite."""
    return (
        answer.ratio.shape == answer.health.shape == shape[:1]
        and answer.contributions.shape == shape
        and bool(np.isfinite(answer.ratio).all())
        and bool(np.isfinite(answer.contributions).all())
        and bool(np.isfinite(answer.health).all())
    )
