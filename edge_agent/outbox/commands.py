"""Commands in the outbox: mutations that wait until the server has carried them out.

A command that tells of its window by ledger positions waits until the server has acknowledged
the window's frames. One that the server will not carry out is put aside with its code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from edge_agent.outbox.records import (
    FROM_POSITION,
    TO_POSITION,
    AgentCommand,
    PendingCommand,
    Rejection,
)
from edge_agent.outbox.store import Store

COMMANDS_MAX: Final = 500_000
"""Commands on disk; beyond it the oldest goes, as a declared loss."""
REJECTED_COMMANDS_MAX: Final = 10_000
MESSAGE_LENGTH_MAX: Final = 500
COMMANDS_DROPPED: Final = "outbox.commands_full"


class Commands:
    """The commands of an outbox. Its methods are parts of the outbox's transactions.

    Parameters
    ----------
    position : returns where a frame stands that was acknowledged lately, else None
    """

    def __init__(
        self, store: Store, position: Callable[[int], int | None] = lambda _sequence: None
    ) -> None:
        self._store = store
        self._position = position
        self._count: int = store.value("SELECT count(*) FROM command")

    def __len__(self) -> int:
        """Return how many wait."""
        return self._count

    def put(self, commands: Iterable[AgentCommand], sequences: Sequence[int] = ()) -> int:
        """Keep `commands`, resting on the frames `sequences`; return how many had to go for them.

        One whose key is waiting already is kept once.
        """
        dropped = 0
        for command in commands:
            text = json.dumps(command.input, allow_nan=False, separators=(",", ":"))
            waits = bool(sequences) and (FROM_POSITION in text or TO_POSITION in text)
            self._count += self._store.execute(
                "INSERT OR IGNORE INTO command (mutation, input, idempotency_key, first_sequence, "
                "last_sequence, first_position, ready) VALUES (?, ?, ?, ?, ?, ?, ?)",
                command.mutation,
                text,
                command.idempotency_key,
                sequences[0] if waits else None,
                sequences[-1] if waits else None,
                self._position(sequences[0]) if waits else None,
                int(not waits),
            )
            if self._count > COMMANDS_MAX:
                gone = self._store.execute(
                    "DELETE FROM command WHERE number = (SELECT min(number) FROM command)"
                )
                self._count -= gone
                dropped += gone
        return dropped

    def pending(self, count_max: int, bytes_max: int) -> list[PendingCommand]:
        """Return the oldest commands that can be sent, at least one if there is any."""
        found: list[PendingCommand] = []
        left = bytes_max
        for number, mutation, text, key, first, last in self._store.each(
            "SELECT number, mutation, input, idempotency_key, first_position, last_position "
            "FROM command WHERE ready = 1 ORDER BY number LIMIT ?",
            count_max,
        ):
            left -= len(text) + len(mutation) + len(key)
            if left < 0 and found:
                break
            # After an outage what is fresh is recorded before what is old.
            places = {FROM_POSITION: _least(first, last), TO_POSITION: _most(first, last)}
            filled = _filled(json.loads(text), places) if first is not None else json.loads(text)
            assert isinstance(filled, dict), "an input is an object"
            found.append(PendingCommand(number, AgentCommand(mutation, filled, key)))
        return found

    def frames_stored(self, positions: Mapping[int, int]) -> None:
        """Fill in where the frames stand on which commands wait."""
        if not self._store.value("SELECT EXISTS (SELECT 1 FROM command WHERE ready = 0)"):
            return
        for sequence, position in positions.items():
            for name in ("first", "last"):
                self._store.execute(
                    f"UPDATE command SET {name}_position = ? WHERE {name}_sequence = ?",
                    position,
                    sequence,
                )
        self._store.execute(
            "UPDATE command SET ready = 1 WHERE ready = 0 AND first_position IS NOT NULL "
            "AND last_position IS NOT NULL"
        )

    def done(self, numbers: Sequence[int]) -> None:
        """Forget the commands `numbers`: they were carried out."""
        self._count -= self._store.execute(
            "DELETE FROM command WHERE number IN (SELECT value FROM json_each(?))",
            json.dumps(list(numbers)),
        )

    def defer(self, numbers: Sequence[int]) -> None:
        """Let the commands `numbers` go behind all others: they may be carried out later."""
        for number in numbers:
            self._store.execute(
                "UPDATE command SET number = (SELECT max(number) + 1 FROM command) "
                "WHERE number = ?",
                number,
            )

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """Put the commands of `rejections` aside."""
        for rejection in rejections:
            self._store.execute(
                "INSERT OR REPLACE INTO rejected_command SELECT number, mutation, input, "
                "idempotency_key, ?, ? FROM command WHERE number = ?",
                rejection.code,
                rejection.message[:MESSAGE_LENGTH_MAX],
                rejection.sequence,
            )
        self.done([rejection.sequence for rejection in rejections])
        self._store.execute(
            "DELETE FROM rejected_command WHERE number <= (SELECT number FROM rejected_command "
            "ORDER BY number DESC LIMIT 1 OFFSET ?)",
            REJECTED_COMMANDS_MAX,
        )

    def rejected_counts(self) -> dict[str, int]:
        """Return how many commands are put aside, by code."""
        return dict(
            self._store.rows(
                "SELECT code, count(*) FROM rejected_command GROUP BY code ORDER BY code"
            )
        )

    def retry_rejected(self, code: str | None = None) -> int:
        """Queue commands again that were put aside, those of `code` or all; return how many."""
        moved = self._store.execute(
            "INSERT OR IGNORE INTO command (mutation, input, idempotency_key, ready) "
            "SELECT mutation, input, idempotency_key, 1 FROM rejected_command "
            "WHERE ?1 IS NULL OR code = ?1 ORDER BY number",
            code,
        )
        self._store.execute(
            "DELETE FROM rejected_command WHERE ?1 IS NULL OR code = ?1",
            code,
        )
        self._count += moved
        return moved


def _least(first: int | None, last: int | None) -> int | None:
    return first if first is None or last is None else min(first, last)


def _most(first: int | None, last: int | None) -> int | None:
    return last if first is None or last is None else max(first, last)


def _filled(value: object, places: Mapping[str, int | None]) -> object:
    match value:
        case dict():
            return {name: _filled(inner, places) for name, inner in value.items()}
        case list():
            return [_filled(inner, places) for inner in value]
        case str() if value in places:
            return places[value]
        case _:
            return value
