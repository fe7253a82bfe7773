"""Metrics for Prometheus at ``/metrics``: what was asked, how long it took, and how far we are.

Names follow Prometheus' conventions: base units, ``_total`` for what only grows. Labels are
bounded: an operation's name is a client's to choose, so only the first `NAMES_MAX` get their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from api.access.guard import Admit
from api.problem import problem
from api.services import Services
from domain.errors import HeddleError
from projections.running.runner import ProjectionRunner

NAMES_MAX: Final = 200
OTHER: Final = "(other)"
ANONYMOUS: Final = "(anonymous)"
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
COST_BUCKETS: Final = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


class OperationMetrics:
    """What is counted of operations; one series of latencies for each type and name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._latency = Histogram(
            "heddle_graphql_operation_seconds",
            "Time that an executed operation took.",
            ("type", "name"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._cost = Histogram(
            "heddle_graphql_operation_cost",
            "Cost of operations, as limits count it.",
            ("type",),
            buckets=COST_BUCKETS,
            registry=registry,
        )
        self._refused = Counter(
            "heddle_graphql_refused_total",
            "Requests that were not executed, by the code of the first error.",
            ("code",),
            registry=registry,
        )
        self._names: dict[tuple[str, str], Callable[[float], None]] = {}
        self._costs = {
            kind: self._cost.labels(kind).observe for kind in ("query", "mutation", "subscription")
        }
        self._codes: set[str] = set()

    def executed(self, kind: str, name: str | None, cost: int, seconds: float) -> None:
        """Count an operation of the type `kind`."""
        key = (kind, name or ANONYMOUS)
        observe = self._names.get(key)
        if observe is None:
            if len(self._names) >= NAMES_MAX:
                key = (kind, OTHER)
            observe = self._names[key] = self._latency.labels(*key).observe
        observe(seconds)
        self._costs[kind](cost)

    def refused(self, code: str) -> None:
        """Count a request that was not executed."""
        if code not in self._codes and len(self._codes) >= NAMES_MAX:
            code = OTHER
        self._codes.add(code)
        self._refused.labels(code).inc()


class ServerState(Collector):
    """What is read when it is asked for: projections, and what goes on.

    Parameters
    ----------
    in_flight, sockets : how many operations are being executed, and sockets are open
    """

    def __init__(
        self, services: Services, in_flight: Callable[[], int], sockets: Callable[[], int]
    ) -> None:
        self._services = services
        self._in_flight = in_flight
        self._sockets = sockets

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges as they stand."""
        yield _gauge(
            "heddle_graphql_in_flight", "Operations being executed over HTTP.", self._in_flight()
        )
        yield _gauge("heddle_sockets_open", "WebSockets that are open.", self._sockets())
        runners = self._services.runners
        for name, what, values in (
            ("position", "Position in the log that it reflects.", _positions),
            ("lag_events", "Events of the log that it does not reflect yet.", _lags),
            ("failed", "1 while it is stopped by a failure.", _failures),
        ):
            family = GaugeMetricFamily(f"heddle_projection_{name}", what, labels=("projection",))
            for projection, value in values(runners):
                family.add_metric((projection,), value)
            yield family


class MetricsEndpoint:
    """``GET /metrics``."""

    def __init__(self, registry: CollectorRegistry, admit: Admit) -> None:
        self._registry = registry
        self._admit = admit

    async def __call__(self, request: Request) -> Response:
        """Answer with every metric in Prometheus' text format."""
        try:
            await self._admit(HTTPConnection(request.scope))
        except HeddleError as error:
            return problem(error)
        return Response(
            generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_PLAIN_1_0_0}
        )


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)


def _positions(runners: Mapping[str, ProjectionRunner]) -> Iterable[tuple[str, float]]:
    return [(name, runner.position) for name, runner in runners.items()]


def _lags(runners: Mapping[str, ProjectionRunner]) -> Iterable[tuple[str, float]]:
    return [(name, runner.lag) for name, runner in runners.items()]


def _failures(runners: Mapping[str, ProjectionRunner]) -> Iterable[tuple[str, float]]:
    return [(name, float(runner.failure is not None)) for name, runner in runners.items()]
