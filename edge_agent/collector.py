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
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from domain.errors import HeddleError, Unavailable
from domain.frame_checks import mark_all_out_of_range
from domain.frame_encoding import encode, encode_many
from domain.frames import IntArray, Quality
from domain.identifiers import uuid7
from edge_agent.configuration import ConfiguredSource
from edge_agent.live import DeliveredChannel
from edge_agent.live.collector import new_frame
from edge_agent.live.framing import frames_of
from edge_agent.live.window import ChannelWindow, CountingStage, Window
from edge_agent.outbox import AgentCommand, KeptWindow, Outbox, PendingFrame
from edge_agent.readings import Block, Rows
from edge_agent.replay import Timeline
from edge_agent.waiting import wait_up_to
from edge_agent.window import cut_windows, frame_of

SLEEP_S_MAX: Final = 60.0
"""A longer wait is made of several, because the wall clock may be set meanwhile."""
ROOM_POLL_S: Final = 1.0
REREAD_DELAY_S: Final = 10.0

_log = logging.getLogger("heddle.edge.collector")


Ask = Callable[[Window], Awaitable[Sequence[AgentCommand]]]


def window_of(rows: Rows, configured: ConfiguredSource, shift_ns: int) -> Window:
    """Return `rows` as a window whose channels share their times; absent values are MISSING.

    A waveform stands in it once for each run of samples without a gap.
    """
    times_ns = rows.times_ns + shift_ns
    channels = []
    for declared, values in zip(configured.header.channels, rows.values, strict=True):
        missing = np.where(np.isnan(values), np.uint8(Quality.MISSING), np.uint8(0))
        channel = DeliveredChannel(declared.name, declared.unit, rate_hz=declared.rate_hz)
        whole = ChannelWindow(channel, times_ns, values, missing)
        channels += [whole.between(start, stop) for start, stop in _runs(times_ns, channel)]
    header = configured.header
    return Window(
        configured.name, header.asset, configured.asset_type, tuple(channels), header.time
    )


def _runs(times_ns: IntArray, channel: DeliveredChannel) -> list[tuple[int, int]]:
    """Return where the runs of a channel begin and end: one, but for waveforms with gaps."""
    if channel.rate_hz is None:
        return [(0, len(times_ns))]
    period_ns = 1e9 / channel.rate_hz
    # Half a sample is within the rounding of times; more is a gap.
    gaps = np.flatnonzero(np.abs(np.diff(times_ns) - period_ns) > period_ns / 2) + 1
    return list(pairwise([0, *gaps.tolist(), len(times_ns)]))


class Collector:
    """Moves the rows of one source into the outbox.

    Parameters
    ----------
    frames_waiting : set by the collector whenever it has put a frame
    outbox_moved : set by others whenever frames have left the outbox
    now_ns : the wall clock, ns since 1970 UTC
    numbering : held from asking for a sequence number until it is used
    ask : what models say of a window; None where there are none
    """

    def __init__(
        self,
        configured: ConfiguredSource,
        outbox: Outbox,
        frames_waiting: asyncio.Event,
        outbox_moved: asyncio.Event,
        now_ns: Callable[[], int] = time.time_ns,
        numbering: asyncio.Lock | None = None,
        ask: Ask | None = None,
    ) -> None:
        self.reading_count = 0
        self._configured = configured
        self._outbox = outbox
        self._frames_waiting = frames_waiting
        self._outbox_moved = outbox_moved
        self._numbering = numbering or asyncio.Lock()
        self._ask = ask
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
        is_waveform = configured.header.channels[0].rate_hz is not None
        if is_waveform or configured.stages or self._ask is not None:
            await self._put_staged(window, timeline)
            return
        while True:
            async with self._numbering:
                # Another source takes this number while we wait, so it is asked for each time.
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

    async def _put_staged(self, rows: Rows, timeline: Timeline) -> None:
        """Put what conditioning, features and models make of `rows`, in one commit."""
        configured, told = self._configured, False
        window = window_of(rows, configured, timeline.shift_ns)
        counts: Counter[tuple[str, str]] = Counter()
        for stage in configured.stages:
            window = stage.apply(window)
            if isinstance(stage, CountingStage):
                counts.update(stage.take_counts())
        commands = () if self._ask is None else await self._ask(window)
        agent, name = configured.header.agent, configured.name
        while True:
            async with self._numbering:
                frames = mark_all_out_of_range(
                    frames_of(window, agent, self._outbox.next_sequence), configured.asset_type
                )
                encoded = encode_many(frames)
                try:
                    if not self._outbox.has_room(name, sum(map(len, encoded))):
                        raise Unavailable("outbox.full", f"source {name!r} has filled its share")
                    now_ns = time.time_ns()
                    kept = [
                        new_frame(frame, data, now_ns, bool(commands))
                        for frame, data in zip(frames, encoded, strict=True)
                    ]
                    self._outbox.put_windows(
                        [KeptWindow(name, kept, rows.end, commands, fault_counts=counts)]
                    )
                    break
                except Unavailable as full:
                    if not told:
                        _log.warning("source %s waits for the outbox: %s", name, full)
                    told = True
            self._outbox_moved.clear()
            await wait_up_to(self._outbox_moved, ROOM_POLL_S)
        if told:
            _log.info("source %s goes on: the outbox has room", name)
        self.reading_count += rows.values.size
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
