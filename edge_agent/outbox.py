"""The outbox: frames on disk until the server has acknowledged them, and how far each source got.

One SQLite file in the agent's state folder. A frame, the sequence number it was given and its
source's position after it are committed together; so an agent killed at any moment goes on
without a lost or a doubled reading. Its size is bounded: a source that has filled its share
waits, it drops nothing.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from domain.frame_batches import encoded_size
from edge_agent.readings import Position, RowFault

FILE_NAME: Final = "outbox.sqlite3"
LOCK_NAME: Final = "lock"
REFUSED_ROWS_MAX: Final = 1_000
"""Refused rows kept with their text, per source; their number is counted without a bound."""
TEXT_LENGTH_MAX: Final = 500
BUSY_TIMEOUT_MS: Final = 10_000

_MIGRATIONS: Final = (
    """
    CREATE TABLE agent (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        name TEXT NOT NULL,
        last_sequence INTEGER NOT NULL,
        acknowledged_sequence INTEGER NOT NULL,
        acknowledged_position INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE source (
        name TEXT PRIMARY KEY,
        parts TEXT NOT NULL,
        part INTEGER,
        row INTEGER,
        time_ns INTEGER,
        anchor_ns INTEGER,
        first_ns INTEGER,
        noted_part INTEGER NOT NULL DEFAULT -1,
        noted_row INTEGER NOT NULL DEFAULT -1,
        ended INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE pending (
        sequence INTEGER PRIMARY KEY,
        event_id BLOB NOT NULL,
        source TEXT NOT NULL,
        frame BLOB NOT NULL
    ) STRICT;
    CREATE INDEX pending_of_source ON pending (source);
    CREATE TABLE rejected (
        sequence INTEGER PRIMARY KEY,
        event_id BLOB NOT NULL,
        source TEXT NOT NULL,
        frame BLOB NOT NULL,
        code TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE TABLE refused_row (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        part TEXT NOT NULL,
        row INTEGER NOT NULL,
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX refused_row_of_source ON refused_row (source, number);
    CREATE TABLE fault_count (
        source TEXT NOT NULL,
        channel TEXT NOT NULL,
        code TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (source, channel, code)
    ) STRICT, WITHOUT ROWID;
    """,
)
"""One script for each version of the schema, from the one before it."""


@dataclass(frozen=True, slots=True)
class PendingFrame:
    """A frame that waits for the server's acknowledgement."""

    sequence: int
    event_id: uuid.UUID
    source: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Rejection:
    """A frame the server will not take as it is, and why."""

    sequence: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class SourceState:
    """How far a source got.

    Parameters
    ----------
    position : of the last row that is in a frame; None before the first
    anchor_ns, first_ns : when the replay's first row was due, and its recorded time
    ended : a finite source was read to its end
    """

    position: Position | None
    anchor_ns: int | None
    first_ns: int | None
    ended: bool


@dataclass(frozen=True)
class SourceStatus:
    """What `heddle agent status` tells of a source; `fault_counts` by channel and code."""

    name: str
    part: str
    row: int | None
    time_ns: int | None
    ended: bool
    fault_counts: dict[str, int]


@dataclass(frozen=True)
class OutboxStatus:
    """What `heddle agent status` tells."""

    agent: str
    last_sequence: int
    acknowledged_sequence: int
    acknowledged_position: int
    pending_frames: int
    pending_bytes: int
    rejected_counts: dict[str, int]
    refused_row_count: int
    sources: tuple[SourceStatus, ...]


# --- opening ------------------------------------------------------------------------------


@contextmanager
def open_outbox(state_dir: Path, bytes_max: int) -> Iterator[Outbox]:
    """Open the outbox in `state_dir` for the one process that may run on it.

    Raises
    ------
    Conflict
        ``agent.already_running`` while another process holds the folder.
    InvalidInput
        ``outbox.damaged``, or ``outbox.schema_newer`` when a newer version wrote it.
    Unavailable
        ``outbox.state_folder`` when the folder cannot be made or written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / LOCK_NAME).open("a")
    except OSError as error:
        raise Unavailable(
            "outbox.state_folder", f"the state folder {str(state_dir)!r} is not usable: {error}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                "agent.already_running",
                f"another agent runs on the state folder {str(state_dir)!r}",
                hint="stop it, or give this one a folder of its own with --state-dir",
                value=str(state_dir),
            ) from error
        connection = _connect(state_dir / FILE_NAME)
        try:
            with _damage_told(state_dir):
                _migrate(connection)
                outbox = Outbox(connection, bytes_max)
            yield outbox
        finally:
            connection.close()


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
    if not (state_dir / FILE_NAME).is_file():
        raise NotFound(
            "outbox.missing",
            f"no agent has run on the state folder {str(state_dir)!r} yet",
            hint="give its folder with --state-dir or HEDDLE_AGENT_DIR",
            value=str(state_dir),
        )
    connection = _connect(state_dir / FILE_NAME)
    try:
        with _damage_told(state_dir):
            if _schema_version(connection) < len(_MIGRATIONS):
                raise InvalidInput(
                    "outbox.schema_older",
                    "an older version wrote this outbox",
                    hint="run the agent once; it brings its outbox up to date",
                )
            outbox = Outbox(connection, 0)
        yield outbox
    finally:
        connection.close()


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1_000)
    with _damage_told(file.parent):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _damage_told(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise InvalidInput(
            "outbox.damaged",
            f"the outbox in {str(state_dir)!r} cannot be read: {error}",
            hint="keep the folder for inspection and start with another one and agent name",
            value=str(state_dir),
        ) from error


def _schema_version(connection: sqlite3.Connection) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(_MIGRATIONS):
        raise InvalidInput(
            "outbox.schema_newer",
            f"the outbox has schema version {version}; this agent knows {len(_MIGRATIONS)}",
            hint="run the newer version of the agent",
            value=version,
            limit=len(_MIGRATIONS),
        )
    return version


def _migrate(connection: sqlite3.Connection) -> None:
    for version in range(_schema_version(connection), len(_MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {_MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
        )


# --- the outbox ---------------------------------------------------------------------------


class Outbox:
    """The durable state of one agent; made by `open_outbox`."""

    def __init__(self, connection: sqlite3.Connection, bytes_max: int) -> None:
        self._connection = connection
        self._bytes_max = bytes_max
        self._source_count = 1
        self._stored_bytes: Counter[str] = Counter()
        stored = "SELECT source, frame FROM pending UNION ALL SELECT source, frame FROM rejected"
        for source, size in self._rows(
            f"SELECT source, sum(length(frame)) FROM ({stored}) GROUP BY source"
        ):
            self._stored_bytes[source] = size
        agent = self._rows("SELECT last_sequence FROM agent")
        self._last_sequence: int = agent[0][0] if agent else 0

    # --- sources --------------------------------------------------------------------------

    def adopt(self, agent: str, parts_by_source: Mapping[str, Sequence[str]]) -> None:
        """Tie the outbox to `agent` and make its sources known.

        Raises
        ------
        Conflict
            ``agent.other_name`` when the state belongs to an agent of another name.
        InvalidInput
            ``source.parts_changed`` when the parts a source has read are other ones now.
        """
        with self._transaction():
            self._execute("INSERT OR IGNORE INTO agent VALUES (1, ?, 0, 0, 0)", agent)
            name = self._rows("SELECT name FROM agent")[0][0]
            if name != agent:
                raise Conflict(
                    "agent.other_name",
                    f"the state folder belongs to agent {name!r}, not {agent!r}",
                    hint="its frames carry that name; give the new agent a folder of its own",
                    value=agent,
                    limit=name,
                )
            for source, parts in parts_by_source.items():
                self._adopt_source(source, list(parts))
        self._source_count = max(1, len(parts_by_source))

    def _adopt_source(self, source: str, parts: list[str]) -> None:
        known = self._rows(
            "SELECT parts, max(coalesce(part, -1), noted_part) + 1 FROM source WHERE name = ?",
            source,
        )
        if not known:
            self._execute(
                "INSERT INTO source (name, parts) VALUES (?, ?)", source, json.dumps(parts)
            )
            return
        known_parts, begun_count = json.loads(known[0][0]), known[0][1]
        if known_parts == parts:
            return
        if known_parts[:begun_count] != parts[:begun_count]:
            raise InvalidInput(
                "source.parts_changed",
                f"source {source!r} has read {known_parts[:begun_count]}; its configuration now "
                f"begins with {parts[:begun_count]}",
                hint="append new files at the end, or give the source another name",
                value=source,
            )
        self._execute(
            "UPDATE source SET parts = ?, ended = 0 WHERE name = ?", json.dumps(parts), source
        )

    def source_state(self, source: str) -> SourceState:
        """Return how far `source` got."""
        part, row, time_ns, anchor_ns, first_ns, ended = self._rows(
            "SELECT part, row, time_ns, anchor_ns, first_ns, ended FROM source WHERE name = ?",
            source,
        )[0]
        position = None if part is None else Position(part, row, time_ns)
        return SourceState(position, anchor_ns, first_ns, bool(ended))

    def anchor(self, source: str, anchor_ns: int, first_ns: int) -> None:
        """Keep the moment `anchor_ns` at which the row recorded at `first_ns` was due."""
        with self._transaction():
            self._execute(
                "UPDATE source SET anchor_ns = ?, first_ns = ? WHERE name = ?",
                anchor_ns,
                first_ns,
                source,
            )

    def end(self, source: str) -> None:
        """Keep that `source` was read to its end."""
        with self._transaction():
            self._execute("UPDATE source SET ended = 1 WHERE name = ?", source)

    def note(self, source: str, part: int, row: int, faults: Sequence[RowFault]) -> list[RowFault]:
        """Keep and count the `faults` found up to `row` of `part`; return those that were new.

        A restart reads the rows of its open window again; what was noted before is not counted
        twice.
        """
        noted_part, noted_row, parts = self._rows(
            "SELECT noted_part, noted_row, parts FROM source WHERE name = ?", source
        )[0]
        new = [fault for fault in faults if (fault.part, fault.row) > (noted_part, noted_row)]
        if not new:
            return new
        names = json.loads(parts)
        with self._transaction():
            for (channel, code), count in Counter((f.channel, f.code) for f in new).items():
                self._execute(
                    "INSERT INTO fault_count VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET count = count + excluded.count",
                    source,
                    channel,
                    code,
                    count,
                )
            refused = [fault for fault in new if not fault.channel][-REFUSED_ROWS_MAX:]
            self._connection.executemany(
                "INSERT INTO refused_row (source, part, row, code, message, text) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (source, names[f.part], f.row, f.code, f.message, f.text[:TEXT_LENGTH_MAX])
                    for f in refused
                ],
            )
            self._execute(
                "DELETE FROM refused_row WHERE source = ?1 AND number <= (SELECT number FROM "
                "refused_row WHERE source = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                source,
                REFUSED_ROWS_MAX,
            )
            self._execute(
                "UPDATE source SET noted_part = ?, noted_row = ? WHERE name = ?", part, row, source
            )
        return new

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
        """Commit `frame`, its sequence number and its source's `position` after it, together.

        Raises
        ------
        Unavailable
            ``outbox.full`` or ``outbox.disk_full``; nothing has changed then.
        """
        if frame.sequence != self.next_sequence:
            raise ValueError(f"frame {frame.sequence} does not follow {self._last_sequence}")
        size = len(frame.encoded)
        if not self.has_room(frame.source, size):
            raise Unavailable(
                "outbox.full",
                f"source {frame.source!r} keeps {self._stored_bytes[frame.source]} bytes that are "
                "not acknowledged",
                limit=self._bytes_max // self._source_count,
            )
        with self._transaction():
            self._execute(
                "INSERT INTO pending VALUES (?, ?, ?, ?)",
                frame.sequence,
                frame.event_id.bytes,
                frame.source,
                frame.encoded,
            )
            self._execute("UPDATE agent SET last_sequence = ?", frame.sequence)
            self._execute(
                "UPDATE source SET part = ?, row = ?, time_ns = ? WHERE name = ?",
                position.part,
                position.row,
                position.time_ns,
                frame.source,
            )
        self._last_sequence = frame.sequence
        self._stored_bytes[frame.source] += size

    # --- frames out -----------------------------------------------------------------------

    def pending(
        self, frames_max: int, bytes_max: int, held: Collection[str] = ()
    ) -> list[PendingFrame]:
        """Return the oldest frames of sources not `held`, as many as fit in a batch, at least one.

        Parameters
        ----------
        bytes_max : of the batch, in which a frame takes `encoded_size` of its length
        """
        found: list[PendingFrame] = []
        left = bytes_max
        for sequence in self._pending_sequences(frames_max, held):
            event_id, source, encoded = self._rows(
                "SELECT event_id, source, frame FROM pending WHERE sequence = ?", sequence
            )[0]
            left -= encoded_size(len(encoded))
            if left < 0 and found:
                break
            found.append(PendingFrame(sequence, uuid.UUID(bytes=event_id), source, encoded))
        return found

    def _pending_sequences(self, count: int, held: Collection[str]) -> list[int]:
        if not held:
            rows = self._rows("SELECT sequence FROM pending ORDER BY sequence LIMIT ?", count)
            return [sequence for (sequence,) in rows]
        sequences = [
            sequence
            for (source,) in self._rows("SELECT name FROM source")
            if source not in held
            for (sequence,) in self._rows(
                "SELECT sequence FROM pending WHERE source = ? ORDER BY sequence LIMIT ?",
                source,
                count,
            )
        ]
        return sorted(sequences)[:count]

    def acknowledge(self, sequences: Sequence[int], position: int) -> None:
        """Forget the frames `sequences`, which the server has stored at most at `position`."""
        if not sequences:
            return
        with self._transaction():
            for sequence in sequences:
                self._forget(sequence)
            self._execute(
                "UPDATE agent SET acknowledged_sequence = max(acknowledged_sequence, ?), "
                "acknowledged_position = max(acknowledged_position, ?)",
                max(sequences),
                position,
            )

    def _forget(self, sequence: int) -> None:
        for source, size in self._rows(
            "DELETE FROM pending WHERE sequence = ? RETURNING source, length(frame)", sequence
        ):
            self._stored_bytes[source] -= size

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Put the frames of `rejections` aside, where they stay until they are queued again."""
        if not rejections:
            return
        with self._transaction():
            for rejection in rejections:
                self._execute(
                    "INSERT OR REPLACE INTO rejected SELECT sequence, event_id, source, frame, "
                    "?, ? FROM pending WHERE sequence = ?",
                    rejection.code,
                    rejection.message[:TEXT_LENGTH_MAX],
                    rejection.sequence,
                )
                self._execute("DELETE FROM pending WHERE sequence = ?", rejection.sequence)

    def retry_rejected(self, code: str | None = None) -> int:
        """Queue rejected frames again, those of `code` or all, and return how many."""
        with self._transaction():
            moved = self._execute(
                "INSERT INTO pending SELECT sequence, event_id, source, frame FROM rejected "
                "WHERE ?1 IS NULL OR code = ?1",
                code,
            )
            self._execute("DELETE FROM rejected WHERE ?1 IS NULL OR code = ?1", code)
        return moved

    # --- telling --------------------------------------------------------------------------

    @property
    def last_sequence(self) -> int:
        """The number of the last frame that was put."""
        return self._last_sequence

    def pending_count(self) -> int:
        """Return how many frames wait for an acknowledgement."""
        count: int = self._rows("SELECT count(*) FROM pending")[0][0]
        return count

    def stored_bytes(self) -> int:
        """Return the bytes of all frames on disk, those put aside included."""
        return self._stored_bytes.total()

    def rejected_counts(self) -> dict[str, int]:
        """Return how many frames are put aside, by code."""
        return dict(self._rows("SELECT code, count(*) FROM rejected GROUP BY code ORDER BY code"))

    def refused_rows(self, count: int) -> list[tuple[str, str, int, str, str, str]]:
        """Return the latest refused rows as (source, part, row, code, message, text)."""
        return self._rows(
            "SELECT source, part, row, code, message, text FROM refused_row "
            "ORDER BY number DESC LIMIT ?",
            count,
        )

    def status(self) -> OutboxStatus:
        """Return what there is to tell of the agent."""
        agent = self._rows(
            "SELECT name, last_sequence, acknowledged_sequence, acknowledged_position FROM agent"
        )
        name, last, acknowledged, position = agent[0] if agent else ("", 0, 0, 0)
        waiting = "SELECT count(*), coalesce(sum(length(frame)), 0) FROM pending"
        frames, size = self._rows(waiting)[0]
        refused = self._rows("SELECT coalesce(sum(count), 0) FROM fault_count WHERE channel = ''")
        return OutboxStatus(
            agent=name,
            last_sequence=last,
            acknowledged_sequence=acknowledged,
            acknowledged_position=position,
            pending_frames=frames,
            pending_bytes=size,
            rejected_counts=self.rejected_counts(),
            refused_row_count=refused[0][0],
            sources=tuple(self._source_statuses()),
        )

    def _source_statuses(self) -> Iterator[SourceStatus]:
        faults: dict[str, dict[str, int]] = {}
        for source, channel, code, count in self._rows(
            "SELECT * FROM fault_count ORDER BY 1, 2, 3"
        ):
            faults.setdefault(source, {})[f"{channel}: {code}" if channel else code] = count
        for name, parts, part, row, time_ns, ended in self._rows(
            "SELECT name, parts, part, row, time_ns, ended FROM source ORDER BY name"
        ):
            part_name = "" if part is None else json.loads(parts)[part]
            yield SourceStatus(name, part_name, row, time_ns, bool(ended), faults.get(name, {}))

    # --- SQLite ---------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._execute("BEGIN IMMEDIATE")
            yield
            self._execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")
            if _disk_is_full(error):
                raise Unavailable(
                    "outbox.disk_full", "the disk of the state folder is full"
                ) from error
            raise

    def _execute(self, statement: str, *arguments: object) -> int:
        return self._connection.execute(statement, arguments).rowcount

    def _rows(self, statement: str, *arguments: object) -> list[Any]:
        return self._connection.execute(statement, arguments).fetchall()


def _disk_is_full(error: BaseException) -> bool:
    return (
        isinstance(error, sqlite3.OperationalError)
        and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
    )
