"""Signing: heads of a ledger become checkpoints, and the last one is published.

A log must never sign two checkpoints that contradict one another. So one signer at a time signs
the committed head, and only after the tree that was signed last, as the database and as a file
outside it remember, has been found again at the head's beginning. A database that was restored
to an earlier point is thus found out before it can speak.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.identifiers import uuid7
from domain.ledger_events import HistoryLost, SigningKeyRotated, ledger_stream
from eventlog.database import CONNECTION_LOST, Connection
from eventlog.envelope import new_fact
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.transparency.checkpoints import Checkpoint
from eventlog.transparency.key_succession import KeySuccession, rotation_text
from eventlog.transparency.notes import Note, SigningKey, VerifierKey, parse_signature, sign_note
from eventlog.transparency.signing_keys import SigningKeys
from eventlog.transparency.tiles import LedgerTiles

logger = logging.getLogger("heddle.eventlog")

INTERVAL_S: Final = 2.0
KEPT_WHOLE: Final = timedelta(days=1)
"""Of checkpoints older than this the last of each hour is kept."""

PRUNE_INTERVAL_S: Final = 3_600.0
PRUNE_ROWS_MAX: Final = 5_000

LOCK_CLASS: Final = 0x74_6C_6F_67
"""First key of the advisory lock under which one process signs for a ledger."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SigningRefused(HeddleError):
    """The log contradicts what was signed before: nothing is signed until a person decides."""


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
            event = SigningKeyRotated(
                ledger=ledger.name,
                origin=self.keys.origin,
                previous_vkey=old.verifier.vkey,
                vkey=new.verifier.vkey,
                endorsement=_endorsement(self.keys.origin, old, new.verifier),
                reason=reason,
            )
            await self._record(ledger, event, new.verifier, actor)
            await self._sign([old, new])
            if successor is None:
                await asyncio.to_thread(self.keys.promote_next, new)
            return new.verifier

    async def acknowledge_loss(
        self, ledger: Ledger, *, origin: str, actor: str, reason: str
    ) -> VerifierKey:
        """Sign as another log, called `origin`, from here on: events that were signed are gone.

        Nothing is ever signed again for the origin before, so that it never contradicts itself;
        the log records its last checkpoint, and a new key, endorsed by the old one. Killed
        half-way, it is finished by a repeat.

        Raises
        ------
        CommandRejected
            ``checkpoint.nothing_lost``: the log goes on from what was signed last;
            ``key.given_by_setting``
        InvalidInput
            ``origin.unchanged``, ``key.malformed``, ``key.other_origin``
        SigningRefused
            ``checkpoint.inconsistent``, ``checkpoint.log_shorter``: the log contradicts the
            checkpoints beside it in the database, so it was changed and not restored
        """
        if self.keys.given is not None:
            raise CommandRejected(
                "key.given_by_setting",
                f"the key of {self.keys.origin} is given by a setting",
                hint="start a new ledger under another name, with a key of its own",
            )
        if origin == self.keys.origin:
            raise InvalidInput(
                "origin.unchanged",
                f"the log is called {origin!r} already",
                hint="a log that lost signed events goes on under another origin",
                value=origin,
            )
        successor = replace(self.keys, origin=origin)
        async with self._turn:
            last = await asyncio.to_thread(self.keys.published)
            if last is None or Checkpoint.parse(last.text).origin != origin:
                await self._begin_anew(ledger, successor, last, actor, reason)
            elif not successor.has_next:
                return (await asyncio.to_thread(successor.current)).verifier
            new = await asyncio.to_thread(successor.next)
            await asyncio.to_thread(successor.promote_next, new)
            return new.verifier

    async def _begin_anew(
        self, ledger: Ledger, successor: SigningKeys, last: Note | None, actor: str, reason: str
    ) -> None:
        size = (await self.tiles.head()).size
        lost = None if last is None else Checkpoint.parse(last.text)
        if last is None or lost is None or not await self._is_lost(lost, size):
            raise CommandRejected(
                "checkpoint.nothing_lost",
                f"ledger {self.tiles.name!r} goes on from what was signed last"
                if last
                else f"nothing was signed for ledger {self.tiles.name!r} as {self.keys.folder} "
                "remembers it",
                hint="there is nothing to acknowledge",
                value=size,
            )
        stored = await self.latest()
        kept = None if stored is None else Checkpoint.parse(stored.text)
        if kept is not None:
            await self._check_extends(kept, size)
        old = await asyncio.to_thread(self.keys.current)
        new = await asyncio.to_thread(successor.next)
        event = HistoryLost(
            ledger=ledger.name,
            previous_origin=self.keys.origin,
            origin=successor.origin,
            previous_vkey=old.verifier.vkey,
            vkey=new.verifier.vkey,
            endorsement=_endorsement(successor.origin, old, new.verifier),
            lost_checkpoint=last.written,
            kept_size=0 if kept is None else kept.size,
            reason=reason,
        )
        await self._record(ledger, event, new.verifier, actor)
        await asyncio.to_thread(self.keys.keep_as_lost, last, lost.size)
        await self._sign([new], anew=True)

    async def _is_lost(self, signed: Checkpoint, size: int) -> bool:
        try:
            await self._check_extends(signed, size)
        except SigningRefused as refused:
            if refused.code not in ("checkpoint.log_shorter", "checkpoint.inconsistent"):
                raise
            return True
        return False

    async def prune(self) -> int:
        """Let go of checkpoints that nobody needs any more; return how many.

        Proofs and tiles of every signed size follow from the log, not from these rows. Kept are
        those of the last `KEPT_WHOLE`, and for ever: the last of each hour, those with
        cosignatures, and those that two keys signed. The database itself refuses more.
        At most `PRUNE_ROWS_MAX` at a time.
        """
        gone: int = await self.tiles.pool.fetchval(
            """
            with gone as (
                delete from checkpoint c using (
                    select size from (
                        select size, signed_at, note, lead(signed_at) over (order by size) as next
                        from checkpoint where ledger_id = $1
                    ) signed
                    where signed_at < now() - $2::interval
                        and date_trunc('hour', next, 'UTC') = date_trunc('hour', signed_at, 'UTC')
                        and signature_count(note) = 1
                        and not exists (
                            select from cosignature where ledger_id = $1 and size = signed.size)
                    order by size limit $3
                ) old
                where c.ledger_id = $1 and c.size = old.size
                returning c.size
            ) select count(*) from gone
            """,
            self.tiles.ledger_id,
            KEPT_WHOLE,
            PRUNE_ROWS_MAX,
        )
        return gone

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
        self, ledger: Ledger, event: KeySuccession, new: VerifierKey, actor: str
    ) -> None:
        now = self.now()
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

    async def _sign(self, signers: Sequence[SigningKey], *, anew: bool = False) -> Note:
        """Sign the head with `signers`, the one that goes on last.

        `anew`: it is a new origin's first checkpoint, which the file's need not lead to.
        """
        tiles, origin = self.tiles, signers[-1].name
        await tiles.build((await tiles.head()).size)
        async with tiles.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "select pg_advisory_xact_lock($1, $2)", LOCK_CLASS, tiles.ledger_id
            )
            head = await tiles.head()
            earlier = [] if anew else await self._earlier(connection)
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
                else sign_note(Checkpoint(origin, head.size, head.root).text, signers)
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
                hint="the database was restored to an earlier point or cut: restore the missing "
                "events; where they are lost, `heddle acknowledge-loss`, or start a new ledger; if "
                f"another database was meant, choose another folder than {self.keys.folder} for "
                "its keys",
                value=size,
                limit=signed.size,
            )
        root = await self.tiles.root_at(signed.size)
        if root != signed.root:
            raise SigningRefused(
                "checkpoint.inconsistent",
                f"the first {signed.size} events of ledger {ledger!r} have root {root.hex()}, "
                f"but a checkpoint with {signed.root.hex()} was signed",
                hint="the database was restored and went another way, or events were changed: "
                "`heddle verify` says where; restore what was signed, or `heddle acknowledge-loss`",
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


def _endorsement(origin: str, old: SigningKey, new: VerifierKey) -> str:
    return sign_note(rotation_text(origin, new), [old]).written


# --- publishing ---------------------------------------------------------------------------


class CheckpointPublisher:
    """Signs the head whenever it has moved, at its own pace, and knows the last checkpoint.

    Old checkpoints are thinned out on the way.
    """

    def __init__(self, signer: CheckpointSigner, *, interval_s: float = INTERVAL_S) -> None:
        self.signer = signer
        self.interval_s = interval_s
        self.failure: str | None = None
        self._refused: SigningRefused | None = None
        self._note: Note | None = None
        self._size = -1
        self._prune_at_s = 0.0
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
                await self._prune()
            except (HeddleError, *CONNECTION_LOST) as error:
                if self.failure is None:
                    logger.error("checkpoints of %s: %s", self.signer.tiles.name, error)
                self.failure = str(error)
                self._refused = error if isinstance(error, SigningRefused) else None
            await asyncio.sleep(self.interval_s)

    async def _prune(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._prune_at_s:
            return
        self._prune_at_s = now_s + PRUNE_INTERVAL_S
        try:
            if await self.signer.prune() == PRUNE_ROWS_MAX:
                self._prune_at_s = now_s  # there is more: go on at the next turn
        except (asyncpg.PostgresError, *CONNECTION_LOST) as error:
            # Nothing depends on it but room on the disk: signing goes on.
            name = self.signer.tiles.name
            logger.warning("checkpoints of %s: old ones are not thinned out: %s", name, error)
