"""The outbox: frames and commands on disk until the server has acknowledged them.

One SQLite file in the agent's state folder. Frames, the sequence numbers they were given, the
commands they caused and their sources' positions after them are committed together; so an agent
killed at any moment goes on without a lost or a doubled reading. Its size and age are bounded: a
recording that has filled its share waits; of live sources the least important frames go, each a
declared loss (`edge_agent.outbox.losses`). Alerts and commands are kept.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from domain.errors import Conflict, Unavailable
from edge_agent.outbox import sources
from edge_agent.outbox.commands import COMMANDS_DROPPED, Commands
from edge_agent.outbox.drops import DROP_CLASS_NEVER, Drops, drop_class
from edge_agent.outbox.faults import Faults
from edge_agent.outbox.file import Reservation, locked_store, store_beside
from edge_agent.outbox.losses import Losses
from edge_agent.outbox.recent_frames import RecentFrames
from edge_agent.outbox.records import (
    AgentCommand,
    KeptWindow,
    Loss,
    NewFrame,
    OutboxStatus,
    PendingCommand,
    PendingFrame,
    Priority,
    Rejection,
    SourceState,
)
from edge_agent.outbox.selection import select_frames
from edge_agent.outbox.status import outbox_status
from edge_agent.outbox.store import Store
from edge_agent.readings import Position, RowFault

AGE_S_MAX: Final = 7 * 24 * 3600.0
EXPIRED_AT_ONCE: Final = 500
DAMAGED: Final = "outbox.damaged"
_MESSAGE_LENGTH_MAX: Final = 500


@contextmanager
def open_outbox(
    state_dir: Path, bytes_max: int, *, age_s_max: float = AGE_S_MAX
) -> Iterator[Outbox]:
    """Open the outbox in `state_dir` for the one process that may run on it.

    A file that is damaged is put aside, what can be read of it is kept, and what may be missing is
    a declared loss.

    Raises
    ------
    Conflict
        ``agent.already_running`` while another process holds the folder.
    InvalidInput
        ``outbox.damaged`` when nothing tells which numbers its frames have taken, or
        ``outbox.schema_newer`` when a newer version wrote it.
    Unavailable
        ``outbox.state_folder`` when the folder cannot be made or written.
    """
    with locked_store(state_dir) as (store, reservation, salvage):
        damage = None if salvage is None else Loss(DAMAGED, salvage.since_ns, time.time_ns())
        yield Outbox(store, bytes_max, reservation=reservation, age_s_max=age_s_max, damage=damage)


@contextmanager
def inspect_outbox(state_dir: Path) -> Iterator[Outbox]:
    """Open the outbox in `state_dir` beside the agent that may be running on it.

    Raises
    ------
    NotFound
        ``outbox.missing``
    InvalidInput
        ``outbox.damaged``, ``outbox.schema_newer`` or ``outbox.schema_older``
    """
    with store_beside(state_dir) as store:
        yield Outbox(store, 0)


class Outbox:
    """The durable state of one agent; made by `open_outbox`.

    Parameters
    ----------
    bytes_max : of all frames; each source has an equal share, and live sources share theirs
    age_s_max : seconds that the agent runs, until a live frame has become too old to be sent
    clock : seconds, monotonic
    damage : what live sources may have lost with an earlier file; declared once they are known
    """

    def __init__(
        self,
        store: Store,
        bytes_max: int,
        *,
        reservation: Reservation | None = None,
        age_s_max: float = AGE_S_MAX,
        clock: Callable[[], float] = time.monotonic,
        damage: Loss | None = None,
    ) -> None:
        self._recent = RecentFrames()
        self.commands = Commands(store, self._recent.position)
        self.losses = Losses(store)
        self._faults = Faults(store)
        self._store = store
        self._reservation = reservation
        self._bytes_max = bytes_max
        self._age_s_max = age_s_max
        self._clock = clock
        self._damage = damage
        self._opened_s = clock()
        self._live: frozenset[str] = frozenset(
            name for (name,) in store.rows("SELECT name FROM source WHERE live = 1")
        )
        self._ranks: Mapping[str, int] = {}
        self._source_count = 1
        self._stored_bytes: Counter[str] = Counter()
        stored = "SELECT source, frame FROM pending UNION ALL SELECT source, frame FROM rejected"
        for source, size in store.rows(
            f"SELECT source, sum(length(frame)) FROM ({stored}) GROUP BY source"
        ):
            self._stored_bytes[source] = size
        agent = store.rows("SELECT last_sequence, run_s, name FROM agent")
        self._last_sequence: int = agent[0][0] if agent else 0
        self._run_s: float = agent[0][1] if agent else 0.0
        self.agent: str = agent[0][2] if agent else ""
        self._drops = Drops(store, self._dropped)

    @property
    def run_s(self) -> float:
        """How long the agent has run on this outbox, s; no clock that jumps changes it."""
        return self._run_s + self._clock() - self._opened_s

    # --- sources --------------------------------------------------------------------------

    def adopt(
        self,
        agent: str,
        parts_by_source: Mapping[str, Sequence[str]],
        live: Mapping[str, str] | None = None,
        drop_ranks: Mapping[str, int] | None = None,
    ) -> None:
        """Tie the outbox to `agent` and make its sources known.

        Parameters
        ----------
        parts_by_source : of recordings, which wait while the outbox is full
        live : the asset of each live source, whose frames may have to go
        drop_ranks : which of them go first: the higher, the sooner; 0 unless given

        Raises
        ------
        Conflict
            ``agent.other_name`` when the state belongs to an agent of another name.
        InvalidInput
            ``source.parts_changed`` when the parts a source has read are other ones now.
        """
        live = live or {}
        with self._store.transaction():
            if self._store.value("SELECT name FROM agent") is None:
                # Numbers that an outbox gave which is gone now are not given again.
                reserved = self._reservation.read() if self._reservation is not None else None
                self._last_sequence = reserved.sequence if reserved is not None else 0
                self._store.execute(
                    "INSERT INTO agent VALUES (1, ?, ?, 0, 0, 0)", agent, self._last_sequence
                )
            name = self._store.value("SELECT name FROM agent")
            if name != agent:
                raise Conflict(
                    "agent.other_name",
                    f"the state folder belongs to agent {name!r}, not {agent!r}",
                    hint="its frames carry that name; give the new agent a folder of its own",
                    value=agent,
                    limit=name,
                )
            self.agent = agent
            for source, parts in parts_by_source.items():
                sources.adopt_recording(self._store, source, list(parts))
            for source, asset in live.items():
                sources.adopt_live(self._store, source, asset)
        self._live = frozenset(live)
        self._ranks = drop_ranks or {}
        self._source_count = max(1, len(parts_by_source) + len(live))
        if self._damage is not None:
            damage, self._damage = self._damage, None
            for source in sorted(self._live):
                self.declare_loss(source, damage.reason, damage.from_ns, damage.to_ns, damage.count)

    def watch_inputs(self, spans_ns: Mapping[str, int]) -> None:
        """Remember the frames of sources, by name, for so long as a command may rest on them."""
        self._recent.watch(spans_ns)

    def source_state(self, source: str) -> SourceState:
        """Return how far `source` got."""
        return sources.source_state(self._store, source)

    def anchor(self, source: str, anchor_ns: int, first_ns: int) -> None:
        """Keep the moment `anchor_ns` at which the row recorded at `first_ns` was due."""
        with self._store.transaction():
            sources.anchor(self._store, source, anchor_ns, first_ns)

    def end(self, source: str) -> None:
        """Keep that `source` was read to its end."""
        with self._store.transaction():
            sources.end(self._store, source)

    def note_kept_by(self, source: str, kept_by: str) -> None:
        """Keep who keeps for a live source what comes while nobody listens.

        On a full disk it stays as it was: the next start then declares a loss too many.
        """
        with suppress(Unavailable), self._store.transaction():
            sources.note_kept_by(self._store, source, kept_by)

    def note(self, source: str, part: int, row: int, faults: Sequence[RowFault]) -> list[RowFault]:
        """Keep and count the `faults` found up to `row` of `part`; return those that were new.

        A restart reads the rows of its open window again; what was noted before is not counted
        twice.
        """
        return self._faults.note(source, part, row, faults)

    @property
    def has_live_sources(self) -> bool:
        """Whether some of the sources that were adopted are live."""
        return bool(self._live)

    # --- frames in ------------------------------------------------------------------------

    @property
    def next_sequence(self) -> int:
        """The number the next frame has to carry."""
        return self._last_sequence + 1

    def has_room(self, source: str, size: int) -> bool:
        """Return whether `source` may put `size` bytes more; one frame it always may.

        Every source has an equal share, so that one whose frames are not taken leaves the
        others theirs.
        """
        stored = self._stored_bytes[source]
        return stored == 0 or stored + size <= self._bytes_max // self._source_count

    def put(self, frame: PendingFrame, position: Position) -> None:
        """Commit `frame` of a recording and its source's `position` after it, together.

        Raises
        ------
        Unavailable
            ``outbox.full`` or ``outbox.disk_full``; nothing has changed then.
        """
        size = len(frame.encoded)
        if not self.has_room(frame.source, size):
            raise Unavailable(
                "outbox.full",
                f"source {frame.source!r} keeps {self._stored_bytes[frame.source]} bytes that are "
                "not acknowledged",
                limit=self._bytes_max // self._source_count,
            )
        new = NewFrame(frame.sequence, frame.event_id, frame.encoded, Priority.LIVE, 0, 0, 0)
        self.put_windows([KeptWindow(frame.source, [new], position)])

    def put_windows(self, windows: Sequence[KeptWindow]) -> None:
        """Commit `windows` together: frames, commands, losses, faults and positions.

        The frames are numbered on from `next_sequence`, through all windows in their order.
        Frames of a window with commands are kept like alerts. Where live sources have filled
        their share, the least important of their frames go.

        Raises
        ------
        Unavailable
            ``outbox.disk_full``; nothing has changed then.
        ValueError
            a frame has another number
        """
        sequence = self._last_sequence
        for window in windows:
            for frame in window.frames:
                sequence += 1
                if frame.sequence != sequence:
                    raise ValueError(f"frame {frame.sequence} does not follow {sequence - 1}")
        if self._reservation is not None and sequence > self._last_sequence:
            self._reservation.cover(sequence, self._oldest_ns)
        with self._writing():
            self._make_room(windows)
            self._put_frames(windows)
            for window in windows:
                self._put_incidents(window)
            self._store.execute("UPDATE agent SET last_sequence = ?", sequence)
        self._last_sequence = sequence

    def put_window(
        self,
        source: str,
        frames: Sequence[NewFrame],
        position: Position | None = None,
        commands: Sequence[AgentCommand] = (),
        losses: Sequence[Loss] = (),
    ) -> None:
        """Commit one window; see `put_windows`."""
        self.put_windows([KeptWindow(source, frames, position, commands, losses)])

    def put_commands(self, commands: Sequence[AgentCommand]) -> None:
        """Commit `commands` that no window has caused.

        Raises
        ------
        Unavailable
            ``outbox.disk_full``; nothing has changed then.
        """
        with self._store.transaction():
            self._keep_commands("", commands, ())

    @property
    def store(self) -> Store:
        """The file, for tables of the agent's own that are committed with its commands."""
        return self._store

    def _put_frames(self, windows: Sequence[KeptWindow]) -> None:
        """Write the frames of `windows` and how far their sources got, each as one statement."""
        now_s = self.run_s
        self._store.execute_many(
            "INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    frame.sequence,
                    frame.event_id.bytes,
                    window.source,
                    frame.encoded,
                    self._drop_class(window, frame),
                    frame.from_ns,
                    frame.to_ns,
                    frame.reading_count,
                    now_s,
                )
                for window in windows
                for frame in window.frames
            ],
        )
        for window in windows:
            for frame in window.frames:
                self._stored_bytes[window.source] += len(frame.encoded)
        sources.move(
            self._store,
            [(one.source, one.position) for one in windows if one.position is not None],
        )

    def _drop_class(self, window: KeptWindow, frame: NewFrame) -> int:
        if window.source not in self._live:
            return DROP_CLASS_NEVER
        priority = Priority.ALERT if window.commands else frame.priority
        return drop_class(priority, self._ranks.get(window.source, 0))

    def _put_incidents(self, window: KeptWindow) -> None:
        """Write what `window` brought beside its frames."""
        source = window.source
        self._keep_commands(source, window.commands, [f.sequence for f in window.frames])
        self._recent.put(source, window.frames)
        for loss in window.losses:
            self.losses.declare(source, loss, self.run_s)
        self._faults.count(source, window.fault_counts, window.refused)

    def _keep_commands(
        self, source: str, commands: Sequence[AgentCommand], sequences: Sequence[int]
    ) -> None:
        dropped = 0
        for command in commands:
            dropped += self.commands.put([command], self._input_frames(source, command, sequences))
        if dropped:
            now_ns = time.time_ns()
            loss = Loss(COMMANDS_DROPPED, now_ns, now_ns, dropped)
            self.losses.declare(source, loss, self.run_s)

    def _input_frames(
        self, source: str, command: AgentCommand, sequences: Sequence[int]
    ) -> Sequence[int]:
        """Return the frames on which `command` rests; those that wait are dropped no more."""
        if command.input_from_ns is None or not sequences:
            return sequences
        recent = self._recent.since(source, command.input_from_ns)
        earlier = [number for number in recent if number < sequences[0]]
        told = json.dumps(earlier)
        # What was dropped or put aside meanwhile is no part of what the server has.
        waiting = self._store.rows(
            "UPDATE pending SET drop_class = 0 WHERE sequence IN (SELECT value FROM json_each(?)) "
            "RETURNING sequence",
            told,
        )
        there = {number for (number,) in waiting}
        there.update(n for n in earlier if self._recent.position(n) is not None)
        return [*sorted(there), *sequences]

    # --- what has to go -------------------------------------------------------------------

    def declare_loss(
        self, source: str, reason: str, from_ns: int, to_ns: int, count: int | None = None
    ) -> None:
        """Declare that readings of `source` are lost; it is written as soon as it can be."""
        loss = Loss(reason, from_ns, to_ns, count)
        try:
            with self._store.transaction():
                self.losses.declare(source, loss, self.run_s)
        except Unavailable:
            self.losses.hold(source, loss)

    def tidy(self) -> None:
        """Drop live frames that are too old, and make commands of losses that can be reported.

        Raises
        ------
        Unavailable
            ``outbox.disk_full``; nothing has changed then.
        """
        with self._writing():
            self._drops.drop_older(self.run_s - self._age_s_max, EXPIRED_AT_ONCE)
            self.commands.put(self.losses.take_settled(self.run_s, self.agent))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Commit what is done inside, what could not be written before, and the run's clock."""
        before = self._stored_bytes.copy()
        try:
            with self._store.transaction():
                self.losses.write_held(self.run_s)
                yield
                self._store.execute("UPDATE agent SET run_s = ?", self.run_s)
        except BaseException:
            self._stored_bytes = before
            raise
        self.losses.forget_held()

    def _make_room(self, windows: Sequence[KeptWindow]) -> None:
        if not self._live or not self._bytes_max:
            return
        pool = self._bytes_max // self._source_count * len(self._live)
        coming = sum(
            len(frame.encoded)
            for window in windows
            if window.source in self._live
            for frame in window.frames
        )
        kept = sum(self._stored_bytes[source] for source in self._live)
        if coming and kept + coming > pool:
            self._drops.drop_bytes(kept + coming - pool)

    def _dropped(self, source: str, size: int, loss: Loss) -> None:
        self._stored_bytes[source] -= size
        self.losses.declare(source, loss, self.run_s)

    def _oldest_ns(self) -> int:
        """Return a time before which no frame that waits was measured, ns since 1970."""
        oldest = self._store.value(
            "SELECT from_ns FROM pending WHERE from_ns > 0 ORDER BY sequence LIMIT 1"
        )
        return time.time_ns() if oldest is None else min(int(oldest), time.time_ns())

    # --- frames out -----------------------------------------------------------------------

    def pending(
        self,
        frames_max: int,
        bytes_max: int,
        held: Collection[str] = (),
        fresh_from: int | None = None,
    ) -> list[PendingFrame]:
        """Return frames of sources not `held`, as many as fit in a batch, at least one.

        The oldest; but of those from the number `fresh_from` on as many come first as fit in
        `selection.FRESH_SHARE` of the batch, so that what is new does not wait for what is old.

        Parameters
        ----------
        bytes_max : of the batch, in which a frame takes `encoded_size` of its length
        """
        return select_frames(self._store, frames_max, bytes_max, held, fresh_from)

    @contextmanager
    def sending(self, frames: Sequence[PendingFrame]) -> Iterator[None]:
        """Drop none of `frames` meanwhile: the server may be about to take them."""
        self._drops.spared = frozenset(frame.sequence for frame in frames)
        try:
            yield
        finally:
            self._drops.spared = frozenset()

    def acknowledge(
        self,
        sequences: Sequence[int],
        position: int,
        positions: Mapping[int, int] | None = None,
    ) -> None:
        """Forget the frames `sequences`, which the server has stored at most at `position`.

        Parameters
        ----------
        positions : where each of them stands, for the commands that wait to tell it
        """
        if not sequences:
            return
        gone: list[tuple[str, int]] = []
        with self._store.transaction():
            gone = self._store.rows(
                "DELETE FROM pending WHERE sequence IN (SELECT value FROM json_each(?)) "
                "RETURNING source, length(frame)",
                json.dumps(list(sequences)),
            )
            self._store.execute(
                "UPDATE agent SET acknowledged_sequence = max(acknowledged_sequence, ?), "
                "acknowledged_position = max(acknowledged_position, ?)",
                max(sequences),
                position,
            )
            if positions:
                self.commands.frames_stored(positions)
                self._recent.stored(positions)
        for source, size in gone:
            self._stored_bytes[source] -= size

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Put the frames of `rejections` aside, where they stay until they are queued again."""
        if not rejections:
            return
        with self._store.transaction():
            for rejection in rejections:
                self._store.execute(
                    f"INSERT OR REPLACE INTO rejected ({_FRAME_COLUMNS}, code, message) "
                    f"SELECT {_FRAME_COLUMNS}, ?, ? FROM pending WHERE sequence = ?",
                    rejection.code,
                    rejection.message[:_MESSAGE_LENGTH_MAX],
                    rejection.sequence,
                )
                self._store.execute("DELETE FROM pending WHERE sequence = ?", rejection.sequence)

    def retry_earliest(self, code: str, count_max: int) -> list[int]:
        """Queue those frames rejected for `code` again that were measured first; return which."""
        earliest = self._store.rows(
            "SELECT sequence FROM rejected WHERE code = ? ORDER BY to_ns, sequence LIMIT ?",
            code,
            count_max,
        )
        sequences = [sequence for (sequence,) in earliest]
        if sequences:
            with self._store.transaction():
                self._store.execute(
                    f"INSERT INTO pending ({_FRAME_COLUMNS}) SELECT {_FRAME_COLUMNS} FROM rejected "
                    "WHERE sequence IN (SELECT value FROM json_each(?))",
                    json.dumps(sequences),
                )
                self._store.execute(
                    "DELETE FROM rejected WHERE sequence IN (SELECT value FROM json_each(?))",
                    json.dumps(sequences),
                )
        return sequences

    def retry_rejected(self, code: str | None = None) -> int:
        """Queue rejected frames and commands again, those of `code` or all; return how many."""
        with self._store.transaction():
            moved = self._store.execute(
                f"INSERT INTO pending ({_FRAME_COLUMNS}) SELECT {_FRAME_COLUMNS} FROM rejected "
                "WHERE ?1 IS NULL OR code = ?1",
                code,
            )
            self._store.execute("DELETE FROM rejected WHERE ?1 IS NULL OR code = ?1", code)
            moved += self.commands.retry_rejected(code)
        return moved

    # --- commands out ---------------------------------------------------------------------

    def pending_commands(self, count_max: int, bytes_max: int) -> list[PendingCommand]:
        """Return the oldest commands that can be sent, at least one if there is any."""
        return self.commands.pending(count_max, bytes_max)

    def settle_commands(
        self, done: Sequence[int], rejections: Sequence[Rejection], deferred: Sequence[int] = ()
    ) -> None:
        """Forget the commands that were carried out, put those aside that were rejected, and let
        those go behind the others that may be carried out later.
        """
        with self._store.transaction():
            self.commands.done(done)
            self.commands.reject(rejections)
            self.commands.defer(deferred)

    # --- telling --------------------------------------------------------------------------

    @property
    def last_sequence(self) -> int:
        """The number of the last frame that was put."""
        return self._last_sequence

    def pending_count(self) -> int:
        """Return how many frames wait for an acknowledgement."""
        count: int = self._store.value("SELECT count(*) FROM pending")
        return count

    def stored_bytes(self) -> int:
        """Return the bytes of all frames on disk, those put aside included."""
        return self._stored_bytes.total()

    def rejected_counts(self) -> dict[str, int]:
        """Return how many frames are put aside, by code."""
        return dict(
            self._store.rows("SELECT code, count(*) FROM rejected GROUP BY code ORDER BY code")
        )

    def refused_rows(self, count: int) -> list[tuple[str, str, int, str, str, str]]:
        """Return the latest refused rows as (source, part, row, code, message, text)."""
        return self._faults.refused_rows(count)

    def status(self) -> OutboxStatus:
        """Return what there is to tell of the agent."""
        return outbox_status(self._store, self.commands, self.losses)

    def status_while_running(self) -> OutboxStatus:
        """Return the same without reading every frame; its bytes include frames put aside."""
        return outbox_status(self._store, self.commands, self.losses, self.stored_bytes())


_FRAME_COLUMNS: Final = (
    "sequence, event_id, source, frame, drop_class, from_ns, to_ns, reading_count, kept_at_s"
)
