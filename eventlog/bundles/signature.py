"""The signature under a bundle: the log's key says that its lines, all of them, are what it wrote.

An event proves itself against the checkpoint; what was asked, and how a graph was read out of the
events, does not. So the last line is a signed note over a hash of all bytes before it:
``{"signature": NOTE}``, where the note's text has four lines: the bundle's format, the log's
origin, the number of lines before this one, and their SHA-256 (base64). No checkpoint reads so:
its second line is a number, its third a hash.

References
----------
C2SP signed-note.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from domain.errors import InvalidInput
from eventlog.bundles.lines import malformed
from eventlog.transparency.notes import Note, SignatureKind, SigningKey, VerifierKey, sign_note

SIGNATURE: Final = "signature"
SIGNATURE_LINE: Final = b'{"signature":'
"""How the line begins, byte for byte: it alone is not among the lines that are signed."""


@dataclass
class SignedLines:
    """The lines of a bundle as they are written or read: how many, and a hash of them.

    Parameters
    ----------
    format_name, origin : of the bundle and its log
    """

    format_name: str
    origin: str
    count: int = 0
    _sha256: Any = field(default_factory=hashlib.sha256)

    def add(self, line: bytes) -> None:
        """Take the next line, with its newline."""
        self._sha256.update(line)
        self.count += 1

    @property
    def text(self) -> str:
        """What is signed of the lines so far."""
        digest = base64.b64encode(self._sha256.digest()).decode()
        return f"{self.format_name}\n{self.origin}\n{self.count}\n{digest}\n"

    def sign(self, key: SigningKey) -> bytes:
        """Return the line that signs all lines so far."""
        return orjson.dumps({SIGNATURE: sign_note(self.text, [key]).written}) + b"\n"

    def check(self, written: Any, keys: Sequence[VerifierKey]) -> None:
        """Refuse the note `written`, unless the log's own key among `keys` signed these lines.

        Raises
        ------
        InvalidInput
            ``note.malformed``, ``note.too_large``, ``note.signature_bad``, ``note.unsigned``,
            ``bundle.malformed``: it is of another format or log;
            ``bundle.signature``: other lines were signed
        """
        if not isinstance(written, str):
            raise malformed(f"a signature is a signed note, not {written!r:.80}")
        note = Note.parse(written)
        note.verify([k for k in keys if k.kind is SignatureKind.ED25519 and k.name == self.origin])
        if note.text == self.text:
            return
        signed = note.text.split("\n")
        if signed[:2] != [self.format_name, self.origin]:
            raise malformed(
                f"what was signed is a {signed[0]!r:.80} of {''.join(signed[1:2])!r:.80}, "
                f"not a {self.format_name} of {self.origin}"
            )
        said, found = (
            " lines with the hash ".join(text.split("\n")[2:4]) for text in (note.text, self.text)
        )
        raise InvalidInput(
            "bundle.signature",
            f"{said:.80} were signed, but {found} stand before the signature",
            hint="the bundle was changed after it was written: ask for it again",
            value=found,
            limit=said[:80],
        )
