"""Notices that the configuration should be read again: SIGHUP, or one of its files has changed.

Its files are the YAML and the certificates and keys that it names, which are renewed while the
agent runs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge_agent.waiting import wait_up_to

POLL_S: Final = 2.0
Stamp = tuple[int, int, int]


class ConfigurationWatch:
    """Watches files; made in the event loop that is asked to wait."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._asked = asyncio.Event()
        self._stamps = {file: _stamp(file)}
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)

    def follow(self, files: Iterable[Path]) -> None:
        """Watch `files` beside the configuration's own from now on, and no others.

        One that was watched before is compared with what it was then.
        """
        wanted = dict.fromkeys((self.file, *files))
        self._stamps = {file: self._stamps.get(file) or _stamp(file) for file in wanted}

    async def changed(self) -> None:
        """Return when a file is another one than it was at the last return, or on SIGHUP.

        A file that is away for a moment, as while an editor replaces it, has not changed.
        """
        while True:
            await wait_up_to(self._asked, POLL_S)
            now = {file: _stamp(file) or before for file, before in self._stamps.items()}
            if self._asked.is_set() or now != self._stamps:
                self._asked.clear()
                self._stamps = now
                return


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
