"""Checkpoints: the signed heads of a ledger, and the key that signs them.

A log must never sign two checkpoints that contradict one another. So one signer at a time signs
the committed head, and only after the tree that was signed last, as the database and as a file
outside it remember, has been found again at the head's beginning. A database that was restored
to an earlier point is thus found out before it can speak.

References
----------
C2SP tlog-checkpoint, tlog-cosignature.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.identifiers import uuid7
from domain.ledger_events import SigningKeyRotated, ledger_stream
from eventlog.database import CONNECTION_LOST, Connection
from eventlog.envelope import new_fact
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.merkle import HASH_BYTES
from eventlog.notes import (
    Note,
    SignatureKind,
    SigningKey,
    VerifierKey,
    check_key_name,
    parse_signature,
    sign_note,
)
from eventlog.tiles import LedgerTiles

logger = logging.getLogger("heddle.eventlog")

ORIGIN_HOST: Final = "heddle.example"
INTERVAL_S: Final = 2.0
LOCK_CLASS: Final = 0x74_6C_6F_67
"""First key of the advisory lock under which one process signs for a ledger."""

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ROTATION: Final = "heddle.example/key-rotation/v1"


def origin_of(ledger: str) -> str:
    """Return the origin of a log that was given none."""
    return f"{ORIGIN_HOST}/{ledger}"


def _utc_now() -> datetime:
    return datetime.now(UTC)


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


class SigningRefused(HeddleError):
    """The log contradicts what was signed before: nothing is signed until a person decides."""


# --- the key ------------------------------------------------------------------------------


@dataclass(frozen=True)
class SigningKeys:
    """Where a ledger's key is, and beside it the last checkpoint that was signed.

    Parameters
    ----------
    folder : holds ``<ledger>.key`` (0600), ``<ledger>.vkey`` and ``<ledger>.checkpoint``
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
        key = self.given or self._load_or_create(self._path("key"))
        if key.name != self.origin or key.kind is not SignatureKind.ED25519:
            raise InvalidInput(
                "key.other_origin",
                f"the key is for {key.name!r}, the log's origin is {self.origin!r}",
                hint="an origin stays with its log; set the one the key was made for",
                value=key.name,
                limit=self.origin,
            )
        return key

    def next(self) -> SigningKey:
        """Return the key that is to follow, made when there is none waiting."""
        return self._load_or_create(self._path("next-key"), publish=False)

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


# --- signing ------------------------------------------------------------------------------


@dataclass
class CheckpointSigner:
    """Signs the heads of one ledger. Any number of processes may have one.

    Parameters
    ----------
    witnesses : whose cosignatures are accepted
    """

    tiles: LedgerTiles
    keys: SigningKeys
    witnesses: Sequence[VerifierKey] = ()
    now: Callable[[], datetime] = _utc_now
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sign(self) -> Note:
        """Return the checkpoint of the committed head, signed unless it was before.

        Raises
        ------
        SigningRefused
            ``checkpoint.log_shorter``, ``checkpoint.inconsistent``, ``checkpoint.head_damaged``,
            ``checkpoint.other_origin``
        """
        async with self._turn:
            key = await asyncio.to_thread(self.keys.current)
            return await self._sign([key])

    async def latest(self) -> Note | None:
        """Return the last checkpoint that the database knows, with its cosignatures."""
        row = await self.tiles.pool.fetchrow(
            "select size, note from checkpoint where ledger_id = $1 order by size desc limit 1",
            self.tiles.ledger_id,
        )
        return None if row is None else await self._with_cosignatures(row["size"], row["note"])

    async def signed_size(self) -> int:
        """Return how many events the last checkpoint in the database covers, 0 without one."""
        size: int | None = await self.tiles.pool.fetchval(
            "select max(size) from checkpoint where ledger_id = $1", self.tiles.ledger_id
        )
        return size or 0

    async def rotate(
        self, ledger: Ledger, *, actor: str, reason: str, successor: SigningKey | None = None
    ) -> VerifierKey:
        """Let a new key sign from here on; return it. Killed half-way, it is finished by a repeat.

        The log records it with the old key's endorsement, and the checkpoint that first covers
        that event is signed by both keys, so that whoever trusts the old one can go over.

        Parameters
        ----------
        successor : the new key, where a setting gives it; a file's is made

        Raises
        ------
        CommandRejected
            ``key.given_by_setting``: the key is not ours to replace, and no successor is given
        """
        if self.keys.given is not None and successor is None:
            raise CommandRejected(
                "key.given_by_setting",
                f"the key of {self.keys.origin} is given by a setting",
                hint="give the new key, then put it into the setting",
            )
        async with self._turn:
            old = await asyncio.to_thread(self.keys.current)
            new = successor
            if new is None:
                new = await asyncio.to_thread(self.keys.next)
            await self._record(ledger, old, new.verifier, actor, reason)
            await self._sign([old, new])
            if successor is None:
                await asyncio.to_thread(self.keys.promote_next, new)
            return new.verifier

    async def accept(self, written: str | bytes) -> int:
        """Keep the cosignatures of known witnesses in `written`; return how many are good.

        Raises
        ------
        NotFound
            ``checkpoint.unknown``: this log did not sign such a checkpoint
        InvalidInput
            ``note.malformed``, ``note.signature_bad``, ``note.unsigned``
        """
        note = Note.parse(written)
        checkpoint = Checkpoint.parse(note.text)
        stored = await self.tiles.pool.fetchval(
            "select note from checkpoint where ledger_id = $1 and size = $2",
            self.tiles.ledger_id,
            checkpoint.size,
        )
        if stored is None or Note.parse(stored).text != note.text:
            raise NotFound(
                "checkpoint.unknown",
                f"this log signed no such checkpoint of size {checkpoint.size}",
                value=checkpoint.size,
            )
        good = {(v.key.name, v.key.key_id) for v in note.verify(self.witnesses)}
        for signature in note.signatures:
            if (signature.name, signature.key_id) in good:
                await self.tiles.pool.execute(
                    "insert into cosignature (ledger_id, size, received_at, witness, line) "
                    "values ($1, $2, $3, $4, $5) on conflict do nothing",
                    self.tiles.ledger_id,
                    checkpoint.size,
                    self.now(),
                    signature.name,
                    signature.line,
                )
        return len(good)

    async def _record(
        self, ledger: Ledger, old: SigningKey, new: VerifierKey, actor: str, reason: str
    ) -> None:
        now = self.now()
        event = SigningKeyRotated(
            ledger=ledger.name,
            origin=self.keys.origin,
            previous_vkey=old.verifier.vkey,
            vkey=new.vkey,
            endorsement=sign_note(rotation_text(self.keys.origin, new), [old]).written,
            reason=reason,
        )
        await ledger.append(
            [
                new_fact(
                    ledger_stream(ledger.name),
                    event,
                    event_id=uuid7(int(now.timestamp() * 1000), os.urandom(10)),
                    occurred_at=now,
                    actor=actor,
                )
            ],
            idempotency=IdempotencyKey.of(f"signing-key:{new.key_id.hex()}", new.vkey.encode()),
        )

    async def _sign(self, signers: Sequence[SigningKey]) -> Note:
        tiles = self.tiles
        await tiles.build((await tiles.head()).size)
        async with tiles.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "select pg_advisory_xact_lock($1, $2)", LOCK_CLASS, tiles.ledger_id
            )
            head = await tiles.head()
            earlier = await self._earlier(connection)
            for note in earlier:
                await self._check_extends(Checkpoint.parse(note.text), head.size)
            if await tiles.root_at(head.size) != head.root:
                raise SigningRefused(
                    "checkpoint.head_damaged",
                    f"the events of ledger {tiles.name!r} do not add up to its head at {head.size}",
                    hint="`heddle verify` says where they differ",
                    value=head.size,
                )
            same = [n for n in earlier if Checkpoint.parse(n.text).size == head.size]
            note = (
                same[0]
                if same
                else sign_note(Checkpoint(self.keys.origin, head.size, head.root).text, signers)
            )
            # The file first: what the database forgets in a crash was shown to nobody.
            await asyncio.to_thread(self._publish, note)
            await connection.execute(
                "insert into checkpoint (ledger_id, size, signed_at, note) "
                "values ($1, $2, $3, $4) on conflict do nothing",
                tiles.ledger_id,
                head.size,
                self.now(),
                note.written,
            )
        return await self._with_cosignatures(head.size, note.written)

    def _publish(self, note: Note) -> None:
        with self.keys.held():
            known = self.keys.published()
            if known is None or known.text != note.text:
                self.keys.publish(note)

    async def _earlier(self, connection: Connection) -> list[Note]:
        """Return the last checkpoint that was signed, as the file and the database know it."""
        stored = await connection.fetchval(
            "select note from checkpoint where ledger_id = $1 order by size desc limit 1",
            self.tiles.ledger_id,
        )
        published = await asyncio.to_thread(self.keys.published)
        return [
            *([] if published is None else [published]),
            *([] if stored is None else [Note.parse(stored)]),
        ]

    async def _check_extends(self, signed: Checkpoint, size: int) -> None:
        ledger = self.tiles.name
        if signed.origin != self.keys.origin:
            raise SigningRefused(
                "checkpoint.other_origin",
                f"the checkpoints of ledger {ledger!r} are signed for {signed.origin!r}, "
                f"not {self.keys.origin!r}",
                hint="an origin stays with its log",
                value=self.keys.origin,
                limit=signed.origin,
            )
        if signed.size > size:
            raise SigningRefused(
                "checkpoint.log_shorter",
                f"ledger {ledger!r} has {size} events, but a checkpoint of {signed.size} was "
                f"signed: events {size + 1} to {signed.size} are gone",
                hint="the database was restored to an earlier point or cut; restore the missing "
                "events, or start a new ledger under another name; if another database was meant, "
                f"choose another folder than {self.keys.folder} for its keys",
                value=size,
                limit=signed.size,
            )
        root = await self.tiles.root_at(signed.size)
        if root != signed.root:
            raise SigningRefused(
                "checkpoint.inconsistent",
                f"the first {signed.size} events of ledger {ledger!r} have root {root.hex()}, "
                f"but a checkpoint with {signed.root.hex()} was signed",
                hint="the database was restored and went another way, or events were changed; "
                "`heddle verify` says where",
                value=root.hex(),
                limit=signed.root.hex(),
            )

    async def _with_cosignatures(self, size: int, written: str) -> Note:
        note = Note.parse(written)
        lines = await self.tiles.pool.fetch(
            "select line from cosignature where ledger_id = $1 and size = $2 "
            "order by received_at, line",
            self.tiles.ledger_id,
            size,
        )
        cosigned = tuple(parse_signature(row["line"].rstrip("\n")) for row in lines)
        return Note(note.text, note.signatures + cosigned)


def rotation_text(origin: str, successor: VerifierKey) -> str:
    """Return what the old key of `origin` signs when it names its successor."""
    return f"{_ROTATION}\n{origin}\n{successor.vkey}\n"


def trusted_keys(
    trusted: Sequence[VerifierKey], rotations: Sequence[SigningKeyRotated]
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


def _is_endorsed(rotation: SigningKeyRotated, old: VerifierKey, new: VerifierKey) -> bool:
    if rotation.endorsement is None:
        return False
    try:
        note = Note.parse(rotation.endorsement)
        note.verify([old])
    except InvalidInput:
        return False
    return note.text == rotation_text(rotation.origin, new)


# --- publishing ---------------------------------------------------------------------------


class CheckpointPublisher:
    """Signs the head whenever it has moved, at its own pace, and knows the last checkpoint."""

    def __init__(self, signer: CheckpointSigner, *, interval_s: float = INTERVAL_S) -> None:
        self.signer = signer
        self.interval_s = interval_s
        self.failure: str | None = None
        self._refused: SigningRefused | None = None
        self._note: Note | None = None
        self._size = -1
        self._task = asyncio.create_task(self._run(), name=f"checkpoints:{signer.tiles.name}")

    async def close(self) -> None:
        """Stop signing."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def current(self, covering: int = 0) -> Note:
        """Return the last checkpoint; a new one where it does not cover `covering` events yet.

        Raises
        ------
        SigningRefused
            when the log contradicts what was signed
        """
        if self._refused is not None:
            raise self._refused
        if self._note is None or self._size < covering:
            await self._refresh()
        assert self._note is not None
        return self._note

    async def _refresh(self) -> None:
        note = await self.signer.sign()
        self._note, self._size = note, Checkpoint.parse(note.text).size

    async def _run(self) -> None:
        while True:
            try:
                if (await self.signer.tiles.head()).size != self._size:
                    await self._refresh()
                if self.failure is not None:
                    logger.info("checkpoints of %s: signing again", self.signer.tiles.name)
                self.failure = self._refused = None
            except (HeddleError, *CONNECTION_LOST) as error:
                if self.failure is None:
                    logger.error("checkpoints of %s: %s", self.signer.tiles.name, error)
                self.failure = str(error)
                self._refused = error if isinstance(error, SigningRefused) else None
            await asyncio.sleep(self.interval_s)
