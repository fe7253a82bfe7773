"""What an agent tells of itself: metrics, certificates that end, and whom it speaks to by mTLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.errors import InvalidInput, Unavailable
from edge_agent.operations.certificates import ExpiryWatch, certificate_statuses
from edge_agent.operations.metrics import serving_metrics
from edge_agent.operations.snapshot import Snapshot, SnapshotFile, read_snapshot
from edge_agent.outbox import OutboxStatus
from edge_agent.settings import Settings
from edge_agent.uplink.http import open_http_transport
from edge_agent.uplink.transport import RequestFailed
from tests.edge_agent.certificates import Authority
from tests.edge_agent.frame_server import FrameServer, serving
from tests.edge_agent.setpoints.site import free_port

SNAPSHOT = Snapshot(
    agent="edge-1",
    pid=1,
    at="2026-01-01T00:00:00+00:00",
    running_s=12.5,
    readings=1000,
    frames_accepted=7,
    frames_duplicate=1,
    frames_rejected=2,
    frames_failed_requests=3,
    commands_carried_out=4,
    commands_rejected=1,
    server="http://127.0.0.1:8000",
    server_silent_s=0.5,
    server_failing_s=None,
    directives_silent_s=2.0,
    connections={"plc-1": "", "broker": "connection.unreachable: nobody answers"},
    clock_synchronized=False,
    clock_steps_s=[-3600.0],
    setpoints={"pump-7/flow": "advisory"},
    writing_stopped=True,
)
OUTBOX = OutboxStatus("edge-1", 9, 7, 40, 2, 4096, {"unit.unknown": 2}, 0, (), 3.5, 1)


def test_metrics_are_told_on_this_machine_alone() -> None:
    port = free_port()
    outbox = replace(OUTBOX, lost_counts={"outbox.full": 50}, loss_counts={"outbox.full": 5})
    with serving_metrics(port, lambda: (SNAPSHOT, outbox)):
        told = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    assert {
        "heddle_agent_readings_total 1000.0",
        'heddle_agent_frames_total{outcome="accepted"} 7.0',
        'heddle_agent_readings_lost_total{reason="outbox.full"} 50.0',
        "heddle_agent_outbox_bytes 4096.0",
        "heddle_agent_outbox_oldest_seconds 3.5",
        'heddle_agent_connection_up{connection="plc-1"} 1.0',
        'heddle_agent_connection_up{connection="broker"} 0.0',
        "heddle_agent_server_up 1.0",
        "heddle_agent_writing_stopped 1.0",
    } <= set(told)


def test_port_that_is_taken_is_told() -> None:
    port = free_port()
    with (
        serving_metrics(port, lambda: None),
        pytest.raises(Unavailable) as taken,
        serving_metrics(port, lambda: None),
    ):
        pass
    assert taken.value.code == "metrics.port"


def test_snapshot_of_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    kept = SnapshotFile(tmp_path)
    kept.write(SNAPSHOT)
    told = read_snapshot(tmp_path)
    assert told is not None
    assert told["clock_steps_s"] == [-3600.0]
    kept.write(replace(SNAPSHOT, pid=2**22 + 1))
    assert read_snapshot(tmp_path) is None


def test_certificates_are_warned_of_once_at_each_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, _ = Authority(tmp_path).issue("gateway", timedelta(days=40))
    watch, now = ExpiryWatch(), datetime.now(UTC)

    def told(days: float) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            for _ in range(2):
                watch.look([certificate], now + timedelta(days=days))
        return [record.getMessage() for record in caplog.records]

    assert told(5) == []
    assert [message.partition("ends in")[2] for message in told(11)] == [" 29.0 days"]
    assert told(20) == []
    assert len(told(34)) == 1
    assert len(told(39.5)) == 1
    assert [message.endswith("has ended") for message in told(41)] == [True]


def test_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense")
    statuses = certificate_statuses([broken, tmp_path / "none.pem"], datetime.now(UTC))
    assert [status.days_left for status in statuses] == [None, None]
    assert all(status.fault for status in statuses)


def send_nothing(settings: Settings) -> Any:
    async def run() -> Any:
        async with open_http_transport(settings) as transport:
            return await transport.fetch("/healthz", 100)

    return asyncio.run(run())


def test_agent_shows_its_certificate_and_checks_the_servers(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    own, own_key = authority.issue("gateway")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    other, other_key = Authority(stranger).issue("gateway")
    with serving(
        FrameServer(),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        ssl_ca_certs=str(authority.file),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    ) as server:
        known = Settings(
            server_url=server.url,
            ca_file=authority.file,
            certificate_file=own,
            key_file=own_key,
            request_timeout_s=5.0,
        )
        with pytest.raises(RequestFailed) as answered:
            send_nothing(known)
        assert answered.value.code == "uplink.http_404", "it was let in"
        for wrong in (
            replace(known, certificate_file=None, key_file=None),
            replace(known, certificate_file=other, key_file=other_key),
            replace(known, ca_file=None),
        ):
            with pytest.raises(RequestFailed) as refused:
                send_nothing(wrong)
            assert refused.value.code == "uplink.unreachable"


def test_certificate_without_its_key_is_told_at_the_start(tmp_path: Path) -> None:
    own, _ = Authority(tmp_path).issue("gateway")
    with pytest.raises(InvalidInput) as refused:
        send_nothing(Settings(server_url="https://127.0.0.1:1", certificate_file=own))
    assert refused.value.code == "settings.certificate_unusable"
