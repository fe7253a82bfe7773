"""Proof files: that one event is in the log, for whoever holds the log's public key.

References
----------
C2SP tlog-proof.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from domain.errors import InvalidInput
from eventlog.transparency.checkpoints import Checkpoint, open_checkpoint
from eventlog.transparency.merkle import HASH_BYTES, PROOF_HASHES_MAX, check_inclusion, leaf_hash
from eventlog.transparency.notes import NOTE_BYTES_MAX, Note, VerifierKey
from eventlog.transparency.tiles import LedgerTiles

PROOF_MAGIC: Final = "c2sp.org/tlog-proof@v1"
EXTRA_BYTES_MAX: Final = 65_535
PROOF_BYTES_MAX: Final = NOTE_BYTES_MAX + 2 * EXTRA_BYTES_MAX

_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That the entry at `index` is in the tree of `checkpoint`, a signed note as written.

    Parameters
    ----------
    extra : not authenticated by itself; Heddle puts the entry here, which its hash vouches for
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the proof that `text` is. Nothing is verified.

        Raises
        ------
        InvalidInput
            ``proof.malformed``
        """
        head, separator, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if len(text) > PROOF_BYTES_MAX or not separator or lines.pop(0) != PROOF_MAGIC:
            raise _malformed(f"it starts with {PROOF_MAGIC} and holds a checkpoint")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = _from_base64(lines.pop(0).removeprefix("extra "))
        index = _INDEX.fullmatch(lines.pop(0)) if lines else None
        if index is None or len(lines) > PROOF_HASHES_MAX:
            raise _malformed("after an index come the hashes, one a line")
        path = tuple(_from_base64(line) for line in lines)
        if any(len(sibling) != HASH_BYTES for sibling in path):
            raise _malformed(f"a hash has {HASH_BYTES} bytes")
        return cls(int(index[1]), path, checkpoint, extra)

    @property
    def text(self) -> str:
        """The proof as a ``.tlog-proof`` file."""
        extra = [] if self.extra is None else [f"extra {_base64(self.extra)}"]
        lines = [PROOF_MAGIC, *extra, f"index {self.index}", *map(_base64, self.path)]
        return "\n".join(lines) + "\n\n" + self.checkpoint

    def verify(
        self, keys: Sequence[VerifierKey], entry: bytes | None = None, *, witnesses_min: int = 0
    ) -> Checkpoint:
        """Return the checkpoint whose tree holds `entry`, or else the entry in `extra`.

        Raises
        ------
        InvalidInput
            ``proof.without_entry``, ``proof.malformed``, ``proof.inclusion_failed``, or as
            `open_checkpoint` says
        """
        entry = self.extra if entry is None else entry
        if entry is None:
            raise InvalidInput("proof.without_entry", "the proof does not bring its entry along")
        checkpoint = open_checkpoint(self.checkpoint, keys, witnesses_min=witnesses_min)
        check_inclusion(leaf_hash(entry), self.index, checkpoint.size, checkpoint.root, self.path)
        return checkpoint


async def prove(tiles: LedgerTiles, position: int, note: Note) -> TlogProof:
    """Return the proof that the event at `position` is in the tree of the checkpoint `note`.

    Raises
    ------
    InvalidInput
        ``proof.index_out_of_range``: the checkpoint does not cover the position
    """
    size = Checkpoint.parse(note.text).size
    path = await tiles.inclusion_proof(position - 1, size)
    (entry,) = await tiles.entries(position - 1, 1)
    return TlogProof(position - 1, tuple(path), note.written, entry)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(f"{text!r:.80} is no base64") from error


def _malformed(reason: str) -> InvalidInput:
    return InvalidInput("proof.malformed", f"this is no tlog-proof: {reason}")
