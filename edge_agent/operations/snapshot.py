"""What a running agent says of itself every other second, in a file that the status shows.

What is on disk anyway (what waits, what was lost) is asked of the outbox; here stands what only
the process knows.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_agent.operations.certificates import CertificateStatus

FILE_NAME: Final = "status.json"
SNAPSHOT_BYTES_MAX: Final = 4 * 1024 * 1024

_log = logging.getLogger("heddle.edge.status")


@dataclass(frozen=True)
class Snapshot:
    """A moment of a running agent.

    Parameters
    ----------
    server_silent_s : since its last answer to frames; None: it never gave one
    server_failing_s : since when requests fail; None: they do not
    directives_silent_s : since the last sign of life on the stream of directives, where wanted
    connections : why each delivers nothing; empty: it delivers
    clock_steps_s : by how much the wall clock was set, the latest last
    clock_synchronized : whether the operating system says that it follows a reference; None where
        it does not say
    """

    agent: str
    pid: int
    at: str
    running_s: float
    readings: int
    frames_accepted: int
    frames_duplicate: int
    frames_rejected: int
    frames_failed_requests: int
    commands_carried_out: int
    commands_rejected: int
    server: str
    server_silent_s: float | None
    server_failing_s: float | None
    directives_silent_s: float | None
    connections: Mapping[str, str]
    clock_steps_s: list[float]
    clock_synchronized: bool | None
    setpoints: Mapping[str, str]
    writing_stopped: bool
    models: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    certificates: list[CertificateStatus] = field(default_factory=list)


class SnapshotFile:
    """Keeps the latest snapshot in a state folder; a disk that is full is told once."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / FILE_NAME
        self._is_failing = False

    def write(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in place of the one before."""
        temporary = self._file.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(asdict(snapshot), default=str))
            os.replace(temporary, self._file)
        except OSError as error:
            if not self._is_failing:
                _log.error("the status cannot be written: %s", error)
            self._is_failing = True
            return
        if self._is_failing:
            _log.info("the status can be written again")
        self._is_failing = False

    def remove(self) -> None:
        """Take the file away: nobody runs any more."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


def read_snapshot(state_dir: Path) -> dict[str, Any] | None:
    """Return the snapshot of the agent that runs on `state_dir`, or None where none does."""
    try:
        with (state_dir / FILE_NAME).open("rb") as opened:
            told = json.loads(opened.read(SNAPSHOT_BYTES_MAX))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or not _runs(told.get("pid")):
        return None
    return told


def _runs(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
