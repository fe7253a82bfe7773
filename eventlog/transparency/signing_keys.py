"""The key that signs a ledger's checkpoints, as files, and beside it the last one that was signed.

This folder is what the database cannot take back: whoever restores the database to an earlier
point finds here what was signed since. It is never restored together with the database.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.errors import InvalidInput
from eventlog.private_files import (
    create_once,
    flush_folder,
    make_folder,
    read_private,
    replace,
)
from eventlog.transparency.notes import Note, SignatureKind, SigningKey, VerifierKey, check_key_name

ORIGIN_HOST: Final = "heddle.example"


def origin_of(ledger: str) -> str:
    """Return the origin of a log that was given none."""
    return f"{ORIGIN_HOST}/{ledger}"


@dataclass(frozen=True)
class SigningKeys:
    """Where a ledger's key is, and beside it the last checkpoint that was signed.

    Parameters
    ----------
    folder : holds ``<ledger>.key`` (0600), ``<ledger>.vkey`` and ``<ledger>.checkpoint``; of a
        log that lost events also ``<ledger>.checkpoint-lost-<size>``
    given : the key, where a setting gives it; then no key file is made
    """

    folder: Path
    ledger: str
    origin: str
    given: SigningKey | None = None

    def __post_init__(self) -> None:
        check_key_name(self.origin)

    def current(self) -> SigningKey:
        """Return the key that signs now, made at its first use.

        Raises
        ------
        InvalidInput
            ``key.malformed``, ``key.open_to_others``, ``key.other_origin``
        """
        return self._checked(self.given or self._load_or_create(self._path("key")))

    def next(self) -> SigningKey:
        """Return the key that is to follow, made when there is none waiting.

        Raises
        ------
        InvalidInput
            as `current`
        """
        return self._checked(self._load_or_create(self._path("next-key"), publish=False))

    def _checked(self, key: SigningKey) -> SigningKey:
        if key.name != self.origin or key.kind is not SignatureKind.ED25519:
            raise InvalidInput(
                "key.other_origin",
                f"the key is for {key.name!r}, the log's origin is {self.origin!r}",
                hint="an origin stays with its log; set the one the key was made for",
                value=key.name,
                limit=self.origin,
            )
        return key

    @property
    def has_next(self) -> bool:
        """Whether a key waits to follow."""
        return self._path("next-key").exists()

    def promote_next(self, key: SigningKey) -> None:
        """Put `key`, from `next`, in place of the current one, whose private half is gone then."""
        self._publish(key)
        os.replace(self._path("next-key"), self._path("key"))
        flush_folder(self.folder)

    def verifier(self) -> VerifierKey | None:
        """Return the public key as this folder knows it, or None; makes nothing."""
        if self.given is not None:
            return self.given.verifier
        with contextlib.suppress(FileNotFoundError):
            return VerifierKey.parse(self._path("vkey").read_text())
        return None

    def published(self) -> Note | None:
        """Return the last checkpoint that was signed, as the file remembers it."""
        with contextlib.suppress(FileNotFoundError):
            return Note.parse(self._path("checkpoint").read_bytes())
        return None

    def publish(self, note: Note) -> None:
        """Remember `note` outside the database, before anybody is shown it."""
        make_folder(self.folder)
        replace(self._path("checkpoint"), note.written, 0o644)

    def keep_as_lost(self, note: Note, size: int) -> None:
        """Keep `note`, of `size` events that are gone, for whoever asks what was signed."""
        replace(self._path(f"checkpoint-lost-{size}"), note.written, 0o644)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the only process that works with this folder's files of the ledger. Blocks."""
        make_folder(self.folder)
        with self._path("lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.ledger}.{kind}"

    def _load_or_create(self, path: Path, *, publish: bool = True) -> SigningKey:
        try:
            return SigningKey.parse(read_private(path))
        except FileNotFoundError:
            pass
        create_once(path, lambda: SigningKey.generate(self.origin).text + "\n")
        key = SigningKey.parse(read_private(path))
        if publish:
            self._publish(key)
        return key

    def _publish(self, key: SigningKey) -> None:
        replace(self._path("vkey"), key.verifier.vkey + "\n", 0o644)
