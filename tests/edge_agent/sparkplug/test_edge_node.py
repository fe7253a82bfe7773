"""The edge node against the specification, assertion by assertion, over a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInput
from domain.frames import Quality
from edge_agent.live import ConnectionLost
from edge_agent.mqtt.client import MqttClient
from edge_agent.sparkplug.edge_node import EdgeNode, NodeMetric
from edge_agent.sparkplug.payload import (
    REBIRTH,
    DataType,
    Metric,
    Payload,
    Value,
    bd_seq_of,
    metric_of,
)
from edge_agent.sparkplug.topics import check_id, parse_topic
from tests.brokers import MosquittoBroker, mosquitto_broker
from tests.edge_agent.feeds import until
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

MILLISECONDS_2020 = 1_577_836_800_000
METRICS = (
    NodeMetric("Flow", DataType.DOUBLE),
    NodeMetric("Speed", DataType.INT16),
    NodeMetric("Set Flow", DataType.DOUBLE, writable=True),
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MosquittoBroker]:
    with mosquitto_broker(tmp_path) as running:
        yield running


def edge_node(
    *brokers: MosquittoBroker,
    commands: list[tuple[str | None, str, Value]] | None = None,
    version: int = 5,
    **options: Any,
) -> EdgeNode:
    taken = [] if commands is None else commands

    async def take(device: str | None, name: str, value: Value) -> None:
        taken.append((device, name, value))

    return EdgeNode(
        [at(one, "node", version) for one in brokers],
        GROUP,
        NODE,
        {DEVICE: METRICS, "Valve": (NodeMetric("Open", DataType.BOOLEAN),)},
        take,
        metrics=(NodeMetric("Temperature", DataType.FLOAT),),
        **options,
    )


@asynccontextmanager
async def alive(node: EdgeNode) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(node.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def born(observer: Observer, births: int = 1) -> None:
    """Wait until the node and both devices have told so many births."""
    await observer.wait("DBIRTH", 2 * births)


def named(payload: Payload, name: str) -> Metric:
    metric = payload.metric(name)
    assert metric is not None, f"no {name} in {payload}"
    return metric


@verifies(
    "topic-structure",
    "topic-structure-namespace-a",
    "topic-structure-namespace-device-id-associated-message-types",
    "topic-structure-namespace-device-id-non-associated-message-types",
    "topics-nbirth-topic",
    "topics-dbirth-topic",
    "topics-ndata-topic",
    "topics-ddata-topic",
    "topics-ddeath-topic",
    "topics-ndeath-topic",
    "message-flow-edge-node-birth-publish-nbirth-topic",
    "message-flow-device-birth-publish-dbirth-topic",
    "message-flow-device-birth-publish-dbirth-match-edge-node-topic",
    "intro-group-id-string",
    "intro-edge-node-id-string",
    "intro-device-id-string",
)
async def test_every_message_has_the_topic_of_its_type(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    async with observing(broker) as observer:
        async with alive(node):
            await born(observer)
            await node.update(None, {"Temperature": 20.0})
            await node.update(DEVICE, {"Flow": 1.5})
            await node.device_offline(DEVICE)
            await observer.wait("DDEATH")
        await observer.wait("NDEATH")
        assert {one.topic for one in observer.seen} == {
            "spBv1.0/Plant/NBIRTH/Edge 1",
            "spBv1.0/Plant/DBIRTH/Edge 1/Pump",
            "spBv1.0/Plant/DBIRTH/Edge 1/Valve",
            "spBv1.0/Plant/NDATA/Edge 1",
            "spBv1.0/Plant/DDATA/Edge 1/Pump",
            "spBv1.0/Plant/DDEATH/Edge 1/Pump",
            "spBv1.0/Plant/NDEATH/Edge 1",
        }


@verifies(
    "message-flow-edge-node-birth-publish-connect",
    "message-flow-device-birth-publish-nbirth-wait",
    "principles-birth-certificates-order",
    "payloads-dbirth-order",
    "payloads-ndata-order",
    "payloads-ddata-order",
)
async def test_births_come_before_everything_else(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    async with observing(broker) as observer, alive(node):
        # Told all the while, and yet nothing of it before the last birth.
        for number in range(300):
            await node.update(DEVICE, {"Flow": float(number)})
            await node.update(None, {"Temperature": float(number)})
            await asyncio.sleep(0.001)
        await observer.wait("DDATA")
        types = observer.types()
        assert types[:3] == ["NBIRTH", "DBIRTH", "DBIRTH"]
        assert set(types[3:]) <= {"NDATA", "DDATA"}


@verifies(
    "topics-nbirth-mqtt",
    "topics-dbirth-mqtt",
    "topics-ndata-mqtt",
    "topics-ddata-mqtt",
    "topics-ddeath-mqtt",
    "payloads-nbirth-qos",
    "payloads-nbirth-retain",
    "payloads-dbirth-qos",
    "payloads-dbirth-retain",
    "payloads-ndata-qos",
    "payloads-ndata-retain",
    "payloads-ddata-qos",
    "payloads-ddata-retain",
    "message-flow-edge-node-birth-publish-nbirth-qos",
    "message-flow-edge-node-birth-publish-nbirth-retained",
    "message-flow-device-birth-publish-dbirth-qos",
    "message-flow-device-birth-publish-dbirth-retained",
)
async def test_births_and_data_are_qos_0_and_never_retained(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        await node.update(None, {"Temperature": 20.0})
        await node.update(DEVICE, {"Flow": 1.5})
        await node.device_offline("Valve")
        await observer.wait("DDEATH")
        assert {one.qos for one in observer.seen} == {0}
        assert len(observer.seen) == 6
        async with observing(broker, "late") as late:
            await node.update(DEVICE, {"Flow": 2.5})
            await late.wait("DDATA")
            assert late.types() == ["DDATA"]


@verifies(
    "message-flow-edge-node-birth-publish-nbirth-payload",
    "message-flow-edge-node-birth-publish-nbirth-payload-bdSeq",
    "message-flow-edge-node-birth-publish-nbirth-payload-seq",
    "message-flow-device-birth-publish-dbirth-payload",
    "topics-nbirth-seq-num",
    "topics-nbirth-timestamp",
    "topics-nbirth-metric-reqs",
    "topics-nbirth-metrics",
    "topics-nbirth-bdseq-included",
    "topics-nbirth-rebirth-metric",
    "topics-dbirth-timestamp",
    "topics-dbirth-metric-reqs",
    "topics-dbirth-metrics",
    "payloads-nbirth-seq",
    "payloads-nbirth-timestamp",
    "payloads-nbirth-bdseq",
    "payloads-nbirth-rebirth-req",
    "payloads-dbirth-timestamp",
    "payloads-sequence-num-req-nbirth",
    "payloads-name-requirement",
    "payloads-name-birth-data-requirement",
    "payloads-metric-datatype-req",
    "payloads-metric-datatype-value",
    "payloads-metric-datatype-value-type",
    "payloads-timestamp-in-UTC",
    "payloads-metric-timestamp-in-UTC",
    "operational-behavior-data-commands-rebirth-name",
    "operational-behavior-data-commands-rebirth-name-aliases",
    "operational-behavior-data-commands-rebirth-datatype",
    "operational-behavior-data-commands-rebirth-value",
    "operational-behavior-data-publish-nbirth",
    "operational-behavior-data-publish-nbirth-values",
    "operational-behavior-data-publish-dbirth",
    "operational-behavior-data-publish-dbirth-values",
)
async def test_births_tell_every_metric_with_its_type_and_value(broker: MosquittoBroker) -> None:
    node = edge_node(broker, now_ns=lambda: MILLISECONDS_2020 * 1_000_000)
    await node.update(DEVICE, {"Flow": 1.5})
    async with observing(broker) as observer, alive(node):
        await born(observer)
        (nbirth,) = await observer.wait("NBIRTH")
        births = [nbirth, *await observer.wait("DBIRTH")]
    assert nbirth.payload.seq == 0
    assert {one.payload.timestamp_ms for one in births} == {MILLISECONDS_2020}
    for one in births:
        for metric in one.payload.metrics:
            assert metric.name
            assert metric.datatype in set(DataType) - {DataType.UNKNOWN}
            assert metric.timestamp_ms == MILLISECONDS_2020
            assert metric.is_null == (metric.field is None)
    assert [metric.name for metric in nbirth.payload.metrics] == ["bdSeq", REBIRTH, "Temperature"]
    bd_seq, rebirth = named(nbirth.payload, "bdSeq"), named(nbirth.payload, REBIRTH)
    assert (bd_seq.datatype, bd_seq.value(DataType.INT64)) == (DataType.INT64, 0)
    assert (rebirth.datatype, rebirth.value(DataType.BOOLEAN)) == (DataType.BOOLEAN, False)
    assert rebirth.alias is None
    pump = next(one.payload for one in births if one.topic.endswith(DEVICE))
    assert [metric.name for metric in pump.metrics] == ["Flow", "Speed", "Set Flow"]
    assert named(pump, "Flow").value(DataType.DOUBLE) == 1.5
    assert named(pump, "Speed").is_null


@verifies(
    "payloads-alias-birth-requirement",
    "payloads-alias-data-cmd-requirement",
    "payloads-alias-uniqueness",
    "payloads-metric-datatype-not-req",
)
async def test_data_carry_aliases_that_births_have_told(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        await node.update(DEVICE, {"Flow": 1.5, "Speed": -3})
        (data,) = await observer.wait("DDATA")
        births = [*await observer.wait("NBIRTH"), *await observer.wait("DBIRTH")]
    aliases = {
        metric.alias: metric.name
        for one in births
        for metric in one.payload.metrics
        if metric.name not in ("bdSeq", REBIRTH)
    }
    assert None not in aliases
    assert len(aliases) == 5
    assert [(metric.name, metric.datatype) for metric in data.payload.metrics] == [(None, None)] * 2
    told = {aliases[metric.alias]: metric for metric in data.payload.metrics}
    assert told["Flow"].value(DataType.DOUBLE) == 1.5
    assert told["Speed"].value(DataType.INT16) == -3


@verifies(
    "payloads-sequence-num-always-included",
    "payloads-sequence-num-incrementing",
    "payloads-dbirth-seq",
    "payloads-dbirth-seq-inc",
    "payloads-ndata-seq",
    "payloads-ndata-seq-inc",
    "payloads-ddata-seq",
    "payloads-ddata-seq-inc",
    "payloads-ddeath-seq",
    "payloads-ddeath-seq-inc",
    "payloads-ddeath-seq-number",
    "topics-dbirth-seq",
    "topics-ndata-seq-num",
    "topics-ddata-seq-num",
    "topics-ddeath-seq-num",
    "message-flow-device-birth-publish-dbirth-payload-seq",
    "topics-ndata-timestamp",
    "topics-ddata-timestamp",
    "payloads-ndata-timestamp",
    "payloads-ddata-timestamp",
    "payloads-ddeath-timestamp",
)
async def test_sequence_numbers_count_every_message_and_wrap_after_255(
    broker: MosquittoBroker,
) -> None:
    node = edge_node(broker, now_ns=lambda: MILLISECONDS_2020 * 1_000_000)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        for number in range(140):
            await node.update(DEVICE, {"Flow": float(number)})
            await node.update(None, {"Temperature": float(number)})
        await node.device_offline(DEVICE)
        await node.device_online(DEVICE)
        await observer.wait("DBIRTH", 3)
    told = [one.payload for one in observer.nodes() if one.parsed.type != "NDEATH"]
    assert [payload.seq for payload in told] == [n % 256 for n in range(3 + 280 + 2)]
    assert {payload.timestamp_ms for payload in told} == {MILLISECONDS_2020}


@verifies(
    "operational-behavior-data-publish-nbirth-change",
    "operational-behavior-data-publish-dbirth-change",
    "topics-ndata-payload",
    "topics-ddata-payload",
    "principles-rbe-recommended",
)
async def test_data_tell_what_has_changed_and_nothing_else(broker: MosquittoBroker) -> None:
    node = edge_node(broker, aliases=False)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        await node.update(DEVICE, {"Flow": 1.0, "Speed": 5})
        await node.update(DEVICE, {"Flow": 1.0, "Speed": 5})
        await node.update(DEVICE, {"Flow": 1.0, "Speed": 6})
        await node.update(None, {"Temperature": 3.0})
        await node.update(None, {"Temperature": 3.0})
        await node.update(None, {"Temperature": 4.0})
        told = await observer.wait("NDATA", 2)
        of_device = await observer.wait("DDATA", 2)
    assert [[metric.name for metric in one.payload.metrics] for one in of_device] == [
        ["Flow", "Speed"],
        ["Speed"],
    ]
    assert len(told) == 2


@verifies(
    "operational-behavior-data-publish-nbirth-order",
    "operational-behavior-data-publish-dbirth-order",
)
async def test_metrics_stand_in_the_order_of_their_times(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    await node.update(DEVICE, {"Flow": 1.0}, time_ms=MILLISECONDS_2020 + 5)
    await node.update(DEVICE, {"Speed": 1}, time_ms=MILLISECONDS_2020)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        for one in observer.nodes():
            times = [metric.timestamp_ms or 0 for metric in one.payload.metrics]
            assert times == sorted(times)
        pump = next(one for one in observer.nodes() if one.topic.endswith(DEVICE))
        assert [metric.name for metric in pump.payload.metrics][:2] == ["Speed", "Flow"]


@verifies(
    "message-flow-edge-node-birth-publish-will-message",
    "message-flow-edge-node-birth-publish-will-message-topic",
    "message-flow-edge-node-birth-publish-will-message-payload",
    "message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    "message-flow-edge-node-birth-publish-will-message-qos",
    "message-flow-edge-node-birth-publish-will-message-will-retained",
    "topics-nbirth-bdseq-matching",
    "topics-nbirth-bdseq-increment",
    "topics-ndeath-payload",
    "topics-ndeath-seq",
    "payloads-nbirth-bdseq-repeat",
    "payloads-ndeath-bdseq",
    "payloads-ndeath-seq",
    "payloads-ndeath-will-message",
    "payloads-ndeath-will-message-qos",
    "payloads-ndeath-will-message-retain",
)
async def test_the_will_of_each_session_names_its_birth(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    async with observing(broker) as observer:
        for session in range(3):
            async with alive(node) as running:
                await observer.wait("NBIRTH", session + 1)
                node.drop()
                await observer.wait("NDEATH", session + 1)
                with pytest.raises(ConnectionLost):
                    await running
        births, deaths = await observer.wait("NBIRTH", 3), await observer.wait("NDEATH", 3)
        assert [bd_seq_of(one.payload) for one in births] == [0, 1, 2]
        assert [bd_seq_of(one.payload) for one in deaths] == [0, 1, 2]
        for death in deaths:
            assert death.topic == "spBv1.0/Plant/NDEATH/Edge 1"
            assert death.qos == 1
            assert death.payload.seq is None
            (metric,) = death.payload.metrics
            assert metric.datatype == DataType.INT64
        assert broker.said("(r0, q1)", 3)
        async with observing(broker, "late") as late:
            await late.ask_for_rebirth()
            await late.wait("NCMD")
            assert late.types() == ["NCMD"]


@verifies("message-flow-edge-node-birth-publish-will-message-payload-bdSeq")
async def test_bd_seq_wraps_after_255(broker: MosquittoBroker) -> None:
    node = edge_node(broker, bd_seq=255)
    async with observing(broker) as observer:
        for session in range(2):
            async with alive(node):
                await observer.wait("NBIRTH", session + 1)
        births = await observer.wait("NBIRTH", 2)
    assert [bd_seq_of(one.payload) for one in births] == [255, 0]


@verifies("principles-persistence-clean-session-311", "principles-persistence-clean-session-50")
@pytest.mark.parametrize(("version", "told"), [(3, "p2, c1"), (5, "p5, c1")])
async def test_sessions_are_clean(broker: MosquittoBroker, version: int, told: str) -> None:
    node = edge_node(broker, version=version)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        assert broker.said(f"as node ({told}")
        node.drop()
        await observer.wait("NDEATH")
    kept = replace(at(broker, "node", version), session_expiry_s=60)
    successor = MqttClient(kept, lambda _message: None)
    try:
        assert await successor.connect() is False, "the broker has kept a session"
    finally:
        await successor.close()


@verifies(
    "operational-behavior-edge-node-intentional-disconnect-ndeath",
    "operational-behavior-edge-node-intentional-disconnect-packet",
    "payloads-ndeath-will-message-publisher",
    "payloads-ndeath-will-message-publisher-disconnect-mqtt311",
    "payloads-ndeath-will-message-publisher-disconnect-mqtt50",
)
@pytest.mark.parametrize(("version", "deaths"), [(3, 1), (5, 2)])
async def test_whoever_leaves_tells_its_death_first(
    broker: MosquittoBroker, version: int, deaths: int
) -> None:
    node = edge_node(broker, version=version)
    async with observing(broker) as observer:
        async with alive(node):
            await born(observer)
        # MQTT 5's farewell asks for the will as well, so that the same death is told twice.
        found = await observer.wait("NDEATH", deaths)
        await until(lambda: broker.said("Received DISCONNECT from node"))
        assert {bd_seq_of(one.payload) for one in found} == {0}
        assert len(await observer.wait("NDEATH")) == deaths


@verifies("operational-behavior-device-ddeath")
async def test_a_device_that_is_lost_dies_and_is_born_again(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        await node.device_offline(DEVICE)
        await node.update(DEVICE, {"Flow": 9.0})
        await node.device_online(DEVICE)
        births = await observer.wait("DBIRTH", 3)
        assert observer.types()[3:] == ["DDEATH", "DBIRTH"]
        assert named(births[-1].payload, "Flow").value(DataType.DOUBLE) == 9.0


@verifies(
    "message-flow-edge-node-ncmd-subscribe",
    "operational-behavior-data-commands-rebirth-action-1",
    "operational-behavior-data-commands-rebirth-action-2",
    "operational-behavior-data-commands-rebirth-action-3",
)
async def test_a_rebirth_is_complete_and_nothing_comes_between(broker: MosquittoBroker) -> None:
    node = edge_node(broker)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        await observer.ask_for_rebirth()
        for number in range(200):
            await node.update(DEVICE, {"Flow": float(number)})
            await asyncio.sleep(0.001)
        await born(observer, 2)
        assert broker.said("spBv1.0/Plant/NCMD/Edge 1 (QoS 1)")
        types = [kind for kind in observer.types() if kind != "NCMD"]
        again = types.index("NBIRTH", 1)
        assert types[again : again + 3] == ["NBIRTH", "DBIRTH", "DBIRTH"]
        births = await observer.wait("NBIRTH", 2)
        assert [bd_seq_of(one.payload) for one in births] == [0, 0]
        assert births[1].payload.seq == 0


@verifies("message-flow-device-dcmd-subscribe")
async def test_a_command_is_taken_by_name_and_by_alias(broker: MosquittoBroker) -> None:
    commands: list[tuple[str | None, str, Value]] = []
    node = edge_node(broker, commands=commands)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        births = await observer.wait("DBIRTH", 2)
        pump = next(one.payload for one in births if one.topic.endswith(DEVICE))
        alias = named(pump, "Set Flow").alias
        await observer.command(DEVICE, metric_of(2.5, DataType.DOUBLE, name="Set Flow"))
        # Neither a metric that is not writable, nor another type, nor an unknown one.
        await observer.command(DEVICE, metric_of(2.5, DataType.DOUBLE, name="Flow"))
        await observer.command(DEVICE, metric_of(True, DataType.BOOLEAN, name="Set Flow"))
        await observer.command(DEVICE, metric_of(1.0, DataType.DOUBLE, alias=999))
        await observer.command(DEVICE, metric_of(3.5, DataType.DOUBLE, alias=alias))
        await until(lambda: len(commands) >= 2)
        assert broker.said("spBv1.0/Plant/DCMD/Edge 1/Pump (QoS 1)")
    assert commands == [(DEVICE, "Set Flow", 2.5), (DEVICE, "Set Flow", 3.5)]


@verifies(
    "message-flow-edge-node-birth-publish-phid-wait",
    "message-flow-edge-node-birth-publish-phid-wait-id",
    "message-flow-edge-node-birth-publish-phid-wait-online",
    "message-flow-edge-node-birth-publish-phid-wait-timestamp",
    "operational-behavior-edge-node-birth-sequence-wait",
)
async def test_without_its_primary_host_a_node_keeps_silent(broker: MosquittoBroker) -> None:
    node = edge_node(broker, primary_host=HOST)
    async with observing(broker) as observer, alive(node):
        await until(lambda: broker.said("spBv1.0/STATE/heddle (QoS 1)"))
        await observer.say_state(online=True, timestamp=5, host="another")
        await observer.say_state(online=False, timestamp=1_000)
        await observer.say_state(online=True, timestamp=999)  # older than the last
        await observer.say_state(online="true", timestamp=1_001)  # no truth value
        await node.update(DEVICE, {"Flow": 1.0})
        await observer.wait_states(4)
        assert not observer.nodes()
        await observer.say_state(online=True, timestamp=1_000)
        await born(observer)


@verifies(
    "message-flow-edge-node-birth-publish-phid-offline",
    "operational-behavior-edge-node-termination-host-offline",
    "operational-behavior-edge-node-termination-host-offline-reconnect",
    "operational-behavior-edge-node-termination-host-offline-timestamp",
    "operational-behavior-primary-application-state-with-multiple-servers-single-server",
    "operational-behavior-primary-application-state-with-multiple-servers-walk",
)
async def test_a_node_walks_on_when_its_primary_host_goes(
    broker: MosquittoBroker, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    with mosquitto_broker(folder) as second:
        node = edge_node(broker, second, primary_host=HOST)
        async with observing(broker) as observer, observing(second) as at_second:
            async with alive(node) as running:
                await observer.say_state(online=True, timestamp=1_000)
                await born(observer)
                await observer.say_state(online=False, timestamp=999)  # older: no news
                await node.update(DEVICE, {"Flow": 1.0})
                await observer.wait("DDATA")
                assert not running.done()
                assert not second.said("as node")
                await observer.say_state(online=False, timestamp=1_000)
                with pytest.raises(ConnectionLost, match=r"sparkplug\.host_offline"):
                    await running
                await observer.wait("NDEATH")
            await at_second.say_state(online=True, timestamp=2_000)
            async with alive(node):
                await born(at_second)
            assert broker.said("as node (", 1)
            assert not broker.said("as node (", 2)


@verifies(
    "topic-structure-namespace-valid-group-id",
    "topic-structure-namespace-valid-edge-node-id",
    "topic-structure-namespace-valid-device-id",
    "intro-group-id-chars",
    "intro-edge-node-id-chars",
    "intro-device-id-chars",
)
@pytest.mark.parametrize("kind", ["group", "edge node", "device"])
@pytest.mark.parametrize("text", ["", "a+b", "a/b", "#", "\ud800", "\x00", "x" * 300])
def test_an_id_that_no_topic_can_hold_is_refused(kind: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_id(kind, text)
    assert refused.value.code == "sparkplug.id"


@verifies(
    "topic-structure-namespace-unique-device-id",
    "topic-structure-namespace-duplicate-device-id-across-edge-node",
    "case-sensitivity-metric-names",
    "case-sensitivity-sparkplug-ids",
)
def test_names_differ_in_more_than_their_case() -> None:
    async def take(_device: str | None, _name: str, _value: Value) -> None:
        return

    flow = NodeMetric("flow", DataType.DOUBLE)
    for devices in (
        {"pump": (), "Pump": ()},
        {"pump": (flow, NodeMetric("Flow", DataType.DOUBLE))},
    ):
        with pytest.raises(InvalidInput) as refused:
            EdgeNode([], GROUP, NODE, devices, take)
        assert refused.value.code == "sparkplug.case"
    # Each node has its own devices, a mapping by their names.
    for node in ("one", "two"):
        EdgeNode([], GROUP, node, {"pump": (flow,)}, take)


@verifies(
    "payloads-propertyset-keys-array-size",
    "payloads-propertyset-values-array-size",
    "payloads-propertyset-quality-value-type",
    "payloads-propertyset-quality-value-value",
    "payloads-metric-propertyvalue-type-req",
    "payloads-metric-propertyvalue-type-type",
    "payloads-metric-propertyvalue-type-value",
)
async def test_quality_is_a_property_of_type_int32(broker: MosquittoBroker) -> None:
    from edge_agent.sparkplug.payload_schema import payload_class

    node = edge_node(broker, aliases=False)
    async with observing(broker) as observer, alive(node):
        await born(observer)
        await node.update(DEVICE, {"Flow": 1.0}, quality=Quality.BAD)
        await node.update(DEVICE, {"Flow": 1.0}, quality=Quality.UNCERTAIN)
        await node.update(DEVICE, {"Flow": 1.0})
        told = await observer.wait("DDATA", 3)
    codes = []
    for one in told[:2]:
        (metric,) = payload_class().FromString(one.raw).metrics
        assert list(metric.properties.keys) == ["Quality"]
        (value,) = metric.properties.values
        assert value.type == 3
        codes.append(value.int_value)
    assert codes == [0, 500]
    assert told[2].payload.metrics[0].quality is Quality.GOOD


@pytest.mark.parametrize(
    "text",
    [
        "spBv1.0/G/NDATA/N/D",
        "spBv1.0/G/DDATA/N",
        "spAv1.0/G/NDATA/N",
        "spBv1.0/G/XDATA/N",
        "spBv1.0//NDATA/N",
        "spBv1.0/STATE/host",
        "spBv1.0/G/DDATA/N/D/E",
    ],
)
def test_what_is_no_topic_of_a_node_is_nobodys(text: str) -> None:
    assert parse_topic(text) is None
