"""Heddle's own processes for tests: started as a user starts them, and killed as nobody should."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.recordings import SKAB_COLUMNS, data_folder

PATIENCE_S = 120.0
REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A `heddle` process, or another module's, killed at the latest when its test ends."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        log: Path,
        *,
        module: str = "api.cli",
    ) -> None:
        self._arguments = [sys.executable, "-m", module, *arguments]
        self._environment = os.environ | environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start it; its messages are added to its log."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it by SIGKILL: nothing of it gets to run any more."""
        self._running.kill()
        self._running.wait(PATIENCE_S)

    def stop(self) -> int:
        """End it by SIGTERM and return its exit status."""
        self._running.send_signal(signal.SIGTERM)
        try:
            return self._running.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def wait(self) -> int:
        """Return its exit status once it has ended by itself."""
        return self._running.wait(PATIENCE_S)

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._running.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the process was not started"
        return self._process


class Server(Process):
    """`heddle serve` on an embedded PostgreSQL in `folder`, at one address across restarts."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = folder / "data"
        environment = {"HEDDLE_DATA_DIR": str(self.data_dir), "HEDDLE_PORT": str(port)}
        super().__init__(["serve"], environment, folder / "server.log")

    def start(self) -> None:
        """Start it and wait until it can serve."""
        super().start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return once `/readyz` answers 200."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.HTTPError:
                assert self.is_running, self.log
            time.sleep(0.05)
        raise AssertionError(f"the server did not become ready:\n{self.log}")

    def wait_until_folded(self) -> int:
        """Return the head of the log once every projection has reached it and it stands still."""
        deadline = time.monotonic() + PATIENCE_S
        head_before = -1
        while time.monotonic() < deadline:
            ready = httpx.get(f"{self.url}/readyz").json()
            head: int = ready["position"]
            folded = all(p["position"] == head for p in ready["projections"].values())
            if folded and head == head_before:
                return head
            head_before = head
            time.sleep(0.2)
        raise AssertionError(f"the projections did not reach the head: {ready}")

    def query(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the data that the server answers `document` with."""
        response = httpx.post(
            f"{self.url}/graphql", json={"query": document, "variables": variables}, timeout=30
        )
        answer = response.json()
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    def register(self, asset_id: str, asset_type: str = "skab-pump-loop") -> None:
        """Register and commission an asset."""
        for command, extra in (
            ("registerAsset", f', assetType: "{asset_type}", title: "An asset"'),
            ("commissionAsset", ""),
        ):
            key = f'idempotencyKey: "{command}:{asset_id}"'
            result = self.query(
                f'mutation {{ result: {command}(input: {{assetId: "{asset_id}", {key}{extra}}})'
                " { __typename } }"
            )["result"]
            assert result["__typename"].endswith("Success"), result


class Agent(Process):
    """`heddle agent run` with a configuration and state of its own in `folder`."""

    def __init__(
        self,
        folder: Path,
        server_url: str,
        sources: list[dict[str, Any]],
        *,
        once: bool = True,
        models: list[dict[str, Any]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "agent.yaml"
        declared: dict[str, Any] = {"agent": "edge-1", "sources": sources}
        if models is not None:
            declared["models"] = models
        config.write_text(yaml.safe_dump(declared))
        self.state_dir = folder / "state"
        arguments = [
            "agent",
            "run",
            f"--config={config}",
            f"--server={server_url}",
            f"--state-dir={self.state_dir}",
            f"--data={data_folder()}",
        ]
        super().__init__(arguments + ["--once"] * once, {}, folder / "agent.log")


def skab_source(
    asset: str, recording: str, *, speed: float | str = "max", window_s: float = 60
) -> dict[str, Any]:
    """Return the declaration of a source that replays a SKAB recording as `asset`."""
    return {
        "kind": "csv",
        "asset": asset,
        "asset_type": "skab-pump-loop",
        "path": f"skab/data/{recording}.csv",
        "delimiter": ";",
        "time": {"column": "datetime", "format": "iso8601", "zone": "UTC"},
        "channels": {
            channel: {"column": column, "unit": unit}
            for column, (channel, unit) in SKAB_COLUMNS.items()
        },
        "window": {"seconds": window_s, "readings": 1000},
        "replay": {"times": "recorded", "speed": speed},
    }
