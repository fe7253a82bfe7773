"""What agents make of readings beside the machine, as the API tells it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.asset import RegisterAsset
from domain.asset_types import asset_type
from domain.frame_checks import mark_out_of_range
from edge_agent.live.framing import frames_of
from edge_agent.live.window import Window
from edge_agent.outbox.records import FROM_POSITION, TO_POSITION, AgentCommand
from tests.api.graphql.server import START, Server, time_ns
from tests.api.graphql.test_commands import BATCH, done
from tests.edge_agent.test_conditioning import SKAB_DECLARED, stage_of
from tests.edge_agent.test_features import CHANNELS, DECLARED, NAME, RIG, configured
from tests.edge_agent.test_inference import commands_of, published, skab_window
from tests.edge_agent.windows import SECOND_NS, channel_window, cut, waveform, window_of
from tests.recordings import read_cwru

pytestmark = pytest.mark.anyio


async def record(server: Server, window: Window) -> tuple[int, int]:
    """Record the frames of a window as an agent would; return their first and last position."""
    frames = [
        mark_out_of_range(frame, window.asset_type) for frame in frames_of(window, "edge-1", 1)
    ]
    appended = await server.record(*frames)
    return appended.placed[0].position, appended.position


async def test_raw_and_conditioned_values_are_channels_of_their_own(
    server: Server, tmp_path: Path
) -> None:
    await server.register("loop-1")
    window = skab_window("valve1/6")
    first = int(window.channels[0].times_ns[0])
    server.clock.now = datetime.fromtimestamp(first / 1e9 + 2_000, UTC)
    window = cut(window, [first + 60 * SECOND_NS])[0]
    await record(server, stage_of(tmp_path, SKAB_DECLARED, window).apply(window))
    answer = await server.ask(
        """query($from: DateTime!, $to: DateTime!) { asset(assetId: "loop-1") {
             readings(from: $from, to: $to, channels: ["flow", "flow.raw"]) {
               channel unit values } } }""",
        **{"from": moment(first), "to": moment(first + 60 * SECOND_NS)},
    )
    columns = {one["channel"]: one for one in answer["asset"]["readings"]}
    raw = np.array(columns["flow.raw"]["values"])
    delivered = window.channels[-1].values / 60_000
    np.testing.assert_allclose(raw, delivered, rtol=1e-9)
    assert columns["flow"]["values"] != columns["flow.raw"]["values"]


def moment(at_ns: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_ns // 1000)).isoformat()


async def test_features_of_a_bearing_are_channels_of_its_twin(
    server: Server, tmp_path: Path
) -> None:
    await server.command(RegisterAsset("rig-1", RIG.name, "Rig 1"))
    recording = next(one for one in read_cwru() if one.name == "OR007at6_0_130")
    start_ns = time_ns(START) - 10 * SECOND_NS
    run = waveform(NAME, "g_n", start_ns, 12_000.0, recording.acceleration_g[:24_000])
    speed = channel_window(
        "shaft_speed", "rpm", np.array([start_ns]), np.array([recording.speed_rpm])
    )
    stage, faults = configured(tmp_path, DECLARED | {"waveform": "never"}, CHANNELS)
    assert faults == []
    assert stage is not None
    window = stage.apply(
        Window("rig", "rig-1", asset_type("bearing-test-rig"), window_of(speed, run).channels)
    )
    await record(server, window)
    answer = await server.ask(
        """query($channels: [String!]) { asset(assetId: "rig-1") { twin {
             readings(channels: $channels) { channel siUnit value status } } } }""",
        channels=[f"{NAME}.bpfo_prominence", f"{NAME}.velocity_rms"],
    )
    told = {one["channel"]: one for one in answer["asset"]["twin"]["readings"]}
    assert told[f"{NAME}.bpfo_prominence"]["value"] > 6
    assert told[f"{NAME}.velocity_rms"]["siUnit"] == "m/s"
    every = await server.ask('{ asset(assetId: "rig-1") { twin { readings { channel } } } }')
    names = [one["channel"] for one in every["asset"]["twin"]["readings"]]
    assert names[:2] == ["vibration_drive_end", "vibration_fan_end"], "the type's own first"
    assert f"{NAME}.rms" in names
    assert told[f"{NAME}.velocity_rms"]["status"] == "GOOD", "far below the limits of ISO 10816"


async def test_a_prediction_from_beside_the_machine_is_recorded_with_its_reasons(
    server: Server, tmp_path: Path
) -> None:
    await server.register("loop-1")
    await done(
        server,
        "trainModel",
        modelId="skab-pump-anomaly",
        version="1",
        purpose="anomaly detection",
        artefactSha256="0" * 64,
        trainingFromPosition=1,
        trainingToPosition=1,
        seed=0,
        codeVersion="test",
        metrics=[],
    )
    window = skab_window("valve1/8")
    first = int(window.channels[0].times_ns[0])
    server.clock.now = datetime.fromtimestamp(first / 1e9 + 2_000, UTC)
    parts = cut(window, [first + n * SECOND_NS for n in range(0, 1_200, 10)])
    told = commands_of(published(tmp_path), parts)
    positions = await record(server, parts[-1])
    answer = await server.ask(BATCH, items=[_item(command, positions) for command in told])
    outcomes = [item["outcome"] for item in answer["batch"]["items"]]
    assert {outcome["__typename"] for outcome in outcomes} == {"BatchItemSuccess"}, outcomes
    await server.settle()
    assert len(told) >= 2, "the fault and its end"
    for command in told:
        answer = await server.ask(
            """query($id: ID!) { prediction(predictionId: $id) {
                 health predictedAt inputFromPosition inputToPosition
                 explanation { feature value contribution } } }""",
            id=command.input["predictionId"],
        )
        node = answer["prediction"]
        assert node["health"] == pytest.approx(command.input["health"])
        assert len(node["explanation"]) == 8
        assert (int(node["inputFromPosition"]), int(node["inputToPosition"])) == positions
        assert datetime.fromisoformat(node["predictedAt"]) == datetime.fromisoformat(
            str(command.input["occurredAt"])
        )


def _item(command: AgentCommand, positions: tuple[int, int]) -> Mapping[str, Any]:
    """Return a command as the uplink sends it: an item of a batch, its positions filled in."""
    places = {FROM_POSITION: positions[0], TO_POSITION: positions[1]}
    filled = {
        name: places.get(value, value) if isinstance(value, str) else value
        for name, value in command.input.items()
    }
    return {command.mutation: {**filled, "idempotencyKey": str(uuid.uuid4())}}
