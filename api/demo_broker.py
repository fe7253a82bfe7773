"""An MQTT broker for the demo: Mosquitto on this machine alone, where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

START_S_MAX: Final = 10.0
STOP_S_MAX: Final = 5.0


def find_mosquitto() -> str | None:
    """Return where Mosquitto is; Debian installs it where only root's shell looks."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def running_broker(
    program: str, port: int, folder: Path, preexec: Callable[[], None], *settings: str
) -> Iterator[bool]:
    """Run the broker on a port of this machine; yield whether it answers.

    Parameters
    ----------
    folder : for its configuration; it keeps nothing
    preexec : called in the new process before it begins
    settings : lines of its configuration beside the usual ones
    """
    file = folder / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
    lines += settings
    if os.geteuid() == 0:
        # It would leave root for an account that may not read its own configuration here.
        lines.insert(0, "user root")
    file.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(
        [program, "-c", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=preexec,
    )
    try:
        yield _answers(process, port)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.02)
    return False
