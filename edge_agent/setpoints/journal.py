"""What became of every directive, on disk: so nothing is written twice, whatever was killed.

That a value is about to be written is kept before it is written. Found again after a restart, it
says that nobody knows what the device did, and that is told; it is never written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.outbox import AgentCommand, Outbox

RECORDS_MAX: Final = 10_000
WRITING: Final = "writing"
APPLIED: Final = "applied"
ADVISED: Final = "advised"
REFUSED: Final = "refused"
RETURNED: Final = "returned"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What became of one directive, or of the watchdog's own doing.

    Parameters
    ----------
    position : of the directive; None of the watchdog's, and where nothing vouches for it
    value : SI: what the device reads back, or was asked for
    """

    position: int | None
    subject: str
    outcome: str
    code: str
    reason: str
    value: float | None
    at_ns: int


class Journal:
    """The journal of one agent, in its outbox: an entry and its report are one commit."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._store = outbox.store

    @property
    def handled_position(self) -> int:
        """The position of the last directive that was dealt with, -1 before the first.

        What was dealt with before the stream has begun is known by its entry alone.
        """
        position = self._store.value("SELECT position FROM command_cursor")
        if position is None:
            position = self._store.value("SELECT max(position) FROM setpoint_record")
        return -1 if position is None else int(position)

    def begin(self, position: int) -> None:
        """Note where the stream begins, once all is dealt with that was told before."""
        with self._store.transaction():
            self._store.execute(
                "INSERT OR IGNORE INTO command_cursor (only, position) VALUES (1, ?)", position
            )

    def has_begun(self) -> bool:
        """Return whether the agent was told where the stream begins."""
        return bool(self._store.value("SELECT EXISTS (SELECT 1 FROM command_cursor)"))

    def note(self, entry: JournalEntry, commands: Sequence[AgentCommand] = ()) -> int:
        """Keep `entry` and its reports, and that its directive is dealt with; return its number.

        Raises
        ------
        Unavailable
            ``outbox.disk_full``; nothing has changed then.
        """
        with self._store.transaction():
            self._store.execute(
                "INSERT INTO setpoint_record (position, subject, outcome, code, reason, value, "
                "at_ns) VALUES (?, ?, ?, ?, ?, ?, ?)",
                entry.position,
                entry.subject,
                entry.outcome,
                entry.code,
                entry.reason[:500],
                entry.value,
                entry.at_ns,
            )
            number = int(self._store.value("SELECT last_insert_rowid()"))
            if entry.position is not None and self.has_begun():
                self.move_to(entry.position)
            self._outbox.put_commands(commands)
            self._store.execute(
                "DELETE FROM setpoint_record WHERE number <= ? - ?", number, RECORDS_MAX
            )
        return number

    def move_to(self, position: int) -> None:
        """Note that everything up to `position` is dealt with."""
        with self._store.transaction():
            self._store.execute(
                "INSERT INTO command_cursor (only, position) VALUES (1, ?) ON CONFLICT DO UPDATE "
                "SET position = max(position, excluded.position)",
                position,
            )

    def settle(
        self, number: int, entry: JournalEntry, commands: Sequence[AgentCommand] = ()
    ) -> None:
        """Replace the entry `number` by what it came to, and keep the reports."""
        with self._store.transaction():
            self._store.execute(
                "UPDATE setpoint_record SET outcome = ?, code = ?, reason = ?, value = ?, "
                "at_ns = ? WHERE number = ?",
                entry.outcome,
                entry.code,
                entry.reason[:500],
                entry.value,
                entry.at_ns,
                number,
            )
            self._outbox.put_commands(commands)

    def unsettled(self) -> list[tuple[int, JournalEntry]]:
        """Return the entries of which nobody knows what they came to."""
        return [
            (row[0], JournalEntry(*row[1:]))
            for row in self._store.rows(
                "SELECT number, position, subject, outcome, code, reason, value, at_ns "
                "FROM setpoint_record WHERE outcome = ? ORDER BY number",
                WRITING,
            )
        ]

    def last_write(self, subject: str) -> JournalEntry | None:
        """Return the last entry of `subject` by which something was, or may have been, written."""
        rows = self._store.rows(
            "SELECT position, subject, outcome, code, reason, value, at_ns FROM setpoint_record "
            "WHERE subject = ? AND outcome IN (?, ?, ?) ORDER BY number DESC LIMIT 1",
            subject,
            WRITING,
            APPLIED,
            RETURNED,
        )
        return JournalEntry(*rows[0]) if rows else None

    def latest(self, count: int) -> list[JournalEntry]:
        """Return the latest entries, the newest first."""
        return [
            JournalEntry(*row)
            for row in self._store.rows(
                "SELECT position, subject, outcome, code, reason, value, at_ns "
                "FROM setpoint_record ORDER BY number DESC LIMIT ?",
                count,
            )
        ]

    def counts(self) -> dict[str, int]:
        """Return how many entries there are by outcome, and by code where there is one."""
        return dict(
            self._store.rows(
                "SELECT CASE code WHEN '' THEN outcome ELSE outcome || ': ' || code END, count(*) "
                "FROM setpoint_record GROUP BY 1 ORDER BY 1"
            )
        )
