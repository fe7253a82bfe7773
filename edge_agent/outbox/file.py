"""Opening the outbox: one process a folder, schemas brought up to date, damage survived.

A file that cannot be read is put aside and kept; what can be read of it goes into a new one.
Its numbers must not be given again, because the server may have some of them: so the numbers
that frames may take are reserved beforehand in a small file beside it, and a new outbox begins
after the last reserved one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from domain.errors import Conflict, HeddleError, InvalidInput, NotFound, Unavailable
from domain.frame_decoding import decode
from edge_agent.outbox import schema
from edge_agent.outbox.store import Store

FILE_NAME: Final = "outbox.sqlite3"
LOCK_NAME: Final = "lock"
RESERVED_NAME: Final = "sequence"
DAMAGED_NAME: Final = "outbox.damaged"
"""Made when damage is met while the agent runs, so that the next start looks for it."""
RESERVED_AT_ONCE: Final = 100_000
BUSY_TIMEOUT_MS: Final = 10_000
JOURNAL_BYTES_MAX: Final = 64 * 1024 * 1024
DAMAGED_FILES_MAX: Final = 5

_FILES: Final = ("", "-wal", "-shm")
_SALVAGED: Final = (
    "agent",
    "source",
    "pending",
    "rejected",
    "command",
    "rejected_command",
    "loss",
    "loss_total",
    "setpoint_record",
    "command_cursor",
    "fault_count",
)

_log = logging.getLogger("heddle.edge.outbox")


@dataclass(frozen=True, slots=True)
class Reserved:
    """Which sequence numbers may have been given, as the file beside the outbox remembers it.

    Parameters
    ----------
    sequence : none beyond it was
    since_ns : frames that were not acknowledged when it was written are not older than this
    """

    sequence: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was saved of a damaged outbox: since when readings may be missing, and all that was."""

    put_aside: Path
    since_ns: int
    frames: int
    commands: int


class Reservation:
    """The file of reserved numbers in a state folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / RESERVED_NAME
        self._sequence = -1

    def read(self) -> Reserved | None:
        """Return what is reserved, None where there is no file or none that can be read."""
        try:
            told = json.loads(self._file.read_bytes())
            return Reserved(int(told["sequence"]), int(told["since_ns"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def cover(self, sequence: int, since_ns: Callable[[], int]) -> None:
        """Have `sequence` reserved before it is given to a frame.

        Parameters
        ----------
        since_ns : returns a time before which no frame that waits was measured; asked when needed

        Raises
        ------
        Unavailable
            ``outbox.disk_full``
        """
        if sequence <= self._sequence:
            return
        reserved = Reserved(sequence + RESERVED_AT_ONCE, since_ns())
        temporary = self._file.with_suffix(".new")
        told = {"sequence": reserved.sequence, "since_ns": reserved.since_ns}
        try:
            with temporary.open("w") as file:
                file.write(json.dumps(told))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file)
            _flush_folder(self._file.parent)
        except OSError as error:
            raise Unavailable(
                "outbox.disk_full", f"the state folder takes no more: {error}"
            ) from error
        self._sequence = reserved.sequence


@contextmanager
def locked_store(state_dir: Path) -> Iterator[tuple[Store, Reservation, Salvage | None]]:
    """Open the store in `state_dir` for the one process that may run on it.

    Raises
    ------
    Conflict
        ``agent.already_running`` while another process holds the folder.
    InvalidInput
        ``outbox.damaged`` when no file remembers the numbers that a damaged one gave, or
        ``outbox.schema_newer``.
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
        reservation = Reservation(state_dir)
        connection, salvage = _open_or_salvage(state_dir, reservation)
        try:
            yield Store(connection, partial(_leave_word, state_dir)), reservation, salvage
        finally:
            connection.close()


@contextmanager
def store_beside(state_dir: Path) -> Iterator[Store]:
    """Open the store in `state_dir` beside the agent that may be running on it.

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
    with _damage_told(state_dir):
        connection = _connect(state_dir / FILE_NAME)
    try:
        with _damage_told(state_dir):
            if _schema_version(connection) < len(schema.MIGRATIONS):
                raise InvalidInput(
                    "outbox.schema_older",
                    "an older version wrote this outbox",
                    hint="run the agent once; it brings its outbox up to date",
                )
        yield Store(connection)
    finally:
        connection.close()


# --- opening ------------------------------------------------------------------------------


def _open_or_salvage(
    state_dir: Path, reservation: Reservation
) -> tuple[sqlite3.Connection, Salvage | None]:
    file = state_dir / FILE_NAME
    try:
        return _opened(state_dir), None
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not (state_dir / DAMAGED_NAME).exists():
            raise _damaged(state_dir, error) from error  # locked, not openable: nothing to put away
        reserved = reservation.read()
        if reserved is None:
            raise _damaged(state_dir, error) from error
        aside = _put_aside(file)
        _log.error(
            "the outbox in %s cannot be read (%s): it is kept as %s, and a new one begins after "
            "frame %d",
            state_dir,
            error,
            aside.name,
            reserved.sequence,
        )
    connection = _opened(state_dir)
    salvage = _salvage(aside, connection, reserved)
    with suppress(FileNotFoundError):
        (state_dir / DAMAGED_NAME).unlink()
    _log.error(
        "saved from %s: %d frames, %d commands; readings since %d ns may be missing and are "
        "declared lost",
        aside.name,
        salvage.frames,
        salvage.commands,
        salvage.since_ns,
    )
    return connection, salvage


def _opened(state_dir: Path) -> sqlite3.Connection:
    """Return a connection to a sound file with the newest schema.

    Raises
    ------
    sqlite3.DatabaseError
        it is damaged
    """
    connection = _connect(state_dir / FILE_NAME)
    try:
        _migrate(connection)
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1_000)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX}")
    except BaseException:
        connection.close()
        raise
    return connection


def _schema_version(connection: sqlite3.Connection) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(schema.MIGRATIONS):
        raise InvalidInput(
            "outbox.schema_newer",
            f"the outbox has schema version {version}; this agent knows {len(schema.MIGRATIONS)}",
            hint="run the newer version of the agent",
            value=version,
            limit=len(schema.MIGRATIONS),
        )
    return version


def _migrate(connection: sqlite3.Connection) -> None:
    for version in range(_schema_version(connection), len(schema.MIGRATIONS)):
        script = schema.MIGRATIONS[version]
        connection.executescript(
            f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {version + 1}; COMMIT;"
        )


@contextmanager
def _damage_told(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _damaged(state_dir, error) from error


def _damaged(state_dir: Path, error: sqlite3.DatabaseError) -> InvalidInput:
    return InvalidInput(
        "outbox.damaged",
        f"the outbox in {str(state_dir)!r} cannot be read: {error}",
        hint="keep the folder for inspection and start with another one and agent name",
        value=str(state_dir),
    )


def _leave_word(state_dir: Path) -> None:
    """Leave word that the file is damaged, for the next start."""
    with suppress(OSError):
        (state_dir / DAMAGED_NAME).touch()


# --- saving what can be saved -------------------------------------------------------------


def _put_aside(file: Path) -> Path:
    """Rename `file` and what belongs to it; of those that were put aside before, keep a few."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = file.with_name(f"damaged-{moment}-{os.getpid()}-{FILE_NAME}")
    for suffix in _FILES:
        with suppress(FileNotFoundError):
            os.replace(f"{file}{suffix}", f"{aside}{suffix}")
    _flush_folder(file.parent)
    older = sorted(file.parent.glob(f"damaged-*-{FILE_NAME}"))[:-DAMAGED_FILES_MAX]
    for old in older:
        for suffix in _FILES:
            Path(f"{old}{suffix}").unlink(missing_ok=True)
    return aside


def _salvage(aside: Path, new: sqlite3.Connection, reserved: Reserved) -> Salvage:
    """Copy every row of `aside` that can be read, frames only where they are whole."""
    counts = {}
    with suppress(sqlite3.DatabaseError):
        old = sqlite3.connect(f"file:{aside}?mode=ro", uri=True)
        try:
            new.execute("BEGIN")
            for table in _SALVAGED:
                counts[table] = _copy_table(old, new, table)
        finally:
            old.close()
    new.execute("UPDATE agent SET last_sequence = ?", (reserved.sequence,))
    if new.in_transaction:
        new.execute("COMMIT")
    return Salvage(aside, reserved.since_ns, counts.get("pending", 0), counts.get("command", 0))


def _copy_table(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> int:
    """Copy what can be read from either end of `table`; return how many rows that is."""
    known = _columns(old, table) or _columns(new, table)
    columns = [name for name in _columns(new, table) if name in known]
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})"
    copied = 0
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.DatabaseError):
            ordered = f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1 {order}"
            for row in old.execute(ordered):
                if "frame" in columns and not _is_whole(row[columns.index("frame")]):
                    continue
                with suppress(sqlite3.IntegrityError):
                    copied += new.execute(insert, row).rowcount
            break  # read from end to end: nothing is left for the other direction
    return copied


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of `table`: an older version may have written it; none if unreadable."""
    with suppress(sqlite3.DatabaseError):
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return []


def _is_whole(encoded: object) -> bool:
    if not isinstance(encoded, bytes):
        return False
    try:
        decode(encoded)
    except HeddleError:
        return False
    return True


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
