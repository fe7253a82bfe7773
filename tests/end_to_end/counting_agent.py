"""An agent on counting sources, and the accounts of what became of all that they told.

Each reading has a value of its own, so each can be asked for in the log. What the agent has put
into its outbox to be told the server, a trigger of the test's own in that file writes down in the
same commit: so a prediction that is lost later is missed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from domain.asset import ReadingsLost, telemetry_stream
from domain.events import format_time
from edge_agent.outbox import OutboxStatus, inspect_outbox
from edge_agent.outbox.file import FILE_NAME
from eventlog.database import create_pool
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.ledger import Ledger
from eventlog.reading import read_page
from ml.anomaly import AnomalyDetector, AnomalySettings
from ml.onnx_export import anomaly_onnx
from tests.end_to_end.processes import PATIENCE_S, Process, Server

ASSET: Final = "pump-7"
CHANNEL: Final = "flow"
HEALTH_ASSESSED: Final = "prediction.health_assessed"
MODEL: Final = "pressure-watch"
MARGIN_NS: Final = 1_000_000_000
"""The clocks of a window's end and of a loss's beginning are read apart."""
_WITNESS: Final = """
    CREATE TABLE IF NOT EXISTS witness (
        idempotency_key TEXT PRIMARY KEY, mutation TEXT NOT NULL, input TEXT NOT NULL);
    CREATE TRIGGER IF NOT EXISTS witnessed AFTER INSERT ON command BEGIN
        INSERT OR IGNORE INTO witness VALUES (new.idempotency_key, new.mutation, new.input);
    END;
    """
_TRAIN: Final = """
mutation($input: TrainModelInput!) {
  trainModel(input: $input) { __typename ... on Error { code message } }
}
"""


@dataclass
class Witness:
    """What an agent has promised to tell the server: inputs of mutations by their keys."""

    inputs: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def of(self, mutation: str) -> list[dict[str, Any]]:
        """Return the inputs of one mutation."""
        return [told for name, told in self.inputs.values() if name == mutation]


class CountingAgent(Process):
    """`heddle agent run` with a model that tells something new every few seconds.

    Parameters
    ----------
    declared : the configuration's ``connections`` and ``sources``
    """

    def __init__(
        self, folder: Path, server_url: str, declared: dict[str, Any], **environment: str
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.state_dir = folder / "state"
        self.witness = Witness()
        model = model_bytes()
        (folder / "model.onnx").write_bytes(model)
        use = {
            "model": MODEL,
            "file": "model.onnx",
            "sha256": hashlib.sha256(model).hexdigest(),
            "sources": [ASSET],
            "every_seconds": 1,
            "hold_seconds": 0,
            "at_most_every_seconds": 1,
            "time_limit_ms": 10_000,  # of a machine that runs many tests
        }
        config = folder / "agent.yaml"
        config.write_text(yaml.safe_dump({"agent": "edge-1", **declared, "models": [use]}))
        super().__init__(
            [
                "agent",
                "run",
                f"--config={config}",
                f"--server={server_url}",
                f"--state-dir={self.state_dir}",
            ],
            {"HEDDLE_AGENT_RETRY_DELAY_S_MAX": "0.5", **environment},
            folder / "agent.log",
        )

    @property
    def memory_mib(self) -> float:
        """What the process holds in memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("Linux tells it")

    # --- its outbox -----------------------------------------------------------------------

    def start_until(self, holds: Callable[[OutboxStatus], bool]) -> OutboxStatus:
        """Start it, have a witness written, and return its status once `holds` is true of it."""
        self.start()
        found = self.wait_for(holds)
        self.have_witnessed()
        return found

    def have_witnessed(self) -> None:
        """Have everything witnessed that it will promise to tell from now on."""
        with self._file() as connection:
            connection.executescript(_WITNESS)

    def read_witness(self) -> None:
        """Remember what was witnessed in the file as it stands."""
        with self._file() as connection:
            for key, mutation, told in connection.execute("SELECT * FROM witness"):
                self.witness.inputs[key] = (mutation, json.loads(told))

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        """Open the outbox beside the agent, or a copy of what one that was killed has left.

        Whoever opens the file first after a kill recovers it, and that has to be the agent.
        """
        file = self.state_dir / FILE_NAME
        if not self.is_running:
            for suffix in ("", "-wal"):
                left = self.folder / f"left.sqlite3{suffix}"
                left.unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    shutil.copy(f"{file}{suffix}", left)
            file = self.folder / "left.sqlite3"
        with closing(sqlite3.connect(file, timeout=PATIENCE_S)) as opened:
            yield opened

    def last_sequence_left(self) -> int:
        """Return the last number that an agent gave which was killed."""
        with self._file() as connection:
            found: int = connection.execute("SELECT last_sequence FROM agent").fetchone()[0]
        return found

    def status(self) -> OutboxStatus | None:
        """Return what its outbox holds; None until it has opened it."""
        opened = Path(f"/proc/{self.pid}/fd").iterdir()
        if not any(str(self._target(one)).endswith(FILE_NAME) for one in opened):
            return None
        try:
            with inspect_outbox(self.state_dir) as outbox:
                return outbox.status()
        except Exception:  # it is just being made
            return None

    def _target(self, link: Path) -> Path:
        try:
            return link.readlink()
        except FileNotFoundError:  # closed meanwhile
            return link

    def wait_for(
        self, holds: Callable[[OutboxStatus], bool], patience_s: float = PATIENCE_S
    ) -> OutboxStatus:
        """Return its status once `holds` is true of it."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            assert self.is_running, self.log
            told = self.status()
            if told is not None and holds(told):
                return told
            time.sleep(0.1)
        raise AssertionError(f"{self.status()}\n{self.log}")

    @property
    def rejected_commands(self) -> int:
        """How many of its commands it has put aside."""
        with self._file() as connection:
            query = "SELECT count(*) FROM rejected_command"
            found: int = connection.execute(query).fetchone()[0]
        return found

    def wait_for_commands(self, mutation: str, count: int) -> None:
        """Return once it has promised to tell `count` more of one kind."""
        self.read_witness()
        before = len(self.witness.of(mutation))
        deadline = time.monotonic() + PATIENCE_S
        while len(self.witness.of(mutation)) < before + count:
            assert self.is_running, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)
            self.read_witness()

    def drain(self, quiet: Callable[[], None]) -> None:
        """Let it send all it has once `quiet` has silenced its sources, and stop it."""
        quiet()
        time.sleep(1.0)  # what was told last is in a window by now
        told = self.wait_for(
            lambda told: not (told.pending_frames or told.pending_commands or told.pending_losses)
        )
        assert not told.rejected_counts, f"put aside: {told.rejected_counts}\n{self.log}"
        assert not told.rejected_command_counts, f"{told.rejected_command_counts}\n{self.log}"
        self.read_witness()
        self.stop()


def opcua_site(url: str) -> dict[str, Any]:
    """Return the connections and sources of an agent on a counting controller.

    Its queues never fill: asyncua's server would drop values and not tell (the overflow bit of
    OPC 10000-4, 7.38.1), and what nobody tells an agent it cannot declare.
    """
    return {
        "connections": {"plc-1": {"kind": "opcua", "url": url, "timeout_s": 2}},
        "sources": [
            {
                "kind": "opcua",
                "connection": "plc-1",
                "asset": ASSET,
                "asset_type": "skab-pump-loop",
                "window": {"seconds": 0.2, "readings": 10_000},
                "publishing_ms": 100,
                "sampling_ms": 0,
                "channels": {
                    "flow": {"node": "ns=2;s=Flow", "unit": "l/min", "queue_size": 10_000},
                    "pressure": {"node": "ns=2;s=Pressure", "unit": "bar", "queue_size": 10_000},
                },
            }
        ],
    }


def mqtt_site(url: str) -> dict[str, Any]:
    """Return the connections and sources of an agent on a counting publisher."""
    return {
        "connections": {"broker": {"kind": "mqtt", "url": url}},
        "sources": [
            {
                "kind": "mqtt",
                "connection": "broker",
                "asset": ASSET,
                "asset_type": "skab-pump-loop",
                "topic": "plant/pump-7",
                "time": {"field": "ts", "format": "unix_ms"},
                "channels": {
                    "flow": {"field": "flow", "unit": "l/min"},
                    "pressure": {"field": "pressure", "unit": "bar"},
                },
                "window": {"seconds": 0.2, "readings": 10_000},
            }
        ],
    }


def model_bytes() -> bytes:
    """Return a model that finds a pressure anomalous which is not that of its first seconds."""
    settings = AnomalySettings(baseline_s=2, window_s=1)
    detector = AnomalyDetector(("pressure",), settings, np.array([[1.0]]), limit=0.25)
    return anomaly_onnx(detector, MODEL, "1", ["skab-pump-loop"])


def prepare(server: Server) -> None:
    """Make the asset and the model known to a server that runs."""
    server.register(ASSET)
    told = {
        "idempotencyKey": "trained",
        "modelId": MODEL,
        "version": "1",
        "purpose": "to have something to tell",
        "artefactSha256": hashlib.sha256(model_bytes()).hexdigest(),
        "trainingFromPosition": 1,
        "trainingToPosition": 1,
        "seed": 0,
        "codeVersion": "a test",
        "metrics": [],
    }
    result = server.query(_TRAIN, input=told)["trainModel"]
    assert result["__typename"].endswith("Success"), result


# --- what became of it --------------------------------------------------------------------


@dataclass
class Accounts:
    """What became of what sources told and an agent promised to tell.

    Parameters
    ----------
    told : the time of each value that was told, ns since 1970 UTC
    recorded : how often each value stands in the log
    predictions : how often each prediction does
    """

    told: dict[float, int]
    recorded: Counter[float] = field(default_factory=Counter)
    losses: list[ReadingsLost] = field(default_factory=list)
    predictions: Counter[str] = field(default_factory=Counter)
    places: dict[float, int] = field(default_factory=dict)

    def check(self, witness: Witness) -> None:
        """Every reading since the first that the agent heard: once, or within a declared loss.

        Every prediction and every loss that was promised: once.
        """
        doubled = {value: count for value, count in self.recorded.items() if count > 1}
        assert not doubled, doubled
        self.check_missing()
        promised = {told["predictionId"] for told in witness.of("assessHealth")}
        assert promised <= set(self.predictions), promised - set(self.predictions)
        assert set(self.predictions.values()) <= {1}, self.predictions
        declared = {_loss_of(told) for told in witness.of("reportReadingsLost")}
        told_losses = Counter(_told(loss) for loss in self.losses)
        assert declared <= set(told_losses), declared - set(told_losses)
        assert set(told_losses.values()) <= {1}, "a loss is told once"

    def check_missing(self) -> None:
        """No reading since the first that the agent heard is missing beside a declared loss."""
        first = min(value for value in self.recorded if value in self.told)
        assert set(self.recorded) <= {0.0, *self.told}, "nothing was invented"
        spans = [
            (loss.since.timestamp() * 1e9 - MARGIN_NS, loss.until.timestamp() * 1e9 + MARGIN_NS)
            for loss in self.losses
        ]
        missing = [
            (round(value, 3), time_ns)
            for value, time_ns in self.told.items()
            if value >= first
            and value not in self.recorded
            and not any(since <= time_ns <= until for since, until in spans)
        ]
        told = f"{len(missing)} of {len(self.told)}, {missing[:5]} … {missing[-5:]}"
        assert not missing, f"{told}; declared: {self.losses}"

    @property
    def reasons(self) -> Counter[str]:
        """How many losses were declared for each reason."""
        return Counter(loss.reason for loss in self.losses)


def accounts(server: Server, told: dict[float, int]) -> Accounts:
    """Read the log of a server."""

    async def read() -> Accounts:
        found = Accounts(dict(told))
        with EmbeddedPostgres.start(server.data_dir) as database:
            pool = await create_pool(database.url)
            ledger = await Ledger.open(pool, "plant-1")
            try:
                position = 0
                while page := await read_page(ledger, position):
                    position = page[-1].position
                    for event in page:
                        _count(found, event)
            finally:
                await ledger.close()
                await pool.close()
        return found

    return asyncio.run(read())


def _count(found: Accounts, event: Any) -> None:
    if event.stream == telemetry_stream(ASSET):
        for channel, values in zip(event.frame.header.channels, event.frame.values, strict=True):
            if channel.name == CHANNEL:
                found.recorded.update(values.tolist())
                found.places.update(dict.fromkeys(values.tolist(), event.position))
    elif event.type == "asset.readings_lost":
        found.losses.append(event.fact)
    elif event.type == HEALTH_ASSESSED:
        found.predictions[event.fact.prediction_id] += 1


def _loss_of(told: dict[str, Any]) -> tuple[str, str, str, str]:
    return told["source"], told["reason"], *(_moment(told[name]) for name in ("since", "until"))


def _told(loss: ReadingsLost) -> tuple[str, str, str, str]:
    return loss.source, loss.reason, format_time(loss.since), format_time(loss.until)


def _moment(text: str) -> str:
    return format_time(datetime.fromisoformat(text))
