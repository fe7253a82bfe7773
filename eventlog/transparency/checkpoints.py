"""Checkpoints: the signed heads of a ledger, as text, and whether one may be believed.

References
----------
C2SP tlog-checkpoint, tlog-cosignature.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from domain.errors import InvalidInput
from eventlog.transparency.merkle import HASH_BYTES
from eventlog.transparency.notes import Note, SignatureKind, VerifierKey

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head of a log: that of `origin` had this `root` when it had `size` leaves."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the checkpoint that the text of a note is. Nothing is verified.

        Raises
        ------
        InvalidInput
            ``checkpoint.malformed``
        """
        lines = text.split("\n")
        if len(lines) < 4 or "" in lines[:-1] or lines[-1]:
            raise _malformed("it has not three lines")
        origin, size, encoded = lines[:3]
        try:
            root = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _malformed(f"{encoded!r:.80} is no base64") from error
        if not _SIZE.fullmatch(size) or len(root) != HASH_BYTES:
            raise _malformed(f"{size!r:.40} and {encoded!r:.80} are no size and root")
        return cls(origin, int(size), root)

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def _malformed(reason: str) -> InvalidInput:
    return InvalidInput("checkpoint.malformed", f"this is no checkpoint: {reason}")


def open_checkpoint(
    written: str | bytes, keys: Sequence[VerifierKey], *, witnesses_min: int = 0
) -> Checkpoint:
    """Return the checkpoint in the note `written`, signed by its log and by enough witnesses.

    Parameters
    ----------
    keys : of the log, called as its origin, and of witnesses
    witnesses_min : so many different witnesses must have cosigned

    Raises
    ------
    InvalidInput
        ``note.malformed``, ``note.signature_bad``, ``note.unsigned``, ``checkpoint.malformed``,
        ``checkpoint.unwitnessed``
    """
    note = Note.parse(written)
    checkpoint = Checkpoint.parse(note.text)
    own = [k for k in keys if k.kind is SignatureKind.ED25519 and k.name == checkpoint.origin]
    note.verify(own)
    witnesses = [key for key in keys if key.kind is SignatureKind.COSIGNATURE]
    seen: set[VerifierKey] = set()
    if any((s.name, s.key_id) in {(w.name, w.key_id) for w in witnesses} for s in note.signatures):
        seen = {good.key for good in note.verify(witnesses)}
    if len(seen) < witnesses_min:
        raise InvalidInput(
            "checkpoint.unwitnessed",
            f"{len(seen)} of the known witnesses cosigned, {witnesses_min} have to",
            value=len(seen),
            limit=witnesses_min,
        )
    return checkpoint
