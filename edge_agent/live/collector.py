"""The way of all live sources into the outbox: cut, conditioned, watched, encoded, committed.

The agent's clock cuts. Sources whose windows end together are worked on together: one pass
through the models, one encoding, one commit. Between two commits nothing is promised: what was in
an open window when the process was killed lies in the loss that its next start declares.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Final

import numpy as np

from domain.errors import HeddleError, Unavailable
from domain.frame_checks import mark_all_out_of_range
from domain.frame_encoding import encode_many
from domain.frames import Frame, Quality
from domain.identifiers import uuid7
from edge_agent.clock_quality import AgentClock, SourceClock
from edge_agent.configuration import ConfiguredLiveSource
from edge_agent.live.feed import Incidents, RawWindow, SourceFeed
from edge_agent.live.framing import frames_of_all
from edge_agent.live.order import Ordering
from edge_agent.live.window import ChannelWindow, CountingStage, Observer, Window
from edge_agent.outbox import Outbox
from edge_agent.outbox.records import AgentCommand, KeptWindow, Loss, NewFrame, Priority
from edge_agent.readings import Position
from edge_agent.waiting import wait_up_to

AGENT_DOWN: Final = "agent.down"
RECONFIGURED: Final = "agent.reconfigured"
WINDOW_REFUSED: Final = "window.refused"
CLOCK_STEP_S_MIN: Final = 0.5
"""What a clock that is kept right moves within a pass is far less."""
KEPT_WITHIN_S: Final = 1.0
"""A longer window is cut early when a connection waits to acknowledge what is in it."""
LISTENED_EVERY_S: Final = 5.0
"""So often a source that brings nothing is noted to have been listened to."""
PAUSE_S_MAX: Final = 1.0
ROOM_POLL_S: Final = 1.0

_log = logging.getLogger("heddle.edge.collector")


@dataclass
class _Source:
    """A live source that is being collected."""

    configured: ConfiguredLiveSource
    feed: SourceFeed
    ordering: Ordering
    clock: SourceClock
    window_number: int
    due_s: float
    listened_s: float
    listened_ns: int
    counting: tuple[CountingStage, ...] = ()


@dataclass
class _Cut:
    """One window on its way: what arrived, what it became, and what it caused."""

    source: _Source
    raw: RawWindow | None
    incidents: Incidents
    window: Window | None
    commands: Sequence[AgentCommand] = ()
    frames: list[Frame] = field(default_factory=list)


class LiveCollector:
    """Moves the readings of all live sources into the outbox.

    Parameters
    ----------
    observers : what is asked about every batch of windows
    numbering : held from asking for a sequence number until it is used
    frames_waiting : set by the collector whenever it has put a frame
    outbox_moved : set by others whenever frames have left the outbox
    now_ns, now_s : the wall clock (ns since 1970 UTC) and the clock that nobody sets
    agent_clock : whether the wall clock follows a reference
    """

    def __init__(
        self,
        agent: str,
        outbox: Outbox,
        observers: tuple[Observer, ...],
        numbering: asyncio.Lock,
        frames_waiting: asyncio.Event,
        outbox_moved: asyncio.Event,
        now_ns: Callable[[], int] = time.time_ns,
        now_s: Callable[[], float] = time.monotonic,
        agent_clock: AgentClock | None = None,
    ) -> None:
        self.observers = observers
        self.clock_steps_s: list[float] = []
        self.reading_count = 0
        self._agent = agent
        self._outbox = outbox
        self._numbering = numbering
        self._frames_waiting = frames_waiting
        self._outbox_moved = outbox_moved
        self._now_ns = now_ns
        self._now_s = now_s
        self.agent_clock = agent_clock or AgentClock(now_s=now_s)
        self._sources: dict[str, _Source] = {}
        self._woken = asyncio.Event()
        self._passing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="windows")
        self._told: set[tuple[str, str]] = set()
        self._clock_offset_s = now_ns() / 1e9 - now_s()

    # --- sources --------------------------------------------------------------------------

    def open(self, configured: ConfiguredLiveSource, *, reason: str = AGENT_DOWN) -> SourceFeed:
        """Return the feed of a source that the outbox knows.

        What was measured between its last window and the first sign of life is declared lost.

        Parameters
        ----------
        reason : why nobody listened since its last window
        """
        state = self._outbox.source_state(configured.name)
        position = state.position
        feed = SourceFeed(configured, self._woken.set, self._now_ns)
        feed.kept_by = state.kept_by
        feed.on_kept_by = partial(self._outbox.note_kept_by, configured.name)
        now_ns = self._now_ns()
        if position is not None:
            feed.missed(reason, position.time_ns)
            now_ns = min(position.time_ns, now_ns)
        self._sources[configured.name] = _Source(
            configured,
            feed,
            Ordering(configured.source.channels),
            SourceClock(self.agent_clock),
            window_number=0 if position is None else position.row,
            due_s=self._next_due_s(configured),
            listened_s=-math.inf,
            listened_ns=now_ns,
            counting=tuple(s for s in configured.stages if isinstance(s, CountingStage)),
        )
        self._woken.set()
        return feed

    async def close(self, name: str) -> None:
        """Keep what the source called `name` has brought, and forget the source."""
        async with self._passing:
            source = self._sources.pop(name, None)
            if source is not None:
                await self._pass([(source, True)])

    def feeds(self) -> list[SourceFeed]:
        """Return the feeds of all sources."""
        return [source.feed for source in self._sources.values()]

    # --- running --------------------------------------------------------------------------

    async def run(self) -> None:
        """Cut and keep windows until cancelled."""
        while True:
            self._woken.clear()
            # What was cut is kept even if the run ends meanwhile; `close` waits for it.
            await asyncio.shield(asyncio.create_task(self._next_pass()))
            await wait_up_to(self._woken, self._pause_s())

    async def _next_pass(self) -> None:
        async with self._passing:
            await self._pass(self._due())

    async def ask(self, observers: Sequence[Observer], window: Window) -> Sequence[AgentCommand]:
        """Return what `observers` say of a window that is not ours, in their one thread."""
        loop = asyncio.get_running_loop()
        (told,) = await loop.run_in_executor(self._thread, self._asked, observers, [window])
        return told

    def shut_down(self) -> None:
        """Let the thread end; nothing is kept any more."""
        self._thread.shutdown(wait=False)

    def _due(self) -> list[tuple[_Source, bool]]:
        """Return the sources with something to keep, and whether their open window is over."""
        now_s = self._now_s()
        due: list[tuple[_Source, bool]] = []
        for source in self._sources.values():
            wanted_s = source.feed.kept_wanted_s
            over = now_s >= source.due_s
            if over:
                source.due_s = self._next_due_s(source.configured)
            whole = over or (wanted_s is not None and now_s >= wanted_s + KEPT_WITHIN_S)
            if whole or source.feed.has_full_window:
                due.append((source, whole))
        return due

    def _next_due_s(self, configured: ConfiguredLiveSource) -> float:
        """Return the next multiple of the period, so that equal windows end together."""
        period_s = configured.period_ns / 1e9
        return (math.floor(self._now_s() / period_s) + 1) * period_s

    def _pause_s(self) -> float:
        now_s = self._now_s()
        moments = [now_s + PAUSE_S_MAX]
        for source in self._sources.values():
            moments.append(source.due_s)
            if source.feed.kept_wanted_s is not None:
                moments.append(source.feed.kept_wanted_s + KEPT_WITHIN_S)
        return max(0.0, min(moments) - now_s)

    # --- one pass -------------------------------------------------------------------------

    async def _pass(self, due: Sequence[tuple[_Source, bool]]) -> None:
        if self._clock_stepped():
            # Every open window holds the moment, whether or not it ends now.
            for source in self._sources.values():
                source.feed.clock_stepped()
        cuts = [cut for source, whole in due for cut in self._cut(source, whole)]
        if not cuts:
            return
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._work, cuts)
        async with self._numbering:
            first = self._outbox.next_sequence
            kept = await loop.run_in_executor(self._thread, self._encoded, cuts, first)
            await self._put(kept)
        for cut in cuts:
            if cut.raw is not None:
                cut.source.feed.has_kept(cut.raw)
                self.reading_count += cut.raw.count
        for source, _ in due:
            source.feed.moved()
        if any(window.frames or window.commands or window.losses for window in kept):
            self._frames_waiting.set()

    def _cut(self, source: _Source, whole: bool) -> list[_Cut]:
        """Return what `source` has for the outbox; now and then that it was listened to."""
        incidents = source.feed.cut_incidents()
        cuts = []
        for raw in source.feed.cut(whole=whole):
            window = self._window(source, raw)
            cuts.append(_Cut(source, raw, incidents, window))
            incidents = Incidents()
        if not cuts and (
            incidents or (source.feed.listening and self._now_s() >= self._listened_due_s(source))
        ):
            cuts.append(_Cut(source, None, incidents, None))
        return cuts

    def _listened_due_s(self, source: _Source) -> float:
        return source.listened_s + LISTENED_EVERY_S

    def _window(self, source: _Source, raw: RawWindow) -> Window:
        configured = source.configured
        channels = source.ordering.ordered(raw.readings)
        if raw.stepped:
            channels = tuple(_uncertain(channel) for channel in channels)
        time = source.clock.quality(raw.clocks, raw.lag_ns, raw.stepped)
        return Window(configured.name, configured.asset, configured.asset_type, channels, time)

    def _clock_stepped(self) -> bool:
        """Return whether the wall clock was set since the last pass, and tell it."""
        offset_s = self._now_ns() / 1e9 - self._now_s()
        step_s, self._clock_offset_s = offset_s - self._clock_offset_s, offset_s
        if abs(step_s) < CLOCK_STEP_S_MIN:
            return False
        self.clock_steps_s = [*self.clock_steps_s[-99:], step_s]
        _log.warning(
            "the agent's clock was set %s by %.1f s; readings of this moment are UNCERTAIN",
            "forward" if step_s > 0 else "back",
            abs(step_s),
        )
        return True

    # --- in the thread --------------------------------------------------------------------

    def _work(self, cuts: Sequence[_Cut]) -> None:
        """Let the windows of `cuts` go through their stages, then ask the observers."""
        for cut in cuts:
            if cut.window is not None and cut.window.channels:
                cut.window = self._staged(cut.source, cut.window)
                for stage in cut.source.counting:
                    cut.incidents.counts.update(stage.take_counts())
        asked = [cut for cut in cuts if cut.window is not None and cut.window.channels]
        windows = [cut.window for cut in asked if cut.window is not None]
        for cut, commands in zip(asked, self._asked(self.observers, windows), strict=True):
            cut.commands = commands

    def _asked(
        self, observers: Sequence[Observer], windows: Sequence[Window]
    ) -> list[Sequence[AgentCommand]]:
        """Return what all `observers` together say of each of `windows`."""
        told: list[list[AgentCommand]] = [[] for _ in windows]
        for observer in observers if windows else ():
            try:
                answers = observer.observe(windows)
                for commands, answer in zip(told, answers, strict=True):
                    commands += answer
            except Exception:  # a model's failure may not cost a reading
                self._tell_broken("observers", type(observer).__name__)
        return list(told)

    def _staged(self, source: _Source, window: Window) -> Window:
        """Return `window` after its stages; one that breaks its word is left out."""
        for stage in source.configured.stages:
            try:
                window = stage.apply(window)
            except Exception:  # what was measured goes on, unconditioned
                self._tell_broken(source.configured.name, type(stage).__name__)
        return window

    def _tell_broken(self, where: str, what: str) -> None:
        if (where, what) not in self._told:
            self._told.add((where, what))
            _log.exception("%s: %s failed; readings go on without it (told once)", where, what)

    def _encoded(self, cuts: Sequence[_Cut], first_sequence: int) -> list[KeptWindow]:
        """Return what is kept of `cuts`, their frames numbered from `first_sequence` on."""
        losses: dict[int, Loss] = {}
        windows = [(at, cut.window) for at, cut in enumerate(cuts) if cut.window is not None]
        made = frames_of_all([window for _, window in windows], self._agent, first_sequence)
        for (at, window), frames_or_error in zip(windows, made, strict=True):
            if isinstance(frames_or_error, HeddleError):
                losses[at] = self._refused(window, frames_or_error)
            else:
                cuts[at].frames = frames_or_error
        frames = _marked(cuts)
        encoded = iter(encode_many(frames) if frames else ())
        now_ns = self._now_ns()
        return [self._kept(cut, encoded, now_ns, losses.get(at)) for at, cut in enumerate(cuts)]

    def _refused(self, window: Window, error: HeddleError) -> Loss:
        key = (window.source, error.code)
        if key not in self._told:
            self._told.add(key)
            _log.error("source %s: a window is no frame: %s (told once)", window.source, error)
        times = [int(t) for channel in window.channels for t in channel.times_ns[[0, -1]]]
        return Loss(WINDOW_REFUSED, min(times), max(times), window.reading_count)

    def _kept(
        self, cut: _Cut, encoded: Iterable[bytes], now_ns: int, loss: Loss | None
    ) -> KeptWindow:
        source, frames = cut.source, []
        for frame, data in zip(cut.frames, encoded, strict=False):
            frames.append(new_frame(frame, data, now_ns, bool(cut.commands)))
        source.window_number += 1
        if source.feed.listening:
            source.listened_ns, source.listened_s = now_ns, self._now_s()
        position = Position(0, source.window_number, source.listened_ns)
        return KeptWindow(
            source=source.configured.name,
            frames=frames,
            position=position,
            commands=cut.commands,
            losses=[*cut.incidents.losses, *([] if loss is None else [loss])],
            fault_counts=dict(cut.incidents.counts),
            refused=[replace(fault, row=position.row) for fault in cut.incidents.refused],
        )

    # --- the outbox -----------------------------------------------------------------------

    async def _put(self, kept: Sequence[KeptWindow]) -> None:
        """Commit `kept`, waiting for as long as the outbox cannot take it."""
        told = False
        while True:
            try:
                self._outbox.put_windows(kept)
                break
            except Unavailable as full:
                if not told:
                    _log.error("live sources wait for the outbox: %s", full)
                told = True
            self._outbox_moved.clear()
            await wait_up_to(self._outbox_moved, ROOM_POLL_S)
        if told:
            _log.info("live sources go on: the outbox has room")


def new_frame(frame: Frame, encoded: bytes, now_ns: int, has_commands: bool) -> NewFrame:
    """Return `frame` as the outbox keeps it, with what it is worth when not all can be kept."""
    is_waveform = frame.header.channels[0].rate_hz is not None
    priority = Priority.WAVEFORM if is_waveform else Priority.LIVE
    return NewFrame(
        sequence=frame.sequence,
        event_id=uuid7(now_ns // 1_000_000, os.urandom(10)),
        encoded=encoded,
        priority=Priority.ALERT if has_commands else priority,
        from_ns=frame.window_start_ns,
        to_ns=frame.window_end_ns,
        reading_count=frame.reading_count,
    )


def _marked(cuts: Sequence[_Cut]) -> list[Frame]:
    """Mark what is out of its range in the frames of all `cuts`, and return them in order."""
    frames: list[Frame] = []
    with_frames = [cut for cut in cuts if cut.frames]
    for asset_type, alike in groupby(with_frames, lambda cut: cut.source.configured.asset_type):
        together = list(alike)
        marked = mark_all_out_of_range(
            [frame for cut in together for frame in cut.frames], asset_type
        )
        frames += marked
        taken = iter(marked)
        for cut in together:
            cut.frames = [next(taken) for _ in cut.frames]
    return frames


def _uncertain(channel: ChannelWindow) -> ChannelWindow:
    doubtful = np.maximum(channel.qualities, np.uint8(Quality.UNCERTAIN))
    return replace(channel, qualities=doubtful)
