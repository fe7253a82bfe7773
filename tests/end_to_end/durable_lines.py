"""Lines that outlive their process: each is in the file before the next thing happens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson


class DurableLines:
    """A file of JSON lines; SIGKILL leaves every line that was added, and no half of one."""

    def __init__(self, path: Path) -> None:
        self.lines: list[dict[str, Any]] = read_lines(path)
        """Those that were there at the start."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, **line: Any) -> None:
        """Write a line, unbuffered."""
        written = orjson.dumps(line) + b"\n"
        if os.write(self._file, written) != len(written):
            raise OSError("no room for a line")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, none where there is no file."""
    if not path.exists():
        return []
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
