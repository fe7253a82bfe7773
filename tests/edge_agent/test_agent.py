"""The agent as its own process: run, killed, stopped, asked."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.frame_decoding import decode
from edge_agent.outbox import inspect_outbox
from edge_agent.yaml_section import read_document
from tests.edge_agent.configurations import (
    csv_source,
    second,
    skab_source,
    write_configuration,
    write_rows,
)
from tests.edge_agent.frame_server import FrameServer, serving, status
from tests.recordings import REPOSITORY, read_skab, skab_recording

pytestmark = pytest.mark.slow

QUICK = {
    "HEDDLE_AGENT_RETRY_DELAY_S_MIN": "0.01",
    "HEDDLE_AGENT_RETRY_DELAY_S_MAX": "0.05",
    "HEDDLE_AGENT_PROGRESS_EVERY_S": "0.1",
}
DEADLINE_S = 60.0


@pytest.fixture
def server() -> Iterator[FrameServer]:
    with serving(FrameServer()) as running:
        yield running


def command(folder: Path, name: str, *arguments: str) -> list[str]:
    options = ["--state-dir", str(folder / "state")]
    return [sys.executable, "-m", "edge_agent", name, *options, *arguments]


def run_command(folder: Path, server: FrameServer, *arguments: str) -> list[str]:
    config = ["--config", str(folder / "agent.yaml"), "--data", str(folder)]
    return command(folder, "run", *config, "--server", server.url, *arguments)


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        cwd=REPOSITORY,
        env=os.environ | QUICK | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(arguments: list[str], **environment: str) -> tuple[int, str, str]:
    """Return (exit code, standard output, standard error) of a command."""
    with start(arguments, **environment) as process:
        output, errors = process.communicate(timeout=DEADLINE_S)
        return process.returncode, output, errors


def status_of(folder: Path) -> dict[str, Any]:
    code, output, errors = finish(command(folder, "status", "--json"))
    assert code == 0, errors
    told: dict[str, Any] = json.loads(output)
    return told


def column(server: FrameServer, channel: str) -> tuple[list[int], bytes]:
    """Return times and values of `channel` in all stored frames, by sequence."""
    in_order = [decode(server.frame_bytes[key]) for key in sorted(server.frame_bytes)]
    index = [c.name for c in in_order[0].header.channels].index(channel)
    times = [time for frame in in_order for time in frame.clocks[0].tolist()]
    return times, np.concatenate([frame.values[index] for frame in in_order]).tobytes()


def test_run_once_delivers_real_recordings_and_ends_well(
    tmp_path: Path, server: FrameServer
) -> None:
    files = [skab_recording("valve1/0"), skab_recording("valve1/1")]
    write_configuration(tmp_path, skab_source(files))
    code, output, errors = finish(run_command(tmp_path, server, "--once", "--json"))
    assert code == 0, errors
    expected = [read_skab("valve1/0"), read_skab("valve1/1")]
    times, pressures = column(server, "pressure")
    assert times == [t for recording in expected for t in recording.times_ns.tolist()]
    assert pressures == b"".join(recording.values["pressure"].tobytes() for recording in expected)
    last = json.loads(output.splitlines()[-1])
    assert last["frames_pending"] == 0
    assert last["readings_read"] == 8 * len(times)
    assert status_of(tmp_path)["sources"][0]["ended"]


def test_agent_killed_again_and_again_neither_loses_nor_doubles_a_reading(
    tmp_path: Path, server: FrameServer
) -> None:
    choose = random.Random(5)
    count = 30_000
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(count // 3)], "a.csv")
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(count // 3, count)], "b.csv")
    window = {"seconds": 3600, "readings": 50}
    write_configuration(tmp_path, csv_source(path=["a.csv", "b.csv"], window=window))
    kills = 0
    while kills < 6:
        before = len(server.stored)
        process = start(run_command(tmp_path, server, "--once"))
        wanted = before + choose.randint(1, 150)
        started = time.monotonic()
        while len(server.stored) < wanted and process.poll() is None:
            assert time.monotonic() - started < DEADLINE_S
            time.sleep(0.005)
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate(timeout=DEADLINE_S)
        if process.returncode == 0:
            break
    code, _, errors = finish(run_command(tmp_path, server, "--once"))
    assert code == 0, errors
    assert kills > 0
    times, values = column(server, "flow")
    assert times == sorted(set(times))
    assert values == np.arange(count, dtype=float).tobytes()
    assert sorted(server.stored) == [("test-agent", n) for n in range(1, len(server.stored) + 1)]


def test_agent_started_before_its_server_delivers_when_it_comes(tmp_path: Path) -> None:
    with serving(FrameServer()) as gone:
        port = int(gone.url.rpartition(":")[2])
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(50)])
    write_configuration(tmp_path, csv_source())
    with start(run_command(tmp_path, gone, "--once")) as process:
        assert process.stderr is not None
        errors = ""
        while "uplink.unreachable" not in errors:
            line = process.stderr.readline()
            assert line, errors
            errors += line
        with serving(FrameServer(), port) as back:
            errors += process.stderr.read()
            assert process.wait(DEADLINE_S) == 0
    assert errors.count("uplink.unreachable") == 1
    assert errors.count("takes frames again") == 1
    assert len(back.stored) == 5


def test_rejected_frames_make_the_run_fail_and_can_be_queued_again(
    tmp_path: Path, server: FrameServer
) -> None:
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(30)])
    write_configuration(tmp_path, csv_source())
    server.judge = lambda _asset, sequence: {"code": "unit.unknown"} if sequence == 2 else None
    code, _, errors = finish(run_command(tmp_path, server, "--once"))
    assert code == 1
    assert "unit.unknown" in errors
    assert status_of(tmp_path)["rejected_counts"] == {"unit.unknown": 1}
    server.judge = lambda _asset, _sequence: None
    code, output, _ = finish(command(tmp_path, "retry-rejected", "--json"))
    assert (code, json.loads(output)) == (0, {"queued": 1})
    assert finish(run_command(tmp_path, server, "--once"))[0] == 0
    assert len(server.stored) == 3


def test_stop_signal_ends_the_agent_and_a_start_resumes(
    tmp_path: Path, server: FrameServer
) -> None:
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(25)])
    write_configuration(tmp_path, csv_source(window={"seconds": 60, "readings": 10}))
    with start(run_command(tmp_path, server)) as process:
        started = time.monotonic()
        while len(server.stored) < 5:
            assert time.monotonic() - started < DEADLINE_S
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    server.next_answers.extend([status(503)] * 1_000)
    write_rows(tmp_path, [f"{second(at)},{at},1" for at in range(40)])
    with start(run_command(tmp_path, server, "--once")) as process:
        started = time.monotonic()
        while len(server.next_answers) > 990:
            assert time.monotonic() - started < DEADLINE_S
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    server.next_answers.clear()
    assert finish(run_command(tmp_path, server, "--once"))[0] == 0
    assert column(server, "flow")[1] == np.arange(40, dtype=float).tobytes()


def test_second_agent_on_the_same_state_is_refused(tmp_path: Path, server: FrameServer) -> None:
    write_rows(tmp_path, [f"{second(0)},1,1"])
    write_configuration(tmp_path, csv_source())
    with start(run_command(tmp_path, server)) as process:
        started = time.monotonic()
        while not server.stored:
            assert time.monotonic() - started < DEADLINE_S
            time.sleep(0.01)
        code, _, errors = finish(run_command(tmp_path, server))
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    assert code == 2
    assert "agent.already_running" in errors


def test_faulty_configuration_ends_with_every_fault_and_its_line(
    tmp_path: Path, server: FrameServer
) -> None:
    write_rows(tmp_path, [f"{second(0)},1,1"])
    write_configuration(tmp_path, csv_source(path="none.csv", asset_type="rocket"))
    code, output, errors = finish(run_command(tmp_path, server))
    assert (code, output) == (2, "")
    assert f"{tmp_path}/agent.yaml:5: sources[0].asset_type: asset_type.unknown" in errors
    assert "Traceback" not in errors
    code, output, _ = finish(run_command(tmp_path, server, "--json"))
    assert json.loads(output)["error"]["faults"][0]["line"] == 5


def test_endless_source_is_refused_with_once(tmp_path: Path, server: FrameServer) -> None:
    source = {
        "kind": "simulated-pump",
        "asset": "simulated-pump",
        "asset_type": "skab-pump-loop",
        "window": {"seconds": 10, "readings": 800},
        "replay": {"times": "now"},
    }
    write_configuration(tmp_path, source)
    code, _, errors = finish(run_command(tmp_path, server, "--once"))
    assert code == 2
    assert "source.endless" in errors


def test_check_shows_readings_as_delivered_and_in_si_and_sends_nothing(tmp_path: Path) -> None:
    write_configuration(tmp_path, skab_source([skab_recording("valve1/0")]))
    config = ["--config", str(tmp_path / "agent.yaml"), "--data", str(tmp_path)]
    check = [sys.executable, "-m", "edge_agent", "check", *config, "--rows", "1"]
    code, output, errors = finish([*check, "--json"])
    assert code == 0, errors
    readings = {reading["channel"]: reading for reading in json.loads(output)["readings"]}
    assert len(readings) == 8
    assert readings["pressure"] == {
        "source": "pump-loop-1",
        "time": "2020-03-09T10:14:33.000000Z",
        "channel": "pressure",
        "value": 0.054711,
        "unit": "bar",
        "si": pytest.approx(5471.1),
        "si_unit": "Pa",
        "quality": "GOOD",
    }
    code, output, errors = finish(check)
    assert code == 0, errors
    assert "0.054711" in output


def test_status_tells_what_was_refused(tmp_path: Path, server: FrameServer) -> None:
    write_rows(tmp_path, [f"{second(0)},1,1", "nonsense,1,1", f"{second(1)},,1"])
    write_configuration(tmp_path, csv_source())
    assert finish(run_command(tmp_path, server, "--once"))[0] == 0
    told = status_of(tmp_path)
    assert told["acknowledged_sequence"] == 1
    assert told["refused_row_count"] == 1
    assert told["refused_rows"][0]["text"] == "nonsense,1,1"
    assert told["sources"][0]["fault_counts"] == {
        "row.time_unreadable": 1,
        "flow: cell.empty": 1,
    }
    code, output, _ = finish(command(tmp_path, "status"))
    assert code == 0
    assert "pump.csv:3: row.time_unreadable" in output
    with inspect_outbox(tmp_path / "state") as outbox:
        assert outbox.pending_count() == 0


def test_command_line_costs_next_to_nothing_to_import() -> None:
    heavy = ("numpy", "httpx", "msgspec", "yaml", "sqlite3", "asyncio", "zstandard")
    script = f"import sys, edge_agent.cli; print([m for m in {heavy} if m in sys.modules])"
    with start([sys.executable, "-c", script]) as process:
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert output.strip() == "[]", errors


def test_example_in_the_documentation_is_valid(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "edge-agent.md").read_text()
    examples = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    complete = [example for example in examples if example.startswith("agent:")]
    assert complete
    recordings = skab_recording("valve1/0").parents[3]
    for number, example in enumerate(complete):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        assert read_document(file).present() == ["agent", "sources"]
        check = [sys.executable, "-m", "edge_agent", "check", "--config", str(file)]
        code, _, errors = finish([*check, "--data", str(recordings)])
        assert code == 0, errors
