"""Metrics of subscriptions: groups and who is in them, what was executed and what was delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.graphql.broadcast import Subscriptions


class SubscriptionMetrics(Collector):
    """What is read when it is asked for.

    Parameters
    ----------
    unsent_bytes : how much waits for clients to take it
    """

    def __init__(self, subscriptions: Subscriptions, unsent_bytes: Callable[[], int]) -> None:
        self._subscriptions = subscriptions
        self._unsent_bytes = unsent_bytes

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they stand."""
        groups, counts = self._subscriptions.groups, self._subscriptions.counts
        live = sum(group.live for group in groups)
        yield GaugeMetricFamily(
            "heddle_subscription_groups",
            "Subscriptions that are executed, each once for all who asked for it.",
            value=len(groups),
        )
        subscribers = GaugeMetricFamily(
            "heddle_subscribers",
            "Subscriptions of clients: live, or behind and reading the log by themselves.",
            labels=("state",),
        )
        subscribers.add_metric(("live",), live)
        subscribers.add_metric(("behind",), sum(map(len, groups)) - live)
        yield subscribers
        yield GaugeMetricFamily(
            "heddle_subscription_group_subscribers_max",
            "Subscribers of the largest group.",
            value=max(map(len, groups), default=0),
        )
        yield GaugeMetricFamily(
            "heddle_subscription_unsent_bytes",
            "Bytes that wait in this process for clients to take them.",
            value=self._unsent_bytes(),
        )
        for name, what, value in (
            ("messages", "Messages that were executed and serialised.", counts.executed),
            ("deliveries", "Messages that were given to a connection.", counts.delivered),
            (
                "evictions",
                "Times that a client took too slowly and was left to read the log by itself.",
                counts.evicted,
            ),
        ):
            yield CounterMetricFamily(f"heddle_subscription_{name}_total", what, value=value)
