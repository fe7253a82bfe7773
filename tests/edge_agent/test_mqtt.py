"""MQTT against a real broker: what messages say, and that none is lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.frames import Quality
from edge_agent.live import ConnectionLost
from edge_agent.mqtt.client import Broker, MqttClient, Publication
from edge_agent.mqtt.connection import MqttConnection, MqttSource
from edge_agent.yaml_section import ConfigurationFaults
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until

pytestmark = pytest.mark.anyio

NOON_MS = 1_714_564_800_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with mosquitto_broker(folder) as running:
        yield running


def source(**changes: Any) -> dict[str, Any]:
    declared: dict[str, Any] = {
        "kind": "mqtt",
        "connection": "broker",
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "topic": "plant/pump-1/#",
        "time": {"field": "/ts", "format": "unix_ms"},
        "channels": {
            "flow": {"field": "/flow/value", "unit": "l/min"},
            "pressure": {"field": "pressure", "unit": "bar", "scale": 0.1},
        },
        "window": {"seconds": 1, "readings": 1000},
    }
    return declared | changes


def configured(
    folder: Path, broker: MosquittoBroker, *sources: dict[str, Any], **connection: Any
) -> tuple[MqttConnection, list[MqttSource]]:
    declared = {"kind": "mqtt", "url": broker.url} | connection
    configuration = live_configuration(folder, {"broker": declared}, *sources)
    made = configuration.connections[0].connection
    assert isinstance(made, MqttConnection)
    found = [live.source for live in configuration.live]
    return made, [one for one in found if isinstance(one, MqttSource)]


@asynccontextmanager
async def publisher(broker: MosquittoBroker, version: int = 5) -> AsyncIterator[MqttClient]:
    client = MqttClient(
        Broker(host="127.0.0.1", port=broker.port, client_id="publisher", version=version),
        lambda _message: None,
    )
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


async def say(client: MqttClient, topic: str, document: Any, **options: Any) -> None:
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    await client.publish(Publication(topic, payload, options.pop("qos", 1), **options))


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_messages_become_readings_of_the_mapped_channels(
    tmp_path: Path, broker: MosquittoBroker, version: str
) -> None:
    connection, (pump,) = configured(tmp_path, broker, source(), version=version)
    feed = RecordingFeed()
    async with delivering(connection, (pump, feed)), publisher(broker) as client:
        await until(lambda: broker.said("Sending SUBACK"))
        await say(client, "plant/pump-1/a", {"ts": NOON_MS, "flow": {"value": 32.5}})
        await say(client, "plant/pump-1/b", {"ts": NOON_MS + 1, "pressure": 123})
        await say(client, "plant/pump-2/b", {"ts": NOON_MS + 1, "pressure": 99})
        await say(client, "plant/pump-1", {"ts": NOON_MS + 2, "pressure": "7"})
        await until(lambda: len(feed.values(1)) == 2)
    assert feed.values(0) == [32.5]
    assert feed.times_ns(0) == [NOON_MS * 1_000_000]
    # 12.3, not 12.299999999999999: the scaling is decimal.
    assert feed.values(1) == [12.3, 0.7]
    assert feed.qualities(1) == [Quality.GOOD, Quality.GOOD]
    assert not feed.faults


async def test_a_bad_message_is_told_with_its_text_and_harms_no_neighbour(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    connection, (pump,) = configured(tmp_path, broker, source(), message_bytes_max=2000)
    feed = RecordingFeed()
    async with delivering(connection, (pump, feed)), publisher(broker) as client:
        await until(lambda: broker.said("Sending SUBACK"))
        for document in (
            b"{not json",
            b"\xff\xfe\x00",
            b"[" * 1500,
            {"ts": "noon", "pressure": 1},
            {"pressure": 1},
            {"ts": None, "pressure": 1},
            {"ts": True, "pressure": 1},
            {"ts": 10**30, "pressure": 1},
            {"ts": NOON_MS, "pressure": [1, 2]},
            {"ts": NOON_MS + 1, "pressure": "nan"},
            {"ts": NOON_MS + 2, "pressure": True},
            {"ts": NOON_MS + 3, "pressure": None},
            {"ts": NOON_MS + 4, "pressure": 2**53 + 1},
            {"ts": NOON_MS + 5, "flow": 3},
            b" " * 1990 + b'{"ts": 1, "pressure": 4}',
        ):
            await say(client, "plant/pump-1/x", document)
        await say(client, "plant/pump-1/y", {"ts": NOON_MS + 9, "pressure": 50})
        await until(lambda: 5.0 in feed.values(1))
    codes = feed.codes()
    assert codes["message.not_json"] == 3
    assert codes["message.time_missing"] == 2
    assert codes["message.time_unreadable"] == 3
    assert codes["value.not_numeric"] == 2
    assert codes["value.not_finite"] == 1
    assert codes["value.not_exact"] == 1
    assert codes["message.too_large"] == 1
    assert feed.qualities(1) == [
        Quality.MISSING,
        Quality.MISSING,
        Quality.MISSING,
        Quality.MISSING,
        Quality.UNCERTAIN,
        Quality.GOOD,
    ]
    assert not feed.values(0)
    assert any(fault.text == "{not json" for fault in feed.faults)
    assert {fault.channel for fault in feed.faults if fault.code == "value.not_finite"} == {
        "pressure"
    }


@pytest.mark.parametrize(
    "topic", ["plant/pump-1/" + "x/" * 100, "plant/pump-1/" + "y" * 60_000, "plant/pump-1/\u202e"]
)
async def test_a_hostile_topic_is_nobodys_or_read_as_any_other(
    tmp_path: Path, broker: MosquittoBroker, topic: str
) -> None:
    connection, (pump,) = configured(tmp_path, broker, source())
    feed = RecordingFeed()
    async with delivering(connection, (pump, feed)), publisher(broker) as client:
        await until(lambda: broker.said("Sending SUBACK"))
        await say(client, topic, {"ts": NOON_MS, "pressure": 10})
        await say(client, "plant/pump-1", {"ts": NOON_MS + 1, "pressure": 20})
        await until(lambda: 2.0 in feed.values(1))
    assert feed.values(1) in ([2.0], [1.0, 2.0])


async def test_what_was_not_kept_is_delivered_again_after_a_crash(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    connection, (pump,) = configured(tmp_path, broker, source())
    before, after = RecordingFeed(), RecordingFeed()
    before.keeps.clear()
    async with publisher(broker) as client:
        async with delivering(connection, (pump, before)):
            await until(lambda: broker.said("Sending SUBACK"))
            for number in range(50):
                await say(client, "plant/pump-1", {"ts": NOON_MS + number, "pressure": number})
            await until(lambda: len(before.values(1)) == 50)
        # The agent is gone; the broker goes on collecting for its session.
        for number in range(50, 60):
            await say(client, "plant/pump-1", {"ts": NOON_MS + number, "pressure": number})
        restarted, (pump,) = configured(tmp_path, broker, source())
        async with delivering(restarted, (pump, after)):
            await until(lambda: len(set(after.times_ns(1))) == 60)
    assert sorted(set(after.times_ns(1))) == [(NOON_MS + n) * 1_000_000 for n in range(60)]
    assert not after.losses


async def test_what_was_kept_is_not_delivered_again(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    connection, (pump,) = configured(tmp_path, broker, source())
    before, after = RecordingFeed(), RecordingFeed()
    async with publisher(broker) as client:
        async with delivering(connection, (pump, before)):
            await until(lambda: broker.said("Sending SUBACK"))
            await say(client, "plant/pump-1", {"ts": NOON_MS, "pressure": 1}, qos=2)
            await until(lambda: before.values(1))
            await until(lambda: broker.said("Received PUBACK from test-agent"))
        restarted, (pump,) = configured(tmp_path, broker, source())
        async with delivering(restarted, (pump, after)):
            await until(lambda: broker.said("Sending SUBACK", 2))
            await say(client, "plant/pump-1", {"ts": NOON_MS + 5, "pressure": 2})
            await until(lambda: after.values(1))
    assert after.times_ns(1) == [(NOON_MS + 5) * 1_000_000]


async def test_a_broker_that_restarts_is_lost_and_its_forgotten_session_declared(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    connection, (pump,) = configured(tmp_path, broker, source())
    feed = RecordingFeed()
    async with delivering(connection, (pump, feed)) as running:
        await until(lambda: broker.said("Sending SUBACK"))
        async with publisher(broker) as client:
            await say(client, "plant/pump-1", {"ts": NOON_MS, "pressure": 1})
        await until(lambda: feed.values(1))
        broker.kill()
        with pytest.raises(ConnectionLost, match=r"connection\.lost"):
            await running
    with pytest.raises(ConnectionLost, match=r"connection\.unreachable"):
        await connection.run([(pump, feed)])
    broker.forget_sessions()
    broker.start()
    async with delivering(connection, (pump, feed)), publisher(broker) as client:
        await until(lambda: feed.losses)
        await say(client, "plant/pump-1", {"ts": NOON_MS + 1, "pressure": 2})
        await until(lambda: len(feed.values(1)) == 2)
    ((reason, from_ns, to_ns, count),) = feed.losses
    assert (reason, count) == ("session.lost", None)
    assert from_ns < to_ns


async def test_a_source_without_acknowledgement_declares_the_outage(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    connection, (pump,) = configured(tmp_path, broker, source(qos=0))
    feed = RecordingFeed()
    async with delivering(connection, (pump, feed)) as running:
        await until(lambda: broker.said("Sending SUBACK"))
        async with publisher(broker) as client:
            await say(client, "plant/pump-1", {"ts": NOON_MS, "pressure": 1})
            await until(lambda: feed.values(1))
        broker.stop()
        with pytest.raises(ConnectionLost):
            await running
    broker.start()
    async with delivering(connection, (pump, feed)):
        await until(lambda: feed.losses)
    assert [loss[0] for loss in feed.losses] == ["connection.down"]


async def test_a_broker_may_refuse_who_comes(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    with mosquitto_broker(
        tmp_path, f"password_file {passwords}", "allow_anonymous false"
    ) as broker:
        connection, (pump,) = configured(tmp_path, broker, source())
        with pytest.raises(ConnectionLost, match=r"connection\.refused.*[Nn]ot authori[sz]ed"):
            await connection.run([(pump, RecordingFeed())])


async def test_samples_of_a_message_and_quality_words_are_read(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    declared = source(
        samples="/readings",
        time={"field": "/t", "format": "iso8601"},
        quality={"field": "/q", "good": ["OK", "192"], "bad": ["FAIL"], "otherwise": "uncertain"},
        channels={"flow": {"field": "/v/0", "unit": "l/min"}},
    )
    connection, (pump,) = configured(tmp_path, broker, declared)
    feed = RecordingFeed()
    readings = [
        {"t": "2024-05-01T12:00:00Z", "v": [1], "q": "ok"},
        {"t": "2024-05-01T14:00:01+02:00", "v": [2], "q": 192},
        {"t": "2024-05-01T12:00:02Z", "v": [3], "q": "FAIL"},
        {"t": "2024-05-01T12:00:03", "v": [4], "q": "OK"},
        {"t": "2024-05-01T12:00:04Z", "v": [5], "q": "hm"},
        {"t": "2024-05-01T12:00:05Z", "v": [6]},
    ]
    async with delivering(connection, (pump, feed)), publisher(broker) as client:
        await until(lambda: broker.said("Sending SUBACK"))
        await say(client, "plant/pump-1", {"readings": readings})
        await until(lambda: 6.0 in feed.values(0))
    assert feed.values(0) == [1.0, 2.0, 3.0, 5.0, 6.0]
    assert feed.qualities(0) == [0, 0, Quality.BAD, Quality.UNCERTAIN, Quality.UNCERTAIN]
    noon_ns = NOON_MS * 1_000_000
    assert feed.times_ns(0) == [noon_ns + n * 10**9 for n in (0, 1, 2, 4, 5)]
    assert feed.codes() == {"message.zone_missing": 1, "message.quality_unknown": 1}


async def test_a_retained_message_without_a_time_is_not_taken_for_news(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    declared = source(channels={"flow": {"field": "", "unit": "l/min"}})
    del declared["time"]
    connection, (pump,) = configured(tmp_path, broker, declared)
    feed = RecordingFeed()
    async with publisher(broker) as client:
        await say(client, "plant/pump-1/flow", 1.0, retain=True)
        async with delivering(connection, (pump, feed)):
            await until(lambda: feed.faults)
            await say(client, "plant/pump-1/flow", 2.0)
            await until(lambda: feed.values(0))
    assert feed.values(0) == [2.0]
    assert feed.codes() == {"message.retained": 1}


async def test_browsing_tells_topics_and_pointers(tmp_path: Path, broker: MosquittoBroker) -> None:
    connection, _ = configured(tmp_path, broker, source())
    async with publisher(broker) as client:
        await say(client, "plant/p/a", {"x": {"y/z": 1.5}, "name": "P"}, retain=True)
        found = [item async for item in connection.browse("plant/#", 10)]
    assert {(item.address, item.value, item.value_type) for item in found} == {
        ("plant/p/a#/x/y~1z", "1.5", "float"),
        ("plant/p/a#/name", "'P'", "str"),
    }


def test_what_is_wrong_with_a_declaration_is_told_all_at_once(tmp_path: Path) -> None:
    declared = source(
        topic=["a/#/b", "$share/x/y"],
        qos=3,
        channels={
            "flow": {"field": "/a~2", "unit": "l/min"},
            "pressure": {"field": "/p", "unit": "l/min", "scale": 0},
        },
        time={"field": "/t", "format": "%H"},
    )
    connection = {"kind": "mqtt", "url": "http://u:p@x", "version": "4", "password": "secret"}
    with pytest.raises(ConfigurationFaults) as refused:
        live_configuration(tmp_path, {"broker": connection}, declared)
    codes = {fault.code for fault in refused.value.faults}
    assert {"connection.url", "configuration.unknown_choice", "secret.in_configuration"} <= codes
    good = {"kind": "mqtt", "url": "mqtt://127.0.0.1"}
    with pytest.raises(ConfigurationFaults) as refused:
        live_configuration(tmp_path, {"broker": good}, declared)
    codes = {fault.code for fault in refused.value.faults}
    assert codes >= {
        "mapping.topic",
        "configuration.out_of_range",
        "mapping.pointer",
        "mapping.scale_zero",
        "mapping.zone_missing",
    }
