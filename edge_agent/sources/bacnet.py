"""BACnet/IP; see `edge_agent.bacnet.connection`."""

from __future__ import annotations

from typing import Final

from edge_agent.bacnet.addresses import (
    INSTANCE_MAX,
    ForeignRegistration,
    check_address,
    check_interface,
    check_object,
)
from edge_agent.bacnet.connection import BacnetConnection, BacnetTarget
from edge_agent.bacnet.device import BacnetPoint, BacnetSource
from edge_agent.channel_mapping import mapped_channels
from edge_agent.scaling import read_scaling
from edge_agent.sources import ConnectionContext, SourceContext
from edge_agent.yaml_section import Section

KIND: Final = "bacnet"

TIMEOUT_S: Final = 3.0
PERIOD_S: Final = 10.0
BBMD_LIFETIME_S: Final = 60
COV_LIFETIME_S: Final = 300


def configure_connection(
    section: Section,
    name: str,
    context: ConnectionContext,  # noqa: ARG001
) -> BacnetConnection | None:
    """Return the connection that `section` declares, or None after noting what is wrong."""
    text = section.text("interface")
    interface = None
    if text is not None:
        interface = section.attempt("interface", lambda: check_interface(text))
    instance = section.whole_number("device_instance", 0, INSTANCE_MAX)
    timeout_s = section.number("timeout_s", 0.05, 60, TIMEOUT_S)
    bbmd = _address(section, "bbmd") if section.has("bbmd") else None
    lifetime_s = section.whole_number("bbmd_lifetime_s", 1, 65_535, BBMD_LIFETIME_S)
    if interface is None or instance is None or timeout_s is None or lifetime_s is None:
        return None
    if bbmd is None:
        return BacnetConnection(name, interface, instance, timeout_s)
    foreign = ForeignRegistration(*bbmd, lifetime_s)
    return BacnetConnection(name, interface, instance, timeout_s, foreign=foreign)


def configure(section: Section, context: SourceContext) -> BacnetSource | None:
    """Return the source that `section` declares, or None after noting what is wrong."""
    device = _address(section, "device")
    period_s = section.number("period_s", 0.05, 3_600, PERIOD_S)
    lifetime_s = section.whole_number("cov_lifetime_s", 3, 86_400, COV_LIFETIME_S)
    channels = mapped_channels(section, context, lambda of, _rate: _point(of))
    if device is None or period_s is None or lifetime_s is None or not channels:
        return None
    return BacnetSource(
        device=device, period_s=period_s, cov_lifetime_s=lifetime_s, mapped=tuple(channels)
    )


def configure_target(section: Section, context: SourceContext) -> BacnetTarget | None:  # noqa: ARG001
    """Return the value that `section` says can be written, or None after noting what is wrong."""
    device = _address(section, "device")
    named = _object(section)
    priority = section.whole_number("priority", 1, 16, 16)
    scaling = read_scaling(section)
    if device is None or named is None or priority is None or scaling is None:
        return None
    return BacnetTarget(device=device, object=named, priority=priority, scaling=scaling)


def _address(section: Section, key: str) -> tuple[str, int] | None:
    text = section.text(key)
    return None if text is None else section.attempt(key, lambda: check_address(text))


def _object(section: Section) -> str | None:
    text = section.text("object")
    return None if text is None else section.attempt("object", lambda: check_object(text))


def _point(section: Section) -> BacnetPoint | None:
    named = _object(section)
    cov = section.plain("cov") if section.has("cov") else False
    if not isinstance(cov, bool):
        section.fault("cov", "configuration.wrong_type", f"{cov!r:.80} is neither true nor false")
        return None
    return None if named is None else BacnetPoint(named, cov)
