"""What speaks against a command: it is refused, or, told late, recorded with what spoke against it.

A command asks for something that is to happen, so what does not fit refuses it. A late one tells
what has happened, and what has happened cannot be refused: what does not fit is written beside it
in the event's `flags`. Malformed input is refused either way.
"""

from __future__ import annotations

from domain.errors import HeddleError


class Objections:
    """Objections to one command, in the order in which they were made."""

    def __init__(self, *, late: bool) -> None:
        self._late = late
        self._codes: list[str] = []

    def object(self, error: HeddleError) -> None:
        """Raise `error`, or keep its code where the command is late."""
        if not self._late:
            raise error
        self.note(error.code)

    def note(self, code: str) -> None:
        """Keep `code`: it does not fit, and is accepted."""
        if code not in self._codes:
            self._codes.append(code)

    @property
    def flags(self) -> tuple[str, ...]:
        """Codes of all that does not fit."""
        return tuple(self._codes)
