"""Which keys follow from which: how a log's key hands over to the next, and who may be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from domain.errors import InvalidInput
from domain.ledger_events import HistoryLost, SigningKeyRotated
from eventlog.transparency.notes import Note, VerifierKey

_ROTATION: Final = "heddle.example/key-rotation/v1"

KeySuccession = SigningKeyRotated | HistoryLost
"""What the log records when another key signs from there on."""


def rotation_text(origin: str, successor: VerifierKey) -> str:
    """Return what the old key of `origin` signs when it names its successor."""
    return f"{_ROTATION}\n{origin}\n{successor.vkey}\n"


def trusted_keys(
    trusted: Sequence[VerifierKey], rotations: Sequence[KeySuccession]
) -> list[VerifierKey]:
    """Return `trusted` and every key that they lead to.

    Forwards by endorsement of the older key; backwards because the log that a trusted key signed
    says which key came before.
    """
    keys = list(dict.fromkeys(trusted))
    for _ in range(len(rotations)):
        for rotation in rotations:
            try:
                old = VerifierKey.parse(rotation.previous_vkey)
                new = VerifierKey.parse(rotation.vkey)
            except InvalidInput:
                continue
            if new in keys and old not in keys:
                keys.append(old)
            if old in keys and new not in keys and _is_endorsed(rotation, old, new):
                keys.append(new)
    return keys


def _is_endorsed(rotation: KeySuccession, old: VerifierKey, new: VerifierKey) -> bool:
    if rotation.endorsement is None:
        return False
    try:
        note = Note.parse(rotation.endorsement)
        note.verify([old])
    except InvalidInput:
        return False
    return note.text == rotation_text(rotation.origin, new)
