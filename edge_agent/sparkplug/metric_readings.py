"""What a metric says, as readings of the channel that maps it."""

from __future__ import annotations

import math

import numpy as np

from domain.errors import InvalidInput
from domain.frames import Quality
from edge_agent.delivered_numbers import judged_number
from edge_agent.delivered_values import is_exact, value_of
from edge_agent.live import DeliveredChannel, Feed
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.sparkplug.node_session import Told
from edge_agent.sparkplug.payload import Value


def add_metric(
    buffer: ReadingBuffer,
    feed: Feed,
    channel: int,
    mapped: DeliveredChannel,
    told: Told,
    time_ns: int,
) -> None:
    """Add what a metric says of `time_ns` to the readings of a channel, and tell what is wrong."""
    metric, name = told.metric, told.known.name
    if not -(2**63) <= time_ns < 2**63:
        message = f"a time of {time_ns} ns since 1970"
        feed.fault("value.time_out_of_range", message, channel=mapped.name, text=name)
        return
    value: Value = None
    try:
        value = metric.value(metric.datatype or told.known.datatype)
    except InvalidInput as error:
        feed.fault(error.code, error.message, channel=mapped.name, text=name)
    if mapped.rate_hz is not None:
        _add_run(buffer, feed, channel, mapped.name, value, time_ns, metric.quality)
        return
    found, quality, code = value_of(value, mapped) if is_exact(mapped) else _number(value)
    if code:
        message = f"{value!r:.80} gives no good reading"
        feed.fault(code, message, channel=mapped.name, text=name)
    buffer.add(channel, time_ns, found, max(quality, metric.quality))


def _number(value: Value) -> tuple[float, int, str]:
    """Return the number that `value` is, its quality, and a fault's code or nothing."""
    if value is None:
        return math.nan, Quality.MISSING, ""
    if isinstance(value, str):
        return math.nan, Quality.MISSING, "value.not_numeric"
    if isinstance(value, np.ndarray):
        return math.nan, Quality.MISSING, "value.unsupported_type"
    return judged_number(value)


def _add_run(
    buffer: ReadingBuffer,
    feed: Feed,
    channel: int,
    name: str,
    value: Value,
    time_ns: int,
    quality: Quality,
) -> None:
    if not isinstance(value, np.ndarray) or not len(value):
        feed.fault("value.no_waveform", f"{value!r:.80} is no array", channel=name)
        return
    samples = value.astype(np.float64)
    finite = np.isfinite(samples)
    if not finite.all():
        message = f"{int((~finite).sum())} samples are not finite"
        feed.fault("value.not_finite", message, channel=name)
        samples = np.where(finite, samples, np.nan)
    qualities = np.where(finite, np.uint8(quality), np.uint8(Quality.MISSING))
    buffer.add_run(channel, time_ns, samples, qualities)
