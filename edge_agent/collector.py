"""One source's way into the outbox: read, wait until due, cut into windows, put as frames.

The position that is kept is that of the last closed window; the rows of the window that is open
when the process ends are read again. So nothing is flushed on the way out, and a restart cuts
the same frames.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Final

from domain.errors import HeddleError, Unavailable
from domain.frame_encoding import encode
from domain.identifiers import uuid7
from edge_agent.configuration import ConfiguredSource
from edge_agent.outbox import Outbox, PendingFrame
from edge_agent.readings import Block, Rows
from edge_agent.replay import Timeline
from edge_agent.waiting import wait_up_to
from edge_agent.window import cut_windows, frame_of

SLEEP_S_MAX: Final = 60.0
"""A longer wait is made of several, because the wall clock may be set meanwhile."""
ROOM_POLL_S: Final = 1.0
REREAD_DELAY_S: Final = 10.0

_log = logging.getLogger("heddle.edge.collector")


class Collector:
    """Moves the rows of one source into the outbox.

    Parameters
    ----------
    frames_waiting : set by the collector whenever it has put a frame
    outbox_moved : set by others whenever frames have left the outbox
    now_ns : the wall clock, ns since 1970 UTC
    """

    def __init__(
        self,
        configured: ConfiguredSource,
        outbox: Outbox,
        frames_waiting: asyncio.Event,
        outbox_moved: asyncio.Event,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.reading_count = 0
        self._configured = configured
        self._outbox = outbox
        self._frames_waiting = frames_waiting
        self._outbox_moved = outbox_moved
        self._now_ns = now_ns
        self._faults_told: set[tuple[str, str]] = set()

    async def run(self, *, give_up: bool = False) -> None:
        """Collect until a finite source has ended; read again later where reading fails.

        Parameters
        ----------
        give_up : raise what reading raises
        """
        failed = False
        while True:
            try:
                await self.collect()
                return
            except (OSError, HeddleError) as error:
                if give_up:
                    raise
                if not failed:
                    _log.error("source %s cannot be read: %s", self._configured.name, error)
                failed = True
                await asyncio.sleep(REREAD_DELAY_S)

    async def collect(self) -> None:
        """Collect from the kept position to the end of the source."""
        name, bounds = self._configured.name, self._configured.window
        timeline: Timeline | None = None
        still_open: Rows | None = None
        for block in self._configured.source.read(self._outbox.source_state(name).position):
            self._note(block)
            rows = block.rows
            while len(rows):
                timeline = timeline or self._timeline(rows)
                due = timeline.due_count(rows, self._now_ns())
                if due == 0:
                    wait_s = timeline.wait_s(rows, self._now_ns())
                    await asyncio.sleep(min(wait_s, SLEEP_S_MAX))
                    continue
                closed, still_open = cut_windows(still_open, rows.between(0, due), bounds)
                rows = rows.between(due, len(rows))
                for window in closed:
                    await self._put(window, timeline)
            await asyncio.sleep(0)
        if still_open is not None and timeline is not None:
            await self._put(still_open, timeline)
        self._outbox.end(name)

    def _timeline(self, rows: Rows) -> Timeline:
        """Return the replay's timeline, anchored now unless an earlier start anchored it."""
        name, replay = self._configured.name, self._configured.replay
        state = self._outbox.source_state(name)
        if state.anchor_ns is not None and state.first_ns is not None:
            return Timeline(replay, state.anchor_ns, state.first_ns)
        anchor_ns, first_ns = self._now_ns(), int(rows.times_ns[0])
        self._outbox.anchor(name, anchor_ns, first_ns)
        return Timeline(replay, anchor_ns, first_ns)

    async def _put(self, window: Rows, timeline: Timeline) -> None:
        """Put `window` as a frame, waiting for as long as the outbox has no room."""
        configured, told = self._configured, False
        while True:
            # Another source may take this number while we wait, so it is asked for each time.
            sequence = self._outbox.next_sequence
            frame = frame_of(
                window, configured.header, configured.asset_type, sequence, timeline.shift_ns
            )
            event_id = uuid7(time.time_ns() // 1_000_000, os.urandom(10))
            pending = PendingFrame(sequence, event_id, configured.name, encode(frame))
            try:
                self._outbox.put(pending, window.end)
                break
            except Unavailable as full:
                if not told:
                    _log.warning("source %s waits for the outbox: %s", configured.name, full)
                told = True
            self._outbox_moved.clear()
            await wait_up_to(self._outbox_moved, ROOM_POLL_S)
        if told:
            _log.info("source %s goes on: the outbox has room", configured.name)
        self.reading_count += frame.reading_count
        self._frames_waiting.set()

    def _note(self, block: Block) -> None:
        if not block.faults:
            return
        name = self._configured.name
        for fault in self._outbox.note(name, block.part, block.row, block.faults):
            if (fault.channel, fault.code) not in self._faults_told:
                self._faults_told.add((fault.channel, fault.code))
                _log.warning(
                    "source %s: %s: %s%s (part %d, row %d; told once, counted from now on)",
                    name,
                    fault.code,
                    f"channel {fault.channel}: " if fault.channel else "",
                    fault.message,
                    fault.part,
                    fault.row,
                )
