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
        _flush(self.folder)

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
        self._make_folder()
        self._write(self._path("checkpoint"), note.written, 0o644)

    def keep_as_lost(self, note: Note, size: int) -> None:
        """Keep `note`, of `size` events that are gone, for whoever asks what was signed."""
        self._write(self._path(f"checkpoint-lost-{size}"), note.written, 0o644)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the only process that works with this folder's files of the ledger. Blocks."""
        self._make_folder()
        with self._path("lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.ledger}.{kind}"

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _load_or_create(self, path: Path, *, publish: bool = True) -> SigningKey:
        try:
            return self._load(path)
        except FileNotFoundError:
            pass
        self._make_folder()
        fresh = SigningKey.generate(self.origin)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            _write_new(temporary, fresh.text + "\n", 0o600)
            # A link fails where the file is there: of two that start at once, one makes the key.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(self.folder)
        key = self._load(path)
        if publish:
            self._publish(key)
        return key

    def _load(self, path: Path) -> SigningKey:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise InvalidInput(
                    "key.open_to_others",
                    f"{path} may be read by others (mode {mode:04o})",
                    hint=f"chmod 600 {path}, and rotate the key if others did read it",
                    value=f"{mode:04o}",
                    limit="0600",
                )
            return SigningKey.parse(file.read(4096))

    def _publish(self, key: SigningKey) -> None:
        self._write(self._path("vkey"), key.verifier.vkey + "\n", 0o644)

    def _write(self, path: Path, text: str, mode: int) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            _write_new(temporary, text, mode)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(self.folder)


def _write_new(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
