"""Metrics of an agent for Prometheus, on a port of this machine alone.

Asked for in a thread of its own, so it shows the latest snapshot and touches neither outbox nor
sources. Names follow Prometheus' conventions: base units, ``_total`` for what only grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from domain.errors import Unavailable
from edge_agent.operations.snapshot import Snapshot
from edge_agent.outbox.records import OutboxStatus

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOPBACK: Final = "127.0.0.1"

Told = Callable[[], tuple[Snapshot, OutboxStatus] | None]


@contextmanager
def serving_metrics(port: int, told: Told) -> Iterator[None]:
    """Answer Prometheus on `port` of this machine; 0 answers nobody.

    Raises
    ------
    Unavailable
        ``metrics.port``: something else listens there
    """
    if not port:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(_Collector(told))
    try:
        server, thread = start_http_server(port, LOOPBACK, registry)
    except OSError as error:
        raise Unavailable(
            "metrics.port", f"port {port} of {LOOPBACK} cannot be used: {error}", value=port
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Makes metrics of the latest snapshot."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def describe(self) -> list[Metric]:
        """Return none: they are not known before the agent runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        told = self._told()
        if told is None:
            return
        snapshot, outbox = told
        yield from _totals(snapshot, outbox)
        yield from _gauges(snapshot, outbox)


def _totals(snapshot: Snapshot, outbox: OutboxStatus) -> Iterator[Metric]:
    yield _counter("readings", "Readings that sources brought", snapshot.readings)
    yield _counters(
        "frames",
        "Frames that the server answered",
        "outcome",
        {
            "accepted": snapshot.frames_accepted,
            "duplicate": snapshot.frames_duplicate,
            "rejected": snapshot.frames_rejected,
        },
    )
    yield _counter("failed_requests", "Requests that failed", snapshot.frames_failed_requests)
    yield _counters(
        "commands",
        "Commands that the server answered",
        "outcome",
        {"carried_out": snapshot.commands_carried_out, "rejected": snapshot.commands_rejected},
    )
    yield _counters(
        "readings_lost", "Readings lost for a declared reason", "reason", outbox.lost_counts
    )
    yield _counters("losses", "Declared losses", "reason", outbox.loss_counts)


def _gauges(snapshot: Snapshot, outbox: OutboxStatus) -> Iterator[Metric]:
    yield _gauge("running_seconds", "Since the agent started", snapshot.running_s)
    yield _gauge("outbox_frames", "Frames that wait", outbox.pending_frames)
    yield _gauge("outbox_bytes", "Bytes of frames that wait", outbox.pending_bytes)
    yield _gauge("outbox_oldest_seconds", "Age of the oldest frame", outbox.oldest_pending_s)
    yield _gauge("outbox_commands", "Commands that wait", outbox.pending_commands)
    yield _gauges_by("frames_put_aside", "Frames put aside", "code", outbox.rejected_counts)
    yield _gauges_by(
        "commands_put_aside", "Commands put aside", "code", outbox.rejected_command_counts
    )
    yield _gauge("server_up", "Whether the server takes frames", snapshot.server_failing_s is None)
    if snapshot.directives_silent_s is not None:
        silent_s = snapshot.directives_silent_s
        yield _gauge("directives_silent_seconds", "Since the stream's last sign of life", silent_s)
    yield _gauges_by(
        "connection_up",
        "Whether a connection delivers",
        "connection",
        {name: float(not why) for name, why in snapshot.connections.items()},
    )
    yield _gauge("writing_stopped", "Whether all writing is stopped", snapshot.writing_stopped)
    yield _gauges_by(
        "certificate_days_left",
        "Until a certificate ends, days",
        "file",
        {one.file: one.days_left for one in snapshot.certificates if one.days_left is not None},
    )


def _counter(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"heddle_agent_{name}", text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, Any]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"heddle_agent_{name}", text, labels=[label])
    for told, value in values.items():
        family.add_metric([told], value)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"heddle_agent_{name}", text, value=float(value))


def _gauges_by(name: str, text: str, label: str, values: Mapping[str, Any]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"heddle_agent_{name}", text, labels=[label])
    for told, value in values.items():
        family.add_metric([told], float(value))
    return family
