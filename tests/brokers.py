"""A Mosquitto broker for tests, started on a free port of the loopback.

Where Mosquitto is not installed a test is skipped, but fails in CI: there it would be silently
untested.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

START_S_MAX: Final = 20.0
_HINT: Final = "install it: apt-get install mosquitto"


@dataclass
class MosquittoBroker:
    """A broker that can be stopped, killed and started again with its sessions or without."""

    folder: Path
    port: int
    settings: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return once it accepts connections."""
        file = self.folder / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "log_dest file " + str(self.folder / "mosquitto.log"),
            "log_type all",
            "persistence true",
            f"persistence_location {self.folder}/",
            "autosave_interval 1",
            "autosave_on_changes true",
            *(self.settings or ("allow_anonymous true",)),
        ]
        file.write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            # Mosquitto leaves root for an account of its own, which has to write here.
            file.write_text("user root\n" + file.read_text())
        self._process = subprocess.Popen(
            [mosquitto(), "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + START_S_MAX
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.02)
        self.kill()
        raise AssertionError(f"mosquitto did not start: {self._log()}")

    def said(self, words: str, times: int = 1) -> bool:
        """Return whether its log holds `words` at least so often."""
        return self._log().count(words) >= times

    def _log(self) -> str:
        file = self.folder / "mosquitto.log"
        return file.read_text(errors="replace") if file.is_file() else ""

    def stop(self) -> None:
        """Let it end by itself; it keeps its sessions."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S_MAX)
            self._process = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S_MAX)
            self._process = None

    def forget_sessions(self) -> None:
        """Remove what it has kept on disk; to be called while it is stopped."""
        for file in self.folder.glob("mosquitto.db*"):
            file.unlink()


def mosquitto() -> str:
    """Return the path of Mosquitto; skip the test, or fail it in CI, where there is none."""
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"no mosquitto; {_HINT}")
        pytest.skip(f"no mosquitto; {_HINT}")
    return found


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def mosquitto_broker(folder: Path, *settings: str) -> Iterator[MosquittoBroker]:
    """Start a broker with its files in `folder`, and end it afterwards.

    Parameters
    ----------
    settings : lines of its configuration; without any, everybody is let in
    """
    broker = MosquittoBroker(folder, free_port(), settings)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
