"""Signed checkpoints, from the database and from whoever holds some, against the tree."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from domain.errors import HeddleError
from domain.events import decode_fact
from eventlog.database import Connection
from eventlog.transparency.checkpoints import Checkpoint
from eventlog.transparency.key_succession import KeySuccession
from eventlog.transparency.merkle import TileTree
from eventlog.transparency.notes import Note, SignatureKind, VerifierKey
from eventlog.verification.findings import Verification

CHECKPOINTS_A_PAGE: Final = 500


async def successions_of(connection: Connection, ledger_id: int) -> list[KeySuccession]:
    """Return what the log says of keys and origins that followed one another."""
    rows = await connection.fetch(
        "select type, schema_version, payload from event where ledger_id = $1 "
        "and stream = (select 'ledger:' || name from ledger where ledger_id = $1) "
        "and type in ('ledger.signing_key_rotated', 'ledger.history_lost') "
        "and payload is not null order by position",
        ledger_id,
    )
    successions: list[KeySuccession] = []
    for row in rows:
        try:
            event = decode_fact(row["type"], row["schema_version"], row["payload"])
        except (HeddleError, ValueError, KeyError, TypeError):
            continue  # its payload's hash is found wrong where the events are checked
        successions.append(event)
    return successions


@dataclass(frozen=True, slots=True)
class _Signed:
    size: int
    root: bytes
    whose: str


class SignedCheckpoints:
    """Signed checkpoints in order of size, from the database and from whoever holds some."""

    def __init__(
        self,
        connection: Connection,
        ledger_id: int,
        report: Verification,
        keys: Sequence[VerifierKey],
        origins: Sequence[str],
        held: Iterable[Note],
    ) -> None:
        self._connection = connection
        self._ledger_id = ledger_id
        self._report = report
        self._keys = [key for key in keys if key.kind is SignatureKind.ED25519]
        self._last_size = -1
        self._exhausted = False
        self._origin: str | None = None
        self._linked = frozenset(origins)
        """Origins that the log itself has gone through, each after a loss that it records."""
        self._good_size = 0
        self._failed = False
        given = [self._opened(note, "held outside the database") for note in held]
        self._held = deque(sorted((s for s in given if s is not None), key=lambda s: s.size))
        self._stored: deque[_Signed] = deque()

    async def next_size(self, beyond: int) -> int | None:
        """Return the smallest signed size that is larger than `beyond`."""
        while not self._stored and not self._exhausted:
            rows = await self._connection.fetch(
                "select size, note from checkpoint where ledger_id = $1 and size > $2 "
                "order by size limit $3",
                self._ledger_id,
                self._last_size,
                CHECKPOINTS_A_PAGE,
            )
            self._exhausted = len(rows) < CHECKPOINTS_A_PAGE
            for row in rows:
                self._last_size = row["size"]
                self._keep(row["size"], row["note"])
        sizes = [queue[0].size for queue in (self._held, self._stored) if queue]
        return min((size for size in sizes if size > beyond), default=None)

    def _keep(self, size: int, written: str) -> None:
        try:
            note = Note.parse(written)
        except HeddleError as error:
            self._wrong(size, f"cannot be read: {error}")
            return
        signed = self._opened(note, "signed")
        if signed is not None and signed.size != size:
            self._wrong(size, f"says {signed.size}")
        elif signed is not None:
            self._stored.append(signed)

    def _wrong(self, size: int, what: str) -> None:
        self._report.add(
            "checkpoint.altered",
            f"the stored checkpoint of size {size} {what}",
            position=size,
            expected=size,
        )

    def _opened(self, note: Note, whose: str) -> _Signed | None:
        try:
            checkpoint = Checkpoint.parse(note.text)
            if self._keys:
                note.verify(self._keys)
                self._report.signatures += 1
        except HeddleError as error:
            self._report.add(
                "checkpoint.signature",
                f"a checkpoint {whose} is not good: {error.message}; it says {note.text[:200]!r}",
                expected=[key.vkey for key in self._keys] or None,
            )
            return None
        self._origin = self._origin or checkpoint.origin
        if checkpoint.origin != self._origin and not self._linked.issuperset(
            (checkpoint.origin, self._origin)
        ):
            self._report.add(
                "checkpoint.other_origin",
                f"a checkpoint {whose} of size {checkpoint.size} is of {checkpoint.origin!r}, "
                f"others are of {self._origin!r}",
                position=checkpoint.size,
                expected=self._origin,
                actual=checkpoint.origin,
            )
        return _Signed(checkpoint.size, checkpoint.root, whose)

    def compare(self, tree: TileTree) -> None:
        """Compare every checkpoint that has the size of `tree` now with it."""
        root: bytes | None = None
        for queue in (self._held, self._stored):
            while queue and queue[0].size <= tree.size:
                signed = queue.popleft()
                if signed.size != tree.size:
                    continue  # cannot be: the tree stops at each size
                root = tree.root() if root is None else root
                self._compare(signed, root)

    def _compare(self, signed: _Signed, root: bytes) -> None:
        self._report.checkpoints += 1
        if root == signed.root:
            self._good_size = max(self._good_size, signed.size)
        elif not self._failed:
            # What follows cannot fit either; the first one says where.
            self._failed = True
            self._report.add(
                "checkpoint.mismatch",
                f"the first {signed.size} events have root {root.hex()}, but the checkpoint "
                f"{signed.whose} for them says {signed.root.hex()}: an event from "
                f"{self._good_size + 1} to {signed.size} is not what it was",
                position=self._good_size + 1,
                expected=signed.root.hex(),
                actual=root.hex(),
            )

    async def finish(self, size: int) -> None:
        """Note the checkpoints of more events than there are."""
        await self.next_size(size)
        while self._stored and not self._exhausted:
            self._stored.clear()
            await self.next_size(size)
        for signed in [queue[-1] for queue in (self._held, self._stored) if queue]:
            self._report.add(
                "checkpoint.beyond_log",
                f"a checkpoint {signed.whose} is of {signed.size} events, the log has {size}: "
                f"events {size + 1} to {signed.size} were cut off",
                position=size + 1,
                expected=signed.size,
                actual=size,
            )
