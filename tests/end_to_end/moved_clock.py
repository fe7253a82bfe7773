"""A wall clock of one process that the test sets while the process runs.

Debian's libfaketime stands between the process and the system's clock; the clocks that nobody
sets, by which a process waits, stay as they are. Where it is not installed a test is skipped, but
fails in CI: there it would be silently untested.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_HINT = "install it: apt-get install faketime"


class MovedClock:
    """Sets the clock of the processes that are started with `environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": libfaketime(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set_ahead(0)

    def set_ahead(self, seconds: float) -> None:
        """Let the clock go so far ahead of the system's, or behind it, about a second from now."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        os.replace(new, self._file)


def libfaketime() -> str:
    """Return the library's path; skip the test, or fail it in CI, where there is none."""
    for folder in FOLDERS:
        for found in sorted(Path(folder).glob("**/faketime/libfaketime.so.1")):
            return str(found)
    if os.environ.get("CI"):
        pytest.fail(f"no libfaketime; {_HINT}")
    pytest.skip(f"no libfaketime; {_HINT}")
