"""`heddle demo`: the whole path at once, each part a process of its own.

A server on its embedded database, a small made-up factory whose parts can be traced, a simulated
plant that is read over OPC UA, Modbus TCP and, where Mosquitto is installed, MQTT, and an edge
agent for it that also replays the real recordings of a pump loop where there are some, and asks a
trained model about one of them. Everything ends with one Ctrl-C, and a new start goes on where the
last one stopped.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import typer
import yaml

from api.demo_broker import find_mosquitto, running_broker
from api.demo_model import (
    FOLDER,
    JUDGED,
    RECORDING,
    model_configuration,
    model_is_there,
    simulated_source,
)
from api.demo_model import SIMULATED as SIMULATED_JUDGED
from api.demo_plant import (
    OPCUA_PUMP,
    PlantPorts,
    free_ports,
    plant_arguments,
    plant_configuration,
    protocols_installed,
)
from api.plant_history import HistoryName, plant_history
from api.plant_history.recalls import lot_to_recall
from api.settings import ServerSettings
from api.trace import query
from domain.errors import HeddleError, Unavailable

READY_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 15.0
PROGRESS_EVERY_S: Final = 2.0
PROGRESS_WHEN_QUIET_S: Final = 30.0
PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG, linux/prctl.h

ASSET_TYPE: Final = "skab-pump-loop"
HISTORY: Final = ("pump-loop-1", "Pump loop, recorded 2020 (SKAB)")
LIVE: Final = ("pump-loop-live", "Pump loop, recording replayed as if it happened now (SKAB)")
SIMULATED: Final = ("pump-simulated", "SIMULATED pump loop: no recordings were found")

FACTORY: Final = HistoryName(parts=300, seed=1, months=6)
"""The made-up factory: small enough to be there in seconds."""

CHANNELS: Final = {
    "accelerometer_1": ("Accelerometer1RMS", "g_n"),
    "accelerometer_2": ("Accelerometer2RMS", "g_n"),
    "motor_current": ("Current", "A"),
    "pressure": ("Pressure", "bar"),
    "housing_temperature": ("Temperature", "degC"),
    "fluid_temperature": ("Thermocouple", "degC"),
    "supply_voltage": ("Voltage", "V"),
    "flow": ("Volume Flow RateRMS", "l/min"),
}

REGISTER: Final = """
mutation Register($input: RegisterAssetInput!) {
  registerAsset(input: $input) { __typename ... on Error { code message } }
}
"""
COMMISSION: Final = """
mutation Commission($input: CommissionAssetInput!) {
  commissionAsset(input: $input) { __typename ... on Error { code message } }
}
"""
PROGRESS: Final = """
{ log { position projections { lag } } %s }
"""
PROGRESS_OF: Final = """a%d: asset(assetId: "%s") {
    assetId twin { connectivity openAlertCount health { status } } }
"""


def run_demo(settings: ServerSettings, recordings: Path) -> int:
    """Run the demo until Ctrl-C; return the exit status."""
    port = _port(settings)
    url = f"http://{settings.host}:{port}"
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    mosquitto = find_mosquitto()
    ports = None
    if protocols_installed():
        ports = PlantPorts.free(with_broker=mosquitto is not None)
    assets, configuration = _plan(recordings, ports, with_model=model_is_there())
    state = settings.data_dir / "demo"
    state.mkdir(parents=True, exist_ok=True)
    status = 0
    demo = _Demo(settings, recordings, url, state, ports, stopping)
    with ExitStack() as stack:
        say(f"starting the server on {url} (data in {settings.data_dir}) ...")
        server = stack.enter_context(_process("serve", f"--port={port}"))
        if not _wait_until_ready(url, server, stopping):
            return 0 if stopping.is_set() else 1
        try:
            agent = demo.start(stack, mosquitto, assets, configuration)
        except (HeddleError, httpx.HTTPError):
            # Ctrl-C reaches the server as soon as it reaches us.
            if not stopping.is_set():
                raise
        else:
            status = _watch(url, [asset_id for asset_id, _ in assets], server, agent, stopping)
        say("stopping ...")
    say("stopped; `make demo` goes on from here")
    return status


@dataclass(frozen=True)
class _Demo:
    """What is started once the server answers.

    Parameters
    ----------
    state : folder of the demo's own
    ports : of the plant; None: it cannot be served
    """

    settings: ServerSettings
    recordings: Path
    url: str
    state: Path
    ports: PlantPorts | None
    stopping: threading.Event

    def start(
        self,
        stack: ExitStack,
        mosquitto: str | None,
        assets: list[tuple[str, str]],
        configuration: dict[str, Any],
    ) -> subprocess.Popen[bytes]:
        """Start everything and return the agent; what is started ends with `stack`."""
        for asset_id, title in assets:
            _register(self.url, asset_id, title)
        _make_factory(self.stopping)
        if "models" in configuration:
            _promote_model(self.stopping)
        else:
            say(f"no model: {FOLDER} or ONNX Runtime (heddle[edge]) is not there")
        if self.ports is not None:
            self._start_plant(stack, mosquitto, self.ports)
            key = _verifier_key(self.url, self.settings.ledger)
            _add(configuration, plant_configuration(self.ports, key))
        config = self.state / "agent.yaml"
        config.write_text(yaml.safe_dump(configuration, sort_keys=False))
        say(f"starting an edge agent on {', '.join(asset_id for asset_id, _ in assets)} ...")
        agent = stack.enter_context(
            _process(
                "agent",
                "run",
                f"--config={config}",
                f"--server={self.url}",
                f"--state-dir={self.state / 'agent'}",
                f"--data={self.recordings}",
                "--json",
            )
        )
        _show_things_to_try(
            self.url,
            assets[0][0],
            can_set=self.ports is not None,
            has_model="models" in configuration,
        )
        return agent

    def _start_plant(self, stack: ExitStack, mosquitto: str | None, ports: PlantPorts) -> None:
        spoken = "OPC UA, Modbus TCP"
        if mosquitto is None:
            say("no MQTT: Mosquitto is not installed (`make broker` installs it)")
        else:
            spoken += ", MQTT"
            broker = running_broker(mosquitto, ports.broker, self.state, _end_with_parent)
            if not stack.enter_context(broker):
                say("the MQTT broker does not answer; its pump will be OFFLINE")
        say(f"starting a SIMULATED plant ({spoken}) ...")
        stack.enter_context(_process(*plant_arguments(ports)))


def _port(settings: ServerSettings) -> int:
    """Return the port that is asked for, or another one where nobody asked and it is taken."""
    if os.environ.get("HEDDLE_PORT"):
        return settings.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            (port,) = free_ports(1)
            say(f"port {settings.port} is taken; serving on {port} (HEDDLE_PORT chooses one)")
            return port
    return settings.port


def say(line: str) -> None:
    """Print one line of the demo's own."""
    typer.echo(f"heddle demo: {line}")


# --- what is shown ------------------------------------------------------------------------


def _plan(
    recordings: Path, ports: PlantPorts | None, *, with_model: bool
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return the assets, and the agent's configuration as far as it is known without the plant."""
    configuration: dict[str, Any] = {"agent": "demo-edge", "sources": []}
    assets = [] if ports is None else ports.pumps
    recorded = (recordings / "skab" / "data" / "valve1" / "0.csv").is_file()
    if recorded:
        history = _recording(
            HISTORY[0],
            ["skab/data/anomaly-free/*.csv", "skab/data/valve1/*.csv", "skab/data/valve2/*.csv"],
            {"times": "recorded", "speed": "max"},
            window_s=120,
        )
        live = _recording(LIVE[0], ["skab/data/valve1/*.csv"], {"times": "now"}, window_s=5)
        _add(configuration, {"sources": [history, live]})
        assets += [LIVE, HISTORY]
    if with_model:
        judged, source = SIMULATED_JUDGED, simulated_source(ASSET_TYPE)
        if recorded:
            replay = {"times": "recorded", "speed": "max"}
            judged, source = JUDGED, _recording(JUDGED[0], [RECORDING], replay, window_s=10)
        _add(configuration, {"sources": [source], **model_configuration(judged[0])})
        assets += [judged]
    if ports is None and not recorded:
        source = {
            "kind": "simulated-pump",
            "asset": SIMULATED[0],
            "asset_type": ASSET_TYPE,
            "seed": 1,
            "window": {"seconds": 5, "readings": 1000},
            "replay": {"times": "now"},
        }
        _add(configuration, {"sources": [source]})
        assets = [SIMULATED, *assets]
    return assets, configuration


def _add(configuration: dict[str, Any], more: dict[str, Any]) -> None:
    """Add the sources of `more` to those there are, and whatever else it declares."""
    sources = [*configuration["sources"], *more.get("sources", [])]
    configuration.update({**more, "sources": sources})


def _verifier_key(url: str, ledger: str) -> str:
    """Return the key that signs what the server tells its agents; the demo pins it unseen."""
    told = httpx.get(f"{url}/tlog/{ledger}/vkey", timeout=10)
    told.raise_for_status()
    return told.text.strip()


def _recording(
    asset: str, path: list[str], replay: dict[str, str], *, window_s: int
) -> dict[str, Any]:
    return {
        "kind": "csv",
        "asset": asset,
        "asset_type": ASSET_TYPE,
        "path": path,
        "delimiter": ";",
        "time": {"column": "datetime", "format": "iso8601", "zone": "UTC"},
        "channels": {
            channel: {"column": column, "unit": unit}
            for channel, (column, unit) in CHANNELS.items()
        },
        "window": {"seconds": window_s, "readings": 1000},
        "replay": replay,
    }


def _make_factory(stopping: threading.Event) -> None:
    """Let the ledger have the made-up factory; where it has it, this takes a moment."""
    say(f"a made-up factory of {FACTORY.parts} parts ...")
    size = zip(("--parts", "--seed", "--months"), map(str, FACTORY), strict=True)
    with _process("generate", *(word for option in size for word in option)) as process:
        while process.poll() is None and not stopping.wait(0.1):
            pass
    if process.returncode != 0 and not stopping.is_set():
        say("it could not be made (why stands above); the rest goes on without it")


def _promote_model(stopping: threading.Event) -> None:
    """Let the log know the model, and have it serve; where it does, this changes nothing."""
    say(f"a trained model, {FOLDER.name} ...")
    arguments = ("model", "add", str(FOLDER), "--actor=user:demo", "--promote=the demo shows it")
    with _process(*arguments) as process:
        while process.poll() is None and not stopping.wait(0.1):
            pass
    if process.returncode != 0 and not stopping.is_set():
        say("it could not be added (why stands above); what it says is refused by the server")


def _show_things_to_try(url: str, asset_id: str, *, can_set: bool, has_model: bool) -> None:
    twin = "twin { connectivity health { status } readings { channel value siUnit ageS } }"
    bad = lot_to_recall(plant_history(*FACTORY[:2], months=FACTORY.months))
    assert bad is not None, "every history begins with deliveries"
    asked = f'{{ asset(assetId: "{asset_id}") {{ {twin} }} }}'
    recall = f'{{ recall(roots: ["{bad.stream}"]) {{ total parts {{ state count }} }} }}'
    part = bad.failed[0] if bad.failed else "part:SN-1-1"
    typer.echo(
        f"""
  Things to try:

    1. GraphiQL, with examples:   {url}/graphql
    2. The twin of a pump:        {_curl(url, asked)}
    3. What happened to it:       .venv/bin/heddle trace asset:{asset_id} --server {url}

  In the made-up factory one delivery was bad. What did it reach?

    4. Recall it:                 .venv/bin/heddle trace {bad.stream} --server {url}
       the same in GraphQL:       {_curl(url, recall)}
    5. One that failed, why:      .venv/bin/heddle trace {part} --server {url}
       all of it with proofs:     .venv/bin/heddle trace {part} --bundle sn.bundle --report sn.html

{_setting(url) if can_set else ""}{_asking(url) if has_model else ""}  Ctrl-C ends everything.
"""
    )


def _setting(url: str) -> str:
    """Tell how a set-point in GraphQL changes the plant."""
    desired = (
        f'mutation {{ desireSetpoint(input: {{ idempotencyKey: "try-1", assetId: '
        f'"{OPCUA_PUMP[0]}", setpoint: "flow", value: 38, unit: "l/min" }}) '
        "{ __typename ... on Error { message } } }"
    )
    seen = (
        f'{{ asset(assetId: "{OPCUA_PUMP[0]}") {{ twin {{ setpoints {{ setpoint '
        'desired(unit: "l/min") reported(unit: "l/min") } } } }'
    )
    return f"""  The plant is simulated, the protocols are real. Set the flow of its first pump:

    6. Desire 38 l/min:           {_curl(url, desired)}
       the agent checks, writes and reads it back; seconds later the flow follows:
                                  {_curl(url, seen)}

"""


def _asking(url: str) -> str:
    """Tell how to see what the model says."""
    asked = (
        f'{{ predictions(first: 5, filter: {{ modelIds: ["{FOLDER.name}"] }}) {{ nodes {{ '
        "assetId modelName health predictedAt inputFromPosition inputToPosition "
        "explanation { feature contribution } } } }"
    )
    return f"""  A model beside the machine judges one of the loops, by the readings around it.

    7. What it says, and why:     {_curl(url, asked)}

"""


def _curl(url: str, document: str) -> str:
    body = json.dumps({"query": document})
    return (
        f"curl -s {url}/graphql -H 'content-type: application/json' \\\n"
        f"                                    -d '{body}'"
    )


def _watch(
    url: str,
    assets: list[str],
    server: subprocess.Popen[bytes],
    agent: subprocess.Popen[bytes],
    stopping: threading.Event,
) -> int:
    """Show progress until told to stop; return 1 when a process ended by itself."""
    progress = PROGRESS % "".join(PROGRESS_OF % told for told in enumerate(assets))
    shown, shown_at = "", 0.0
    agent_told = False
    while not stopping.wait(PROGRESS_EVERY_S):
        if server.poll() is not None:
            say(f"the server ended with status {server.returncode}")
            return 1
        if agent.poll() is not None and not agent_told:
            say(f"the agent ended with status {agent.returncode}; the server goes on")
            agent_told = True
        try:
            line = _progress_line(query(url, progress, {}))
        except HeddleError as error:
            line = f"no answer: {error}"
        now = time.monotonic()
        if line != shown and (not shown or now - shown_at >= _pause_s(line, shown)):
            say(line)
            shown, shown_at = line, now
    return 0


def _pause_s(line: str, shown: str) -> float:
    """Tell at once of what people wait for, and of mere counting only now and then."""
    return 0.0 if line.partition(";")[2] != shown.partition(";")[2] else PROGRESS_WHEN_QUIET_S


def _progress_line(state: dict[str, Any]) -> str:
    twins = ", ".join(
        f"{node['assetId']} {node['twin']['connectivity']}, "
        f"health {node['twin']['health']['status']}, open alerts {node['twin']['openAlertCount']}"
        for name, node in state.items()
        if name != "log" and node is not None
    )
    lag = max(projection["lag"] for projection in state["log"]["projections"])
    behind = f" ({lag:,} to fold)" if lag else ""
    return f"{state['log']['position']:,} events{behind}; {twins}"


# --- processes ----------------------------------------------------------------------------


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `heddle` with `arguments`; on leaving, end it and wait until it has ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                say(f"{arguments[0]} does not end by itself; killing it")
                process.kill()
                process.wait()


def _end_with_parent() -> None:
    """Have the kernel send this process SIGTERM should the demo itself be killed."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], stopping: threading.Event) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        if stopping.wait(0.1):
            return False
    if not stopping.is_set():
        say(f"the server did not become ready on {url}; its messages are above")
    return False


def _register(url: str, asset_id: str, title: str) -> None:
    for document, command, fields in (
        (REGISTER, "registerAsset", {"assetType": ASSET_TYPE, "title": title}),
        (COMMISSION, "commissionAsset", {}),
    ):
        key = f"demo:{command}:{asset_id}"
        data = query(
            url, document, {"input": {"assetId": asset_id, "idempotencyKey": key, **fields}}
        )
        error = data[command].get("code")
        if error is not None and not error.startswith("asset.already_"):
            raise Unavailable("demo.register", f"{asset_id}: {data[command]['message']}")
