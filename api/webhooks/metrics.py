"""What is counted of webhooks, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.webhooks.store import DeliveryState, Outcome
from projections.webhooks import WebhookRow

NAMES_MAX: Final = 200
OTHER: Final = "(other)"
BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_OUTCOMES: Final[Mapping[DeliveryState, str]] = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PENDING: "failed",
    DeliveryState.DEAD: "given_up",
    DeliveryState.WITHDRAWN: "withdrawn",
}


class WebhookMetrics:
    """Counters; a webhook's id is a label for the first `NAMES_MAX` of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._planned = Counter(
            "heddle_webhook_deliveries_planned_total",
            "Deliveries that were made from the log.",
            ("webhook",),
            registry=registry,
        )
        self._attempts = Counter(
            "heddle_webhook_attempts_total",
            "Attempts to deliver, by what became of them.",
            ("webhook", "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            "heddle_webhook_attempt_seconds",
            "Time that an attempt took.",
            ("webhook",),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._names: set[str] = set()

    def planned(self, webhook_id: str, deliveries: int) -> None:
        """Count deliveries that were made."""
        self._planned.labels(self._label(webhook_id)).inc(deliveries)

    def attempted(self, webhook_id: str, outcome: Outcome) -> None:
        """Count an attempt."""
        label = self._label(webhook_id)
        self._attempts.labels(label, _OUTCOMES[outcome.state]).inc()
        self._seconds.labels(label).observe(outcome.duration_s)

    def _label(self, webhook_id: str) -> str:
        if webhook_id not in self._names:
            if len(self._names) >= NAMES_MAX:
                return OTHER
            self._names.add(webhook_id)
        return webhook_id


class WebhookAtWork(Protocol):
    """`api.webhooks.run.WebhookRun`, as far as it is measured."""

    row: WebhookRow

    @property
    def failure(self) -> str | None:
        """Why it does not get on at present; None while it does."""

    @property
    def pending(self) -> int:
        """How many deliveries wait."""

    @property
    def lag(self) -> int:
        """Events of the log that are not told in deliveries yet."""


class WebhookState(Collector):
    """What is read when it is asked for: of the webhooks that this process serves."""

    def __init__(self, runs: Callable[[], Iterable[WebhookAtWork]]) -> None:
        self._runs = runs

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges as they stand."""
        runs = list(self._runs())
        pending = GaugeMetricFamily(
            "heddle_webhook_pending", "Deliveries that wait.", labels=("webhook",)
        )
        lag = GaugeMetricFamily(
            "heddle_webhook_lag_events",
            "Events of the log that are not told in deliveries yet.",
            labels=("webhook",),
        )
        failing = GaugeMetricFamily(
            "heddle_webhook_failing", "1 while it does not get on.", labels=("webhook",)
        )
        for run in runs:
            webhook_id = (run.row.webhook_id,)
            pending.add_metric(webhook_id, run.pending)
            lag.add_metric(webhook_id, run.lag)
            failing.add_metric(webhook_id, float(run.failure is not None))
        yield from (pending, lag, failing)
