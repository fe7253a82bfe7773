"""The host application against the specification, assertion by assertion, over a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import HeddleError, InvalidInput, Unavailable
from domain.frames import Quality
from edge_agent.live import ConnectionLost
from edge_agent.mqtt.client import MqttClient, Publication
from edge_agent.sparkplug.edge_node import EdgeNode, NodeMetric
from edge_agent.sparkplug.host import SparkplugConnection, SparkplugSource, SparkplugTarget
from edge_agent.sparkplug.payload import (
    REBIRTH,
    DataType,
    Metric,
    Payload,
    Value,
    encode,
    metric_of,
)
from edge_agent.sparkplug.payload_schema import payload_class
from edge_agent.sparkplug.topics import MessageType, Topic
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.feeds import RecordingFeed, delivering, live_configuration, until
from tests.edge_agent.sparkplug.assertions import verifies
from tests.edge_agent.sparkplug.observer import (
    DEVICE,
    GROUP,
    HOST,
    NODE,
    Observer,
    at,
    observing,
)

pytestmark = pytest.mark.anyio

NOON_MS = 1_714_564_800_000
FLOW, PRESSURE = 0, 1


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    with mosquitto_broker(tmp_path) as running:
        yield running


def source(**changes: Any) -> dict[str, Any]:
    declared: dict[str, Any] = {
        "kind": "sparkplug",
        "connection": "cell",
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "group": GROUP,
        "node": NODE,
        "device": DEVICE,
        "channels": {
            "flow": {"metric": "Flow", "unit": "l/min"},
            "pressure": {"metric": "P/1", "unit": "bar", "scale": 0.1},
        },
        "window": {"seconds": 1, "readings": 1000},
    }
    return declared | changes


def configured(
    folder: Path, broker: MosquittoBroker, *sources: dict[str, Any], **connection: Any
) -> tuple[SparkplugConnection, list[SparkplugSource]]:
    declared = {"kind": "sparkplug", "url": broker.url, "host_id": HOST, "reorder_timeout_s": 0.3}
    configuration = live_configuration(folder, {"cell": declared | connection}, *sources)
    made = configuration.connections[0].connection
    assert isinstance(made, SparkplugConnection)
    found = [live.source for live in configuration.live]
    return made, [one for one in found if isinstance(one, SparkplugSource)]


@asynccontextmanager
async def hosted(
    folder: Path, broker: MosquittoBroker, **connection: Any
) -> AsyncIterator[tuple[RecordingFeed, Observer]]:
    """A host that serves one device, and an observer that plays the node's part."""
    made, (pump,) = configured(folder, broker, source(), **connection)
    feed = RecordingFeed()
    async with observing(broker) as observer, delivering(made, (pump, feed)):
        await until(lambda: any(one.state.get("online") for one in observer.states()))
        yield feed, observer


async def tell(
    observer: Observer,
    kind: str,
    seq: int | None,
    *metrics: Metric,
    device: str | None = DEVICE,
    time_ms: int = NOON_MS,
) -> None:
    """Publish as the node does."""
    of_device = device if kind.startswith("D") else None
    topic = Topic(MessageType(kind), GROUP, NODE, of_device)
    await observer.client.publish(Publication(str(topic), encode(Payload(metrics, time_ms, seq))))


def bd_seq(number: int) -> Metric:
    return metric_of(number, DataType.INT64, name="bdSeq", timestamp_ms=1, tell_datatype=True)


def flow(value: Value, *, birth: bool = False, time_ms: int | None = NOON_MS) -> Metric:
    return metric_of(
        value,
        DataType.DOUBLE,
        name="Flow" if birth else None,
        alias=7,
        timestamp_ms=time_ms,
        tell_datatype=birth,
    )


def pressure(value: Value, *, birth: bool = False) -> Metric:
    return metric_of(value, DataType.INT32, name="P/1", timestamp_ms=NOON_MS, tell_datatype=birth)


async def be_born(observer: Observer, number: int = 0) -> None:
    """Tell the births of the node and its device; the next seq is 2."""
    await tell(observer, "NBIRTH", 0, bd_seq(number))
    await tell(observer, "DBIRTH", 1, flow(1.0, birth=True), pressure(10, birth=True))


@verifies(
    "intro-sparkplug-host-state",
    "components-ph-state",
    "conformance-primary-host",
    "host-topic-phid-birth-message",
    "host-topic-phid-birth-payload",
    "host-topic-phid-birth-payload-timestamp",
    "host-topic-phid-birth-qos",
    "host-topic-phid-birth-required",
    "host-topic-phid-birth-retain",
    "host-topic-phid-birth-sub-required",
    "host-topic-phid-birth-topic",
    "message-flow-phid-sparkplug-state-publish",
    "message-flow-phid-sparkplug-state-publish-payload",
    "message-flow-phid-sparkplug-state-publish-payload-timestamp",
    "message-flow-phid-sparkplug-subscription",
    "operational-behavior-host-application-connect-birth",
    "operational-behavior-host-application-connect-birth-payload",
    "operational-behavior-host-application-connect-birth-qos",
    "operational-behavior-host-application-connect-birth-retained",
    "operational-behavior-host-application-connect-birth-topic",
    "operational-behavior-primary-application-state-with-multiple-servers-state",
    "payloads-state-birth",
    "payloads-state-birth-payload",
    "payloads-state-subscribe",
)
async def test_a_host_subscribes_and_then_tells_its_birth_before_anything_else(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    before_ms = time.time_ns() // 1_000_000
    async with hosted(tmp_path, broker) as (_, observer):
        (birth,) = observer.states()
        assert observer.seen[0] is birth
        assert (birth.topic, birth.qos) == ("spBv1.0/STATE/heddle", 1)
        assert birth.state.keys() == {"online", "timestamp"}
        assert birth.state["online"] is True
        assert before_ms <= birth.state["timestamp"] <= time.time_ns() // 1_000_000
        async with observing(broker, "late") as late:
            (kept,) = await late.wait_states(1)
            assert kept.retain
            assert kept.raw == birth.raw
        log = (tmp_path / "mosquitto.log").read_text()
        subscribed = log.index("spBv1.0/STATE/heddle (QoS 1)")
        assert subscribed < log.index("'spBv1.0/STATE/heddle', ... (")
        assert subscribed < log.index("spBv1.0/Plant/+/Edge 1/# (QoS 1)") < log.index("m1, 'spBv1")


@verifies(
    "host-topic-phid-death-payload",
    "host-topic-phid-death-payload-timestamp-connect",
    "host-topic-phid-death-qos",
    "host-topic-phid-death-required",
    "host-topic-phid-death-retain",
    "host-topic-phid-death-topic",
    "operational-behavior-host-application-connect-will",
    "operational-behavior-host-application-connect-will-payload",
    "operational-behavior-host-application-connect-will-qos",
    "operational-behavior-host-application-connect-will-retained",
    "operational-behavior-host-application-connect-will-topic",
    "operational-behavior-host-application-death-payload",
    "operational-behavior-host-application-death-qos",
    "operational-behavior-host-application-death-retained",
    "operational-behavior-host-application-death-topic",
    "payloads-state-will-message",
    "payloads-state-will-message-payload",
    "payloads-state-will-message-qos",
    "payloads-state-will-message-retain",
)
async def test_a_host_that_crashes_is_told_dead_by_its_will(
    tmp_path: Path, broker: MosquittoBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, (pump,) = configured(tmp_path, broker, source())

    async def crash(client: MqttClient, **_: object) -> None:
        client.drop()

    async with observing(broker) as observer:
        with monkeypatch.context() as patched:
            # A crash is a socket that closes without a word.
            patched.setattr(SparkplugConnection, "_leave", lambda _self, client: crash(client))
            async with delivering(made, (pump, RecordingFeed())):
                await observer.wait_states(1)
        birth, death = await observer.wait_states(2)
        assert (death.topic, death.qos) == ("spBv1.0/STATE/heddle", 1)
        assert death.state == {"online": False, "timestamp": birth.state["timestamp"]}
        assert broker.said("(r1, q1)")
        async with observing(broker, "late") as late:
            assert (await late.wait_states(1))[0].raw == death.raw


@verifies(
    "host-topic-phid-death-payload-timestamp-disconnect-clean",
    "operational-behavior-host-application-termination",
    "operational-behavior-host-application-disconnect-intentional",
)
@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_host_that_leaves_tells_its_death_with_the_time_of_leaving(
    tmp_path: Path, broker: MosquittoBroker, version: str
) -> None:
    async with observing(broker, "witness") as observer:
        async with hosted(tmp_path, broker, version=version):
            await asyncio.sleep(0.01)
        left_ms = time.time_ns() // 1_000_000
        birth, death = await observer.wait_states(2)
        assert death.state["online"] is False
        assert birth.state["timestamp"] < death.state["timestamp"] <= left_ms
        await until(lambda: broker.said("Received DISCONNECT from test-agent-cell"))


@verifies(
    "message-flow-phid-sparkplug-clean-session-311", "message-flow-phid-sparkplug-clean-session-50"
)
@pytest.mark.parametrize(("version", "told"), [("3.1.1", "p2, c1"), ("5", "p5, c1")])
async def test_sessions_are_clean(
    tmp_path: Path, broker: MosquittoBroker, version: str, told: str
) -> None:
    async with hosted(tmp_path, broker, version=version):
        assert broker.said(f"as test-agent-cell ({told}")


@verifies("message-flow-hid-sparkplug-state-message-delivered")
async def test_a_host_contradicts_whoever_calls_it_offline(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker) as (_, observer):
        (birth,) = observer.states()
        await observer.say_state(online=False, timestamp=1)
        *_, again = await observer.wait_states(3)
        assert again.raw == birth.raw
        assert again.qos == 1


@verifies("operational-behavior-host-application-host-id")
async def test_a_second_host_of_the_same_id_is_noticed(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    made, (pump,) = configured(tmp_path, broker, source())
    async with observing(broker) as observer, delivering(made, (pump, RecordingFeed())) as running:
        await observer.wait_states(1)
        for number in range(21):
            await observer.say_state(online=False, timestamp=number)
        with pytest.raises(ConnectionLost, match=r"sparkplug\.host_id_taken"):
            await running


async def test_births_and_data_become_readings(tmp_path: Path, broker: MosquittoBroker) -> None:
    async with hosted(tmp_path, broker) as (feed, observer):
        await be_born(observer)
        await tell(observer, "DDATA", 2, flow(2.5, time_ms=NOON_MS + 7), pressure(123))
        await tell(observer, "DDATA", 3, flow(None))
        await tell(observer, "DDATA", 4, flow(3.5, time_ms=None), time_ms=NOON_MS + 9)
        await until(lambda: len(feed.values(FLOW)) == 4)
    noon_ns = NOON_MS * 1_000_000
    assert feed.values(FLOW)[:2] == [1.0, 2.5]
    assert feed.times_ns(FLOW) == [noon_ns, noon_ns + 7_000_000, noon_ns, noon_ns + 9_000_000]
    assert feed.qualities(FLOW) == [0, 0, Quality.MISSING, 0]
    assert feed.values(PRESSURE) == [1.0, 12.3]
    assert not feed.faults
    # From when we listened until the birth nothing could be understood.
    assert [loss[0] for loss in feed.losses] == ["sparkplug.no_birth"]


@verifies(
    "operational-behavior-host-reordering-param",
    "operational-behavior-host-reordering-start",
    "operational-behavior-host-reordering-success",
)
async def test_messages_that_overtook_each_other_are_put_in_order(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker, reorder_timeout_s=30) as (feed, observer):
        await be_born(observer)
        for seq in (3, 5, 4, 2):
            await tell(observer, "DDATA", seq, flow(float(seq), time_ms=NOON_MS + seq))
        await until(lambda: len(feed.values(FLOW)) == 5)
        assert feed.values(FLOW) == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert "NCMD" not in observer.types()
        assert "sequence.gap" not in [loss[0] for loss in feed.losses]


@verifies(
    "operational-behavior-host-reordering-rebirth",
    "operational-behavior-data-commands-ncmd-rebirth-verb",
    "operational-behavior-data-commands-ncmd-rebirth-name",
    "operational-behavior-data-commands-ncmd-rebirth-value",
    "operational-behavior-data-commands-ncmd-verb",
    "operational-behavior-data-commands-ncmd-metric-name",
    "operational-behavior-data-commands-ncmd-metric-value",
    "topics-ncmd-topic",
    "topics-ncmd-mqtt",
    "topics-ncmd-timestamp",
    "topics-ncmd-payload",
    "payloads-ncmd-timestamp",
    "payloads-ncmd-seq",
    "payloads-ncmd-qos",
    "payloads-ncmd-retain",
    "payloads-name-cmd-requirement",
)
async def test_a_missing_message_is_declared_and_a_rebirth_asked_for(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker) as (feed, observer):
        await be_born(observer)
        await tell(observer, "DDATA", 2, flow(2.0, time_ms=NOON_MS + 2))
        await tell(observer, "DDATA", 4, flow(4.0, time_ms=NOON_MS + 4))
        await tell(observer, "DDATA", 6, flow(6.0, time_ms=NOON_MS + 6))
        (command,) = await observer.wait("NCMD")
        await until(lambda: len(feed.values(FLOW)) == 4)
        # What came in spite of the hole is a reading like any other.
        assert feed.values(FLOW) == [1.0, 2.0, 4.0, 6.0]
        gap = next(loss for loss in feed.losses if loss[0] == "sequence.gap")
        assert gap[1] < gap[2]
        assert (command.topic, command.qos) == ("spBv1.0/Plant/NCMD/Edge 1", 0)
        payload = command.payload
        assert payload.seq is None
        assert payload.timestamp_ms
        (metric,) = payload.metrics
        assert (metric.name, metric.datatype) == (REBIRTH, None)
        assert metric.value(DataType.BOOLEAN) is True
        async with observing(broker, "late") as late:
            await tell(observer, "DDATA", 7, flow(7.0))
            await late.wait("DDATA")
            assert late.types() == ["DDATA"]


@verifies(
    "operational-behavior-edge-node-termination-host-action-ndeath-node-offline",
    "operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale",
    "operational-behavior-edge-node-termination-host-action-ndeath-devices-offline",
    "operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale",
)
async def test_the_death_of_a_node_makes_its_devices_stale_at_our_time(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    of_node = source(
        asset="cabinet", name="cabinet", channels={"flow": {"metric": "T", "unit": "l/min"}}
    )
    del of_node["device"]
    made, (pump, cabinet) = configured(tmp_path, broker, source(), of_node)
    feed, node_feed = RecordingFeed(), RecordingFeed()
    async with observing(broker) as observer, delivering(made, (pump, feed), (cabinet, node_feed)):
        await observer.wait_states(1)
        t = metric_of(20.0, DataType.FLOAT, name="T", timestamp_ms=NOON_MS, tell_datatype=True)
        await tell(observer, "NBIRTH", 0, bd_seq(3), t)
        await tell(observer, "DBIRTH", 1, flow(1.0, birth=True), pressure(10, birth=True))
        await until(lambda: feed.values(FLOW) and node_feed.values(0))
        # The will of an earlier session comes late, and means nobody who lives.
        await tell(observer, "NDEATH", None, bd_seq(2))
        await tell(observer, "DDATA", 2, flow(2.0))
        await until(lambda: len(feed.values(FLOW)) == 2)
        assert node_feed.codes() == {"message.stale_death": 1}
        died_ns = time.time_ns()
        await tell(observer, "NDEATH", None, bd_seq(3))
        await until(lambda: len(feed.values(FLOW)) == 3 and len(node_feed.values(0)) == 2)
        assert feed.qualities(FLOW) == [0, 0, Quality.MISSING]
        assert feed.qualities(PRESSURE) == [0, Quality.MISSING]
        assert node_feed.qualities(0) == [0, Quality.MISSING]
        for told_ns in (feed.times_ns(FLOW)[-1], node_feed.times_ns(0)[-1]):
            assert died_ns <= told_ns <= time.time_ns()
        await tell(observer, "NBIRTH", 0, bd_seq(4), t)
        await tell(observer, "DBIRTH", 1, flow(5.0, birth=True), pressure(1, birth=True))
        await until(lambda: 5.0 in feed.values(FLOW))
    assert [loss[0] for loss in feed.losses] == ["sparkplug.no_birth", "node.offline"]
    assert feed.losses[-1][1] == feed.times_ns(FLOW)[2]


@verifies(
    "operational-behavior-edge-node-termination-host-action-ddeath-devices-offline",
    "operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale",
)
async def test_the_death_of_a_device_makes_it_stale_at_the_time_it_tells(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker) as (feed, observer):
        await be_born(observer)
        await tell(observer, "DDEATH", 2, time_ms=NOON_MS + 50)
        await tell(observer, "DDATA", 3, flow(9.0))
        await until(lambda: feed.codes()["message.before_birth"])
        assert feed.qualities(FLOW) == [0, Quality.MISSING]
        assert feed.times_ns(FLOW)[-1] == (NOON_MS + 50) * 1_000_000
        await tell(observer, "DBIRTH", 4, flow(2.0, birth=True), pressure(1, birth=True))
        await until(lambda: 2.0 in feed.values(FLOW))
        assert feed.losses[-1][:2] == ("device.offline", (NOON_MS + 50) * 1_000_000)


async def test_a_host_that_comes_late_asks_for_births_and_takes_no_data_before_them(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker) as (feed, observer):
        await tell(observer, "DDATA", 200, flow(9.0))
        await observer.wait("NCMD")
        await be_born(observer)
        await until(lambda: feed.values(FLOW))
    assert feed.values(FLOW) == [1.0]
    assert feed.codes() == {"message.before_birth": 1}


@verifies(
    "topics-dcmd-topic",
    "topics-dcmd-mqtt",
    "topics-dcmd-timestamp",
    "topics-dcmd-payload",
    "payloads-dcmd-timestamp",
    "payloads-dcmd-seq",
    "payloads-dcmd-qos",
    "payloads-dcmd-retain",
    "operational-behavior-data-commands-dcmd-verb",
    "operational-behavior-data-commands-dcmd-metric-name",
    "operational-behavior-data-commands-dcmd-metric-value",
)
@pytest.mark.parametrize("aliases", [True, False])
async def test_a_written_metric_is_read_back_from_the_node(
    tmp_path: Path, broker: MosquittoBroker, aliases: bool
) -> None:
    async def obey(device: str | None, name: str, value: Value) -> None:
        # The machine takes no more than 30.
        taken = min(float(value), 30.0) if isinstance(value, (int, float)) else None
        await node.update(device, {name: taken, "Flow": 1.0})

    metrics = (NodeMetric("Flow", DataType.DOUBLE), NodeMetric("P/1", DataType.INT32, True))
    node = EdgeNode([at(broker, "node")], GROUP, NODE, {DEVICE: metrics}, obey, aliases=aliases)
    made, (pump,) = configured(tmp_path, broker, source())
    feed = RecordingFeed()
    target = SparkplugTarget(
        group=GROUP, node=NODE, device=DEVICE, metric="P/1", scaling=pump.mapped[1].scaling
    )
    with pytest.raises(ConnectionLost):
        await made.write(target, 1.0)
    async with observing(broker) as observer, delivering(made, (pump, feed)):
        await observer.wait_states(1)
        with pytest.raises(InvalidInput) as unknown:
            await made.write(target, 1.0)
        assert unknown.value.code == "target.unknown"
        living = asyncio.create_task(node.run())
        await until(lambda: feed.qualities(FLOW))
        assert await made.write(target, 1.2) == 1.2
        (command,) = await observer.wait("DCMD")
        assert (command.topic, command.qos) == ("spBv1.0/Plant/DCMD/Edge 1/Pump", 0)
        assert command.payload.seq is None
        assert command.payload.timestamp_ms
        (metric,) = command.payload.metrics
        assert (metric.name is None, metric.alias is None) == (aliases, not aliases)
        assert metric.value(DataType.INT32) == 12
        with pytest.raises(HeddleError) as refused:
            await made.write(target, 1e12)
        assert refused.value.code == "value.out_of_range"
        assert feed.values(PRESSURE)[-1] == 1.2
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)


async def test_a_device_that_takes_less_is_read_back_as_it_reports(
    tmp_path: Path, broker: MosquittoBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.sparkplug.host.ANSWER_S_MAX", 0.5)
    obeys = True

    async def obey(device: str | None, name: str, value: Value) -> None:
        if obeys:
            await node.update(device, {name: 30})

    metrics = (NodeMetric("P/1", DataType.INT32, True),)
    node = EdgeNode([at(broker, "node")], GROUP, NODE, {DEVICE: metrics}, obey)
    made, (pump,) = configured(tmp_path, broker, source())
    feed = RecordingFeed()
    target = SparkplugTarget(
        group=GROUP, node=NODE, device=DEVICE, metric="P/1", scaling=pump.mapped[1].scaling
    )
    async with delivering(made, (pump, feed)), observing(broker) as observer:
        await observer.wait_states(1)
        living = asyncio.create_task(node.run())
        await until(lambda: feed.qualities(PRESSURE))
        assert await made.write(target, 9.9) == 3.0
        obeys = False
        with pytest.raises(Unavailable) as silent:
            await made.write(target, 9.9)
        assert silent.value.code == "target.no_answer"
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)


async def test_what_is_malformed_is_told_and_harms_no_neighbour(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker, message_bytes_max=3000) as (feed, observer):
        await be_born(observer)
        await until(lambda: feed.values(FLOW))
        topic = str(Topic(MessageType.DDATA, GROUP, NODE, DEVICE))
        compressed = payload_class()(uuid="SPBV1.0_COMPRESSED", body=b"x", seq=2)
        for raw in (
            b"\xff" * 50,
            b"\x12\xff\xff\xff\xff\x0f",
            compressed.SerializeToString(),
            encode(Payload((), 1, 255)).replace(b"\x18\xff\x01", b"\x18\xff\x7f"),
        ):
            await observer.client.publish(Publication(topic, raw))
        await tell(observer, "DDATA", 2, metric_of(1.0, DataType.DOUBLE, alias=99), flow(2.0))
        await tell(observer, "DDATA", 3, metric_of("text", DataType.STRING, alias=7))
        await tell(observer, "DDATA", 4, flow(np.inf))
        await tell(observer, "DDATA", None, flow(3.0))
        await tell(observer, "DDATA", 5, flow(4.0))
        await until(lambda: 4.0 in feed.values(FLOW))
    codes = feed.codes()
    assert codes["message.malformed"] == 3
    assert codes["message.compressed"] == 1
    assert codes["message.unknown_metric"] == 1
    assert codes["value.wrong_type"] == 1
    assert codes["value.not_finite"] == 1
    assert codes["message.no_seq"] == 1
    assert feed.qualities(FLOW) == [0, 0, Quality.MISSING, Quality.MISSING, 0]


async def test_data_sets_templates_and_files_are_refused_by_name(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker) as (feed, observer):
        await tell(observer, "NBIRTH", 0, bd_seq(0))
        made = payload_class()(timestamp=NOON_MS, seq=1)
        data_set = made.metrics.add(name="Flow", timestamp=NOON_MS, datatype=16)
        data_set.dataset_value.num_of_columns = 1
        template = made.metrics.add(name="P/1", timestamp=NOON_MS, datatype=19)
        template.template_value.is_definition = False
        topic = str(Topic(MessageType.DBIRTH, GROUP, NODE, DEVICE))
        await observer.client.publish(Publication(topic, made.SerializeToString()))
        await until(lambda: feed.codes()["value.unsupported_type"] == 2)
    told = [fault.message for fault in feed.faults]
    assert any("DATA_SET" in message for message in told)
    assert any("TEMPLATE" in message for message in told)
    assert feed.qualities(FLOW) == [Quality.MISSING]


async def test_a_metric_that_no_birth_tells_of_is_told_by_channel(
    tmp_path: Path, broker: MosquittoBroker
) -> None:
    async with hosted(tmp_path, broker) as (feed, observer):
        await tell(observer, "NBIRTH", 0, bd_seq(0))
        await tell(observer, "DBIRTH", 1, flow(1.0, birth=True))
        await until(lambda: feed.faults)
    ((fault,),) = (feed.faults,)
    assert (fault.code, fault.channel, fault.text) == ("value.no_such_metric", "pressure", "P/1")


async def test_browsing_tells_what_births_offer(tmp_path: Path, broker: MosquittoBroker) -> None:
    async def obey(_device: str | None, _name: str, _value: Value) -> None:
        return

    metrics = (NodeMetric("Flow", DataType.DOUBLE),)
    node = EdgeNode([at(broker, "node")], GROUP, NODE, {DEVICE: metrics}, obey)
    await node.update(DEVICE, {"Flow": 1.5})
    made, _ = configured(tmp_path, broker, source())
    async with observing(broker) as observer:
        living = asyncio.create_task(node.run())
        await observer.wait("DBIRTH")
        found = [item async for item in made.browse(f"{GROUP}/{NODE}/{DEVICE}", 5)]
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
    assert [(one.address, one.value, one.value_type) for one in found] == [
        ("Plant/Edge 1/Pump#Flow", "1.5", "double")
    ]


def test_every_assertion_of_the_specification_is_verified_or_has_a_reason() -> None:
    from tests.edge_agent.sparkplug import test_edge_node
    from tests.edge_agent.sparkplug.assertions import ASSERTIONS, NOT_TESTED

    verified: set[str] = set()
    for tests in (vars(test_edge_node), globals()):
        for name, found in tests.items():
            if name.startswith("test_"):
                verified |= set(getattr(found, "verified", ()))
    assert verified <= ASSERTIONS, f"no assertions: {verified - ASSERTIONS}"
    assert not verified & NOT_TESTED.keys()
    missing = ASSERTIONS - verified - NOT_TESTED.keys()
    assert not missing, f"neither verified nor explained: {sorted(missing)}"
    assert len(ASSERTIONS) > 280
