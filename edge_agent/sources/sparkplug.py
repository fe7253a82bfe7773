"""Sparkplug B: the agent as host application; see `edge_agent.sparkplug.host`."""

from __future__ import annotations

from typing import Final

from domain.errors import InvalidInput
from edge_agent.channel_mapping import mapped_channels
from edge_agent.scaling import read_scaling
from edge_agent.sources import ConnectionContext, SourceContext
from edge_agent.sources.mqtt import read_broker
from edge_agent.sparkplug.host import SparkplugConnection, SparkplugSource, SparkplugTarget
from edge_agent.sparkplug.payload import NAME_LENGTH_MAX
from edge_agent.sparkplug.topics import check_id
from edge_agent.yaml_section import Section

KIND: Final = "sparkplug"

REORDER_TIMEOUT_S: Final = 2.0
REORDER_TIMEOUT_S_MAX: Final = 60.0


def configure_connection(
    section: Section, name: str, context: ConnectionContext
) -> SparkplugConnection | None:
    """Return the connection that `section` declares, or None after noting what is wrong."""
    host_id = _id(section, "host_id", "host") if section.has("host_id") else context.agent
    wait_s = section.number("reorder_timeout_s", 0.01, REORDER_TIMEOUT_S_MAX, REORDER_TIMEOUT_S)
    # Sparkplug's sessions are clean: its births say all that a kept session would.
    broker = read_broker(section, context, f"{context.agent}-{name}", 0)
    if broker is None or host_id is None or wait_s is None:
        return None
    return SparkplugConnection(name, broker, host_id, wait_s)


def configure(section: Section, context: SourceContext) -> SparkplugSource | None:
    """Return the source that `section` declares, or None after noting what is wrong."""
    place = _place(section)
    channels = mapped_channels(section, context, lambda of, _rate: _metric(of), waveforms=True)
    if place is None or not channels:
        return None
    group, node, device = place
    return SparkplugSource(group=group, node=node, device=device, mapped=tuple(channels))


def configure_target(section: Section, context: SourceContext) -> SparkplugTarget | None:  # noqa: ARG001
    """Return the metric that `section` says can be written, or None after noting what is wrong."""
    place, metric, scaling = _place(section), _metric(section), read_scaling(section)
    if place is None or metric is None or scaling is None:
        return None
    group, node, device = place
    return SparkplugTarget(group=group, node=node, device=device, metric=metric, scaling=scaling)


def _place(section: Section) -> tuple[str, str, str | None] | None:
    group, node = _id(section, "group", "group"), _id(section, "node", "node")
    device = _id(section, "device", "device") if section.has("device") else None
    if group is None or node is None or (device is None and section.has("device")):
        return None
    return group, node, device


def _id(section: Section, key: str, kind: str) -> str | None:
    text = section.text(key)
    return None if text is None else section.attempt(key, lambda: check_id(kind, text))


def _metric(section: Section) -> str | None:
    text = section.text("metric")
    return None if text is None else section.attempt("metric", lambda: _checked(text))


def _checked(name: str) -> str:
    if len(name) > NAME_LENGTH_MAX:
        told = f"the name of a metric has {len(name)} characters, more than {NAME_LENGTH_MAX}"
        raise InvalidInput("mapping.metric", told, limit=NAME_LENGTH_MAX)
    return name
