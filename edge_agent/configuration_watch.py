"""Notices that the configuration should be read again: SIGHUP, or its file has changed."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

from edge_agent.waiting import wait_up_to

POLL_S: Final = 2.0
Stamp = tuple[int, int, int]


class ConfigurationWatch:
    """Watches one file; made in the event loop that is asked to wait."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._asked = asyncio.Event()
        self._stamp = self._stamp_now()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)

    async def changed(self) -> None:
        """Return when the file is another one than it was at the last return, or on SIGHUP.

        A file that is away for a moment, as while an editor replaces it, has not changed.
        """
        while True:
            await wait_up_to(self._asked, POLL_S)
            stamp = self._stamp_now()
            if self._asked.is_set() or (stamp is not None and stamp != self._stamp):
                self._asked.clear()
                self._stamp = stamp
                return

    def _stamp_now(self) -> Stamp | None:
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
