"""OPC UA: nodes of a server as channels, by subscription; see `edge_agent.opcua.connection`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from domain.errors import InvalidInput
from edge_agent.channel_mapping import mapped_channels
from edge_agent.scaling import read_scaling
from edge_agent.secrets import secret, text_or_secret
from edge_agent.sources import ConnectionContext, SourceContext
from edge_agent.yaml_section import Section

if TYPE_CHECKING:
    from edge_agent.opcua.connection import Item, OpcUaConnection, OpcUaSource
    from edge_agent.opcua.security import Security
    from edge_agent.opcua.writing import OpcUaTarget

KIND: Final = "opcua"

TIMEOUT_S: Final = 4.0
PUBLISHING_MS: Final = 100.0
INTERVAL_MS_MAX: Final = 3_600_000.0
QUEUE_SIZE: Final = 100
QUEUE_SIZE_MAX: Final = 100_000
NO_SECURITY: Final = "None"
STAMPED: Final = ("end", "start")


def configure_connection(
    section: Section, name: str, context: ConnectionContext
) -> OpcUaConnection | None:
    """Return the connection that `section` declares, or None after noting what is wrong."""
    from edge_agent.opcua.connection import Endpoint, OpcUaConnection

    url = section.text("url")
    sound_url = None if url is None else section.attempt("url", lambda: _checked_url(url))
    faults = len(section.faults)
    security = _security(section, context.folder)
    username = text_or_secret(section, "username") if section.has("username") else None
    password = secret(section, "password") if section.has("password") else None
    timeout_s = section.number("timeout_s", 0.1, 60.0, TIMEOUT_S)
    if sound_url is None or timeout_s is None or len(section.faults) > faults:
        return None
    endpoint = Endpoint(
        url=sound_url,
        security=security,
        username=username,
        password=password,
        timeout_s=timeout_s,
    )
    return OpcUaConnection(name, endpoint)


def configure(section: Section, context: SourceContext) -> OpcUaSource | None:
    """Return the source that `section` declares, or None after noting what is wrong."""
    from edge_agent.opcua.connection import OpcUaSource

    publishing_ms = section.number("publishing_ms", 1.0, INTERVAL_MS_MAX, PUBLISHING_MS)
    sampling_ms = section.number("sampling_ms", 0.0, INTERVAL_MS_MAX, publishing_ms or 0.0)
    queue_size = section.whole_number("queue_size", 1, QUEUE_SIZE_MAX, QUEUE_SIZE)
    if publishing_ms is None or sampling_ms is None or queue_size is None:
        return None
    channels = mapped_channels(
        section,
        context,
        lambda mapping, _rate_hz: _item(mapping, sampling_ms, queue_size),
        waveforms=True,
    )
    return OpcUaSource(tuple(channels), publishing_ms) if channels else None


def configure_target(section: Section, context: SourceContext) -> OpcUaTarget | None:  # noqa: ARG001
    """Return the node that `section` says can be written, or None after noting what is wrong."""
    from edge_agent.opcua.nodes import check_node
    from edge_agent.opcua.writing import OpcUaTarget

    node = section.text("node")
    sound = None if node is None else section.attempt("node", lambda: check_node(node))
    scaling = read_scaling(section)
    return None if sound is None or scaling is None else OpcUaTarget(sound, scaling)


def _item(mapping: Section, sampling_ms: float, queue_size: int) -> Item | None:
    from edge_agent.opcua.connection import Item
    from edge_agent.opcua.nodes import check_node

    node = mapping.text("node")
    sound = None if node is None else mapping.attempt("node", lambda: check_node(node))
    sampling = mapping.number("sampling_ms", 0.0, INTERVAL_MS_MAX, sampling_ms)
    queue = mapping.whole_number("queue_size", 1, QUEUE_SIZE_MAX, queue_size)
    stamped = mapping.choice("stamped", STAMPED, STAMPED[0])
    if sound is None or sampling is None or queue is None or stamped is None:
        return None
    return Item(sound, sampling, queue, stamped)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        sound = parts.scheme == "opc.tcp" and parts.hostname and parts.username is None
        if sound and (parts.port is None or parts.port > 0):
            return url
    except ValueError:
        pass
    raise InvalidInput(
        "connection.address",
        f"{url!r:.120} is no address of an OPC UA server",
        hint="such as opc.tcp://10.0.0.5:4840/plant; user and password have keys of their own",
        value=url[:120],
    )


def _security(section: Section, folder: Path) -> Security | None:
    """Return how the session is secured; None where it is declared not to be, or wrongly."""
    from edge_agent.opcua.security import MODES, POLICIES, Security, check_key, read_certificate

    if not section.has("security"):
        return None
    declared = section.section("security")
    if declared is None:
        return None
    policy = declared.choice("policy", [NO_SECURITY, *POLICIES])
    if policy is None or policy == NO_SECURITY:
        declared.finish()
        return None
    mode = declared.choice("mode", MODES, MODES[0])
    files = {
        key: None if text is None else folder / text
        for key in ("certificate", "key", "server_certificate")
        for text in [declared.text(key)]
    }
    key_password = secret(declared, "key_password") if declared.has("key_password") else None
    declared.finish()
    certificate, key = files["certificate"], files["key"]
    server_certificate = files["server_certificate"]
    if mode is None or certificate is None or key is None or server_certificate is None:
        return None
    declared.attempt("certificate", lambda: read_certificate(certificate))
    declared.attempt("server_certificate", lambda: read_certificate(server_certificate))
    declared.attempt("key", lambda: check_key(key, key_password))
    return Security(
        policy=policy,
        mode=mode,
        certificate=certificate,
        key=key,
        key_password=key_password,
        server_certificate=server_certificate,
    )
