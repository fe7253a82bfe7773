"""Commands on assets: load, decide, append; once per idempotency key, again after a lost race."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from domain.asset import (
    Asset,
    AssetCommand,
    AssetEvent,
    Unregistered,
    asset_stream,
    decide,
    evolve,
)
from domain.errors import Conflict
from domain.identifiers import check_identifier
from eventlog.envelope import new_fact
from eventlog.ledger import NO_STREAM, Appended, IdempotencyKey, Ledger
from eventlog.reading import read_whole_stream

DECISIONS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a command.

    `events` it caused (none when things already stood so, or when it was handled before),
    the stream's `version` and the `position` afterwards; `duplicate` when the idempotency key
    recalled an earlier outcome.
    """

    events: tuple[AssetEvent, ...]
    version: int
    position: int
    duplicate: bool = False


async def load_asset(ledger: Ledger, asset_id: str) -> tuple[Asset, int]:
    """Return the asset as its events make it, and its stream's version."""
    asset: Asset = Unregistered()
    version = NO_STREAM
    async for event in read_whole_stream(ledger, asset_stream(asset_id)):
        asset = evolve(asset, cast("AssetEvent", event.fact))
        version = event.version
    return asset, version


async def handle(
    ledger: Ledger,
    command: AssetCommand,
    *,
    actor: str,
    occurred_at: datetime,
    event_id: Callable[[int], uuid.UUID],
    idempotency: IdempotencyKey | None = None,
    expected_version: int | None = None,
    correlation_id: uuid.UUID | None = None,
    causation_id: uuid.UUID | None = None,
    traceparent: str | None = None,
    dry_run: bool = False,
) -> Handled:
    """Decide `command` on its asset as it stands and record what follows.

    Parameters
    ----------
    event_id : gives the id of the n-th event that the command causes
    expected_version : refuse unless the asset's stream is at this version; without it a lost
        race is decided anew, at most `DECISIONS_MAX` times
    dry_run : decide and check, but record nothing

    Raises
    ------
    HeddleError
        as `domain.asset.decide` and `Ledger.append`
    """
    check_identifier("asset", command.asset_id)
    if idempotency is not None:
        earlier = await ledger.recall(idempotency)
        if earlier is not None:
            return _recalled(earlier)
    stream = asset_stream(command.asset_id)
    for remaining in reversed(range(DECISIONS_MAX)):
        asset, version = await load_asset(ledger, command.asset_id)
        if expected_version is not None and version != expected_version:
            raise Conflict(
                "stream.version_conflict",
                f"stream {stream!r} is at version {version}, not {expected_version}",
                hint="read it again and decide anew",
                value=expected_version,
                limit=version,
            )
        events = decide(command, asset)
        if dry_run or not events:
            return Handled(events, version, await ledger.head())
        try:
            appended = await ledger.append(
                [
                    new_fact(
                        stream,
                        event,
                        event_id=event_id(n),
                        occurred_at=occurred_at,
                        actor=actor,
                        correlation_id=correlation_id,
                        causation_id=causation_id,
                        traceparent=traceparent,
                    )
                    for n, event in enumerate(events)
                ],
                expected={stream: version},
                idempotency=idempotency,
            )
        except Conflict as conflict:
            lost_race = conflict.code == "stream.version_conflict"
            if not lost_race or expected_version is not None or remaining == 0:
                raise
            continue
        if appended.duplicate:
            return _recalled(appended)
        return Handled(events, appended.placed[-1].version, appended.position)
    raise AssertionError("the loop returns or raises")


def _recalled(earlier: Appended) -> Handled:
    last = earlier.placed[-1]
    return Handled((), last.version, last.position, duplicate=True)
