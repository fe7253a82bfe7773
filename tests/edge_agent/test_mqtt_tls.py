"""TLS with a real broker, of MQTT and of Sparkplug: who is believed, and who is let in."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.configuration import security_files
from edge_agent.live import Connection, ConnectionLost
from edge_agent.mqtt.connection import MqttConnection
from edge_agent.operations.certificates import certificate_statuses
from edge_agent.sparkplug.host import SparkplugConnection
from edge_agent.yaml_section import ConfigurationFaults
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.certificates import Authority
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until
from tests.edge_agent.frame_server import FrameServer, serving
from tests.edge_agent.test_mqtt_agent import start

pytestmark = pytest.mark.anyio

SOURCES: dict[str, dict[str, Any]] = {
    "mqtt": {"topic": "plant/#", "channels": {"flow": {"field": "flow", "unit": "l/min"}}},
    "sparkplug": {
        "group": "plant",
        "node": "edge-1",
        "channels": {"flow": {"metric": "flow", "unit": "l/min"}},
    },
}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "authority"
    folder.mkdir()
    return Authority(folder)


@contextmanager
def secured(
    folder: Path, authority: Authority, server: tuple[Path, Path], *, mutual: bool = False
) -> Iterator[MosquittoBroker]:
    """Start a broker that speaks TLS alone and, where `mutual`, asks for a certificate."""
    certificate, key = server
    at = folder / "broker"
    at.mkdir()
    settings = [f"certfile {certificate}", f"keyfile {key}", f"cafile {authority.file}"]
    if mutual:
        settings += ["require_certificate true", "use_identity_as_username true"]
    with mosquitto_broker(at, *settings, "allow_anonymous true") as running:
        yield running


def connection(
    folder: Path, kind: str, broker: MosquittoBroker, tls: dict[str, str]
) -> tuple[Connection, Any]:
    """Return the connection of `kind` to `broker` with the keys `tls`, and its source."""
    configuration = live_configuration(
        folder,
        {"broker": {"kind": kind, "url": f"mqtts://127.0.0.1:{broker.port}", "tls": tls}},
        {
            "kind": kind,
            "connection": "broker",
            "asset": "pump-1",
            "asset_type": "skab-pump-loop",
            "window": {"seconds": 1, "readings": 100},
        }
        | SOURCES[kind],
    )
    return configuration.connections[0].connection, configuration.live[0].source


async def refusal(made: tuple[Connection, Any]) -> ConnectionLost:
    """Return what ends the connection."""
    with pytest.raises(ConnectionLost) as refused:
        await made[0].run([(made[1], RecordingFeed())])
    return refused.value


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_broker_of_the_declared_authority_is_talked_to(
    tmp_path: Path, authority: Authority, kind: str
) -> None:
    with secured(tmp_path, authority, authority.issue("broker")) as broker:
        made, source = connection(tmp_path, kind, broker, {"authority": str(authority.file)})
        async with delivering(made, (source, RecordingFeed())) as task:
            await until(lambda: broker.said("Sending SUBACK") or task.done())
            assert not task.done()


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_broker_that_is_not_to_be_believed_is_refused_with_its_reason(
    tmp_path: Path, authority: Authority, kind: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = Authority(other)
    with secured(tmp_path, authority, authority.issue("broker")) as broker:
        made = connection(tmp_path, kind, broker, {"authority": str(stranger.file)})
        refused = await refusal(made)
        assert refused.code == "connection.certificate_refused"
        # The system's authorities do not know it either.
        assert (await refusal(connection(tmp_path, kind, broker, {}))).code == refused.code
        assert not broker.said("Sending CONNACK")


@pytest.mark.parametrize(
    ("lasting", "address", "reason"),
    [
        (timedelta(days=-1), "127.0.0.1", "expired"),
        (timedelta(days=90), "10.0.0.4", "mismatch"),
    ],
)
async def test_a_certificate_that_has_ended_or_is_of_another_host_is_refused(
    tmp_path: Path, authority: Authority, lasting: timedelta, address: str, reason: str
) -> None:
    with secured(tmp_path, authority, authority.issue("broker", lasting, address)) as broker:
        made = connection(tmp_path, "mqtt", broker, {"authority": str(authority.file)})
        refused = await refusal(made)
    assert refused.code == "connection.certificate_refused"
    assert reason in refused.message


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_broker_that_asks_for_certificates_lets_in_who_has_one(
    tmp_path: Path, authority: Authority, kind: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certificate, key = authority.issue("agent-1")
    foreign_certificate, foreign_key = Authority(other).issue("agent-1")
    trusted = {"authority": str(authority.file)}
    ours = trusted | {"certificate": str(certificate), "key": str(key)}
    foreign = trusted | {"certificate": str(foreign_certificate), "key": str(foreign_key)}
    with secured(tmp_path, authority, authority.issue("broker"), mutual=True) as broker:
        for refused_tls in (trusted, foreign):
            refused = await refusal(connection(tmp_path, kind, broker, refused_tls))
            assert refused.code == "connection.tls_failed", refused
        made, source = connection(tmp_path, kind, broker, ours)
        async with delivering(made, (source, RecordingFeed())) as task:
            await until(lambda: broker.said("Sending SUBACK") or task.done())
            assert not task.done()
        # The broker knows us by the name in our certificate.
        assert broker.said("u'agent-1'")


async def test_a_plain_broker_is_not_talked_to_where_tls_is_declared(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as broker:
        refused = await refusal(connection(tmp_path, "mqtt", broker, {}))
    assert refused.code in ("connection.tls_failed", "connection.unreachable")


async def test_files_that_go_missing_are_told_as_ours(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("agent-1")
    tls = {
        "authority": str(authority.file),
        "certificate": str(certificate),
        "key": str(key),
    }
    with secured(tmp_path, authority, authority.issue("broker")) as broker:
        made = connection(tmp_path, "mqtt", broker, tls)
        key.unlink()
        assert (await refusal(made)).code == "connection.certificate"


def test_certificates_of_brokers_are_watched_for_their_end(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("agent-1", timedelta(days=20))
    tls = {"authority": str(authority.file), "certificate": str(certificate), "key": str(key)}
    names = {"mqtt": "one", "sparkplug": "two"}
    connections = {
        name: {"kind": kind, "url": "mqtts://127.0.0.1:8883", "tls": tls}
        for kind, name in names.items()
    }
    sources = [
        {
            "kind": kind,
            "connection": name,
            "asset": f"pump-{name}",
            "asset_type": "skab-pump-loop",
            "window": {"seconds": 1, "readings": 100},
        }
        | SOURCES[kind]
        for kind, name in names.items()
    ]
    configuration = live_configuration(tmp_path, connections, *sources)
    files: list[Path] = []
    for configured in configuration.connections:
        assert isinstance(configured.connection, MqttConnection | SparkplugConnection)
        files += configured.connection.certificate_files
    assert files == [certificate, authority.file] * 2
    ours, _ = certificate_statuses(files, datetime.now(UTC))
    assert ours.days_left is not None
    assert 19 < ours.days_left <= 20


def test_a_key_with_a_password_is_read_with_it_alone(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.issue("agent-1", key_password=b"open")
    tls: dict[str, Any] = {"certificate": str(certificate), "key": str(key)}
    broker = MosquittoBroker(tmp_path, 8883)
    with pytest.raises(ConfigurationFaults) as refused:
        connection(tmp_path, "mqtt", broker, tls)
    assert "connection.certificate" in {fault.code for fault in refused.value.faults}
    monkeypatch.setenv("HEDDLE_SECRET_KEY_PASSWORD", "open")
    connection(tmp_path, "mqtt", broker, tls | {"key_password": {"secret": "key-password"}})
    with pytest.raises(ConfigurationFaults) as refused:
        connection(tmp_path, "mqtt", broker, {"key": str(key)})
    assert "connection.certificate" in {fault.code for fault in refused.value.faults}


# --- renewal ------------------------------------------------------------------------------


def test_a_renewed_certificate_makes_another_connection_of_the_same_declaration(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("agent-1")
    tls = {"authority": str(authority.file), "certificate": str(certificate), "key": str(key)}
    declared = {
        "secured": {"kind": "mqtt", "url": "mqtts://127.0.0.1:8883", "tls": tls},
        "plain": {"kind": "modbus-tcp", "host": "127.0.0.1"},
    }
    before, modbus = live_configuration(tmp_path, declared, mqtt_source("secured")).connections
    (same, _) = live_configuration(tmp_path, declared, mqtt_source("secured")).connections
    assert same.secured_by == before.secured_by
    assert security_files(before.connection) == (certificate, authority.file, key)
    assert (security_files(modbus.connection), modbus.secured_by) == ((), "")
    authority.issue("agent-1")
    after, _ = live_configuration(tmp_path, declared, mqtt_source("secured")).connections
    assert after.declared == before.declared
    assert after.secured_by != before.secured_by


@pytest.mark.slow
async def test_an_agent_that_runs_goes_on_with_its_renewed_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("agent-1")
    tls = {"authority": str(authority.file), "certificate": str(certificate), "key": str(key)}
    with secured(tmp_path, authority, authority.issue("broker"), mutual=True) as broker:
        document = {
            "agent": "test-agent",
            "connections": {
                "broker": {"kind": "mqtt", "url": f"mqtts://127.0.0.1:{broker.port}", "tls": tls}
            },
            "sources": [mqtt_source()],
        }
        config = tmp_path / "agent.yaml"
        config.write_text(yaml.safe_dump(document))
        with serving(FrameServer()) as server:
            agent = start(tmp_path, config, server)
            try:
                await until(lambda: broker.said("u'agent-1'"))
                renewed, renewed_key = authority.issue("agent-1-renewed")
                # Half of a renewal is no configuration, and the session goes on.
                certificate.write_bytes(renewed.read_bytes())
                await asyncio.sleep(2.5)
                assert not broker.said("renewed")
                renewed_key.replace(key)
                await until(lambda: broker.said("u'agent-1-renewed'"))
                assert agent.poll() is None
            finally:
                agent.send_signal(signal.SIGTERM)
                agent.wait(20)


def mqtt_source(connection: str = "broker") -> dict[str, Any]:
    return {
        "kind": "mqtt",
        "connection": connection,
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "window": {"seconds": 1, "readings": 100},
    } | SOURCES["mqtt"]
