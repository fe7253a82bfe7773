"""A recording of vibration replayed by an agent into a server: waveforms and their features."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from domain.units import unit
from tests.end_to_end.processes import Agent, Server
from tests.recordings import REPOSITORY, read_cwru

pytestmark = pytest.mark.slow

ASSET = "bearing-rig-1"
READINGS = """
query ($channels: [String!], $to: DateTime!) {
  asset(assetId: "bearing-rig-1") {
    readings(channels: $channels, from: "2024-05-01T12:00:00Z", to: $to, maxPoints: 10000) {
      channel values
    }
  }
  events(first: 100, filter: {types: ["asset.frame_recorded"]}) {
    nodes { frame { channels readingCount timeQuality { source } } }
  }
}
"""


def cwru_source() -> dict[str, Any]:
    """Return the source `cwru` as docs/data-sets.md declares it."""
    document = (REPOSITORY / "docs" / "data-sets.md").read_text()
    (block,) = re.findall(r"```yaml\n(agent: .*?)```", document, re.DOTALL)
    (found,) = (s for s in yaml.safe_load(block)["sources"] if s["name"] == "cwru")
    return dict(found)


def test_cwru_is_replayed_into_a_server(folder: Path) -> None:
    source = cwru_source()
    with Server(folder) as server, Agent(folder / "agent", server.url, [source]) as agent:
        server.start()
        server.register(ASSET, "bearing-test-rig")
        agent.start()
        assert agent.wait() == 0, agent.log
        server.wait_until_folded()
        asked = ["vibration_drive_end.bpfo_prominence", "vibration_drive_end.bpfi_prominence"]
        told = server.query(READINGS, channels=asked, to="2024-05-01T12:02:00Z")
        waveform = server.query(
            READINGS, channels=["vibration_drive_end"], to="2024-05-01T12:00:00.5Z"
        )
    recordings = {one.name: one.acceleration_g for one in read_cwru()}
    parts = [recordings[name] for name in source["arrays"]]
    frames = [node["frame"] for node in told["events"]["nodes"]]
    assert {frame["timeQuality"]["source"] for frame in frames} == {"RECORDING"}
    sent = sum(f["readingCount"] for f in frames if f["channels"] == ["vibration_drive_end"])
    assert sent == sum(map(len, parts))

    prominence = {
        column["channel"].rsplit(".")[-1]: column["values"] for column in told["asset"]["readings"]
    }
    outer, inner = prominence["bpfo_prominence"], prominence["bpfi_prominence"]
    seconds = [len(part) // 12_000 for part in parts]
    assert len(outer) == len(inner) == sum(seconds)
    # First the recording with a fault in the outer ring, then the one with it in the inner ring.
    lines = np.array([outer, inner])
    assert (lines.argmax(axis=0) == np.repeat([0, 1], seconds)).all()
    assert lines.max(axis=0).min() > 6, "the lines stand out, as ml.vibration's rule wants them"

    (column,) = waveform["asset"]["readings"]
    expected = parts[0][: len(column["values"])] * unit("g_n").factor
    np.testing.assert_allclose(column["values"], expected, rtol=1e-12)
    assert len(column["values"]) > 5_000
