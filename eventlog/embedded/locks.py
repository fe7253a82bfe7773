"""File locks between the processes of one data directory.

A lock ends with the last process that holds its descriptor, however it dies; a program that
inherits the descriptor keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from eventlog.embedded.folders import LockTimeout

LOCK_WAIT_S_MAX = 360.0  # a start after a crash and a stop, both at their longest
POLL_S = 0.02


def open_lock_file(path: Path) -> int:
    """Return a descriptor of `path`, made if missing, that no program inherits by itself."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextlib.contextmanager
def held_alone(path: Path) -> Iterator[int]:
    """Hold `path` alone, and yield its descriptor.

    Raises
    ------
    LockTimeout
        ``postgres.lock_timeout``: others held it all the time
    """
    descriptor = open_lock_file(path)
    try:
        deadline_s = time.monotonic() + LOCK_WAIT_S_MAX
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise LockTimeout(
                        f"Another process has held {path} for more than {LOCK_WAIT_S_MAX:.0f} s.",
                        hint="Look for a Heddle process that hangs while it starts or stops.",
                        path=path,
                    ) from None
            time.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)
