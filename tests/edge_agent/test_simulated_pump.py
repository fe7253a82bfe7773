"""The simulated pump as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.sources.simulated_pump import SAMPLES_PER_BLOCK
from edge_agent.window import cut_windows, frame_of
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.configurations import configuration


def pump(**changes: Any) -> dict[str, Any]:
    source = {
        "kind": "simulated-pump",
        "asset": "simulated-pump-1",
        "asset_type": "skab-pump-loop",
        "seed": 7,
        "samples": 2 * SAMPLES_PER_BLOCK + 10,
        "valve_fault_every_s": 1200,
        "window": {"seconds": 600, "readings": 8000},
    }
    return source | changes


def test_simulated_pump_resumes_after_any_sample(tmp_path: Path) -> None:
    source = configuration(tmp_path, pump()).sources[0].source
    blocks = [block.rows for block in source.read(None)]
    whole = blocks[0].followed_by(blocks[1]).followed_by(blocks[2])
    assert len(whole) == 2 * SAMPLES_PER_BLOCK + 10
    for done in (1, SAMPLES_PER_BLOCK, SAMPLES_PER_BLOCK + 5):
        rest = next(iter(source.read(whole.between(0, done).end))).rows
        expected = whole.between(done, done + len(rest))
        assert rest.times_ns.tolist() == expected.times_ns.tolist()
        assert rest.values.tobytes() == expected.values.tobytes()


def test_simulated_readings_lie_within_the_physical_ranges(tmp_path: Path) -> None:
    configured = configuration(tmp_path, pump()).sources[0]
    rows = next(iter(configured.source.read(None))).rows
    closed, _ = cut_windows(None, rows, configured.window)
    frame = frame_of(closed[0], configured.header, configured.asset_type, 1)
    assert not any(quality.any() for quality in frame.qualities)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"asset": "pump-loop-1"}, "source.simulated_unlabelled"),
        ({"samples": None, "replay": {"speed": "max"}}, "replay.endless"),
        ({"valve_fault_every_s": 10}, "configuration.out_of_range"),
        ({"start": "2024-01-01T00:00:00"}, "row.zone_missing"),
    ],
)
def test_wrong_declaration_is_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    declared = {key: value for key, value in pump(**changes).items() if value is not None}
    with pytest.raises(ConfigurationFaults) as refused:
        configuration(tmp_path, declared)
    assert [fault.code for fault in refused.value.faults] == [code]


def test_pump_without_a_number_of_samples_is_endless(tmp_path: Path) -> None:
    declared = pump(replay={"times": "now"})
    del declared["samples"]
    assert configuration(tmp_path, declared).sources[0].source.endless
