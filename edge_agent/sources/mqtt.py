"""Plain JSON over MQTT 3.1.1 or 5, read by a mapping; see `edge_agent.mqtt.connection`."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path
from typing import Final

from domain.frames import Quality
from edge_agent.channel_mapping import mapped_channels
from edge_agent.mqtt.client import MESSAGE_BYTES_MAX, Broker, Certificates, broker_place
from edge_agent.mqtt.connection import MqttConnection, MqttSource
from edge_agent.mqtt.json_messages import Field, JsonMapping, QualityField, read_path
from edge_agent.mqtt.topics import check_filter
from edge_agent.secrets import secret, text_or_secret
from edge_agent.sources import ConnectionContext, SourceContext
from edge_agent.time_declaration import declared_times
from edge_agent.timestamps import TimeReader
from edge_agent.yaml_section import Section

KIND: Final = "mqtt"

FILTERS_MAX: Final = 100
SESSION_EXPIRY_S: Final = 7 * 24 * 3600
SESSION_EXPIRY_S_MAX: Final = 2**32 - 2
CLIENT_ID_BYTES_MAX: Final = 23 * 4
_VERSIONS: Final = {"3.1.1": 3, "5": 5}


def configure_connection(
    section: Section, name: str, context: ConnectionContext
) -> MqttConnection | None:
    """Return the connection that `section` declares, or None after noting what is wrong."""
    session = section.text("session") if section.has("session") else f"{context.agent}-{name}"
    expiry_s = section.whole_number("session_expiry_s", 1, SESSION_EXPIRY_S_MAX, SESSION_EXPIRY_S)
    broker = read_broker(section, context, session, expiry_s)
    return None if broker is None else MqttConnection(name, broker)


def configure(section: Section, context: SourceContext) -> MqttSource | None:
    """Return the source that `section` declares, or None after noting what is wrong."""
    filters = read_filters(section, "topic")
    qos = section.whole_number("qos", 0, 2, 1)
    time = section.child("time")
    path, times = (None, None) if time is None else _time(time)
    samples = _path(section, "samples") if section.has("samples") else None
    quality_section = section.child("quality")
    quality = None if quality_section is None else _quality(quality_section)
    channels = mapped_channels(section, context, lambda of, _rate: _field(of), waveforms=True)
    if not filters or qos is None or not channels or (time is not None and times is None):
        return None
    mapping = JsonMapping(
        channels=tuple(channels), samples=samples, time=path, times=times, quality=quality
    )
    return MqttSource(filters=tuple(filters), qos=qos, mapping=mapping)


def read_broker(
    section: Section, context: ConnectionContext, client_id: str | None, expiry_s: int | None
) -> Broker | None:
    """Return the broker of ``url``, ``version``, ``username``, ``password`` and ``tls``."""
    url = section.text("url")
    place = None if url is None else section.attempt("url", lambda: broker_place(url))
    version = section.choice("version", list(_VERSIONS), "5")
    username = text_or_secret(section, "username") if section.has("username") else None
    password = secret(section, "password") if section.has("password") else None
    bytes_max = section.whole_number("message_bytes_max", 64, 64 * 1024**2, MESSAGE_BYTES_MAX)
    secure = place is not None and place[0] == "mqtts"
    certificates = read_certificates(section, context.folder, secure=secure)
    if client_id is not None and len(client_id.encode()) > CLIENT_ID_BYTES_MAX:
        told = f"{client_id!r} is longer than {CLIENT_ID_BYTES_MAX} bytes"
        section.fault("session", "connection.client_id", told)
        return None
    if place is None or version is None or bytes_max is None or not client_id or expiry_s is None:
        return None
    return Broker(
        host=place[1],
        port=place[2],
        client_id=client_id,
        version=_VERSIONS[version],
        username=username,
        password=password,
        certificates=certificates if secure else None,
        session_expiry_s=expiry_s,
        message_bytes_max=bytes_max,
    )


def read_certificates(section: Section, folder: Path, *, secure: bool) -> Certificates | None:
    """Return the files of ``tls``, each relative to `folder`, after trying to read them."""
    tls = section.child("tls")
    if tls is None:
        return Certificates() if secure else None
    if not secure:
        section.fault("tls", "connection.tls", "a broker at mqtt:// is not reached by TLS", "mqtts")
    files = {
        key: folder / text
        for key in ("authority", "certificate", "key")
        if tls.has(key) and (text := tls.text(key)) is not None
    }
    key_password = secret(tls, "key_password") if tls.has("key_password") else None
    tls.finish()
    if "key" in files and "certificate" not in files:
        told = "a key without its certificate"
        section.fault("tls", "connection.certificate", told, "add 'certificate'")
        return None
    certificates = Certificates(**files, key_password=key_password)
    try:
        certificates.context()
    except (OSError, ssl.SSLError) as error:
        section.fault("tls", "connection.certificate", f"not usable: {error}")
        return None
    return certificates


def read_filters(section: Section, key: str) -> list[tuple[str, ...]]:
    """Return the topic filters at `key`, or none after noting what is wrong."""
    texts = section.texts(key) or []
    if len(texts) > FILTERS_MAX:
        section.fault(key, "configuration.too_many", f"more than {FILTERS_MAX} topics")
        return []
    found = [section.attempt(key, partial(check_filter, text)) for text in texts]
    return [levels for levels in found if levels is not None]


def _path(section: Section, key: str) -> tuple[str, ...] | None:
    text = section.text(key)
    return None if text is None else section.attempt(key, lambda: read_path(text))


def _field(section: Section) -> Field | None:
    # An empty pointer is the whole message, which `text` would call a missing text.
    empty = section.has("field") and section.plain("field") == ""
    path: tuple[str, ...] | None = () if empty else _path(section, "field")
    levels = None
    if section.has("topic"):
        text = section.text("topic")
        levels = None if text is None else section.attempt("topic", lambda: check_filter(text))
        if levels is None:
            return None
    return None if path is None else Field(path, levels)


def _time(section: Section) -> tuple[tuple[str, ...] | None, TimeReader | None]:
    path = _path(section, "field")
    times = declared_times(section)
    section.finish()
    return path, None if path is None else times


def _quality(section: Section) -> QualityField | None:
    path = _path(section, "field")
    words: dict[str, Quality] = {}
    for key, quality in (
        ("good", Quality.GOOD),
        ("uncertain", Quality.UNCERTAIN),
        ("bad", Quality.BAD),
    ):
        for word in (section.texts(key) or []) if section.has(key) else []:
            words[word.lower()] = quality
    otherwise = section.choice("otherwise", ("good", "uncertain", "bad"), "uncertain")
    section.finish()
    if path is None or otherwise is None:
        return None
    return QualityField(path, words, Quality[otherwise.upper()])
