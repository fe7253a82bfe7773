"""Commands: load, decide, append; once per idempotency key, again after a lost race."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from domain.asset import asset_stream
from domain.asset_decider import Asset
from domain.catalogue import decider_of_command
from domain.deciders import OTHERS_MAX, Decider
from domain.errors import CommandRejected, Conflict, HeddleError, InvalidInput, NotFound
from domain.events import format_time
from domain.identifiers import check_identifier
from eventlog.envelope import NewEvent, new_fact
from eventlog.ledger import Appended, IdempotencyKey, Ledger
from eventlog.objects import DecidedObject, load_object, unwritten_object

DECISIONS_MAX: Final = 8
"""Times that a command is decided at most, each but the first after a lost race."""


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a command.

    `events` it caused (none when things already stood so, or when it was handled before),
    the `version` of its object's stream and the `position` afterwards; `duplicate` when the
    idempotency key recalled an earlier outcome.
    """

    events: tuple[Any, ...]
    version: int
    position: int
    duplicate: bool = False


async def load(ledger: Ledger, stream: str) -> tuple[Any, int]:
    """Return the object of `stream` as its events make it, corrections included, and its version.

    None for an object of a kind that nothing decides about.
    """
    loaded = await load_object(ledger, stream)
    return loaded.state, loaded.version


async def load_asset(ledger: Ledger, asset_id: str) -> tuple[Asset, int]:
    """Return the asset as its events make it, and its stream's version."""
    asset, version = await load(ledger, asset_stream(asset_id))
    return cast("Asset", asset), version


async def handle(
    ledger: Ledger,
    command: Any,
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
    unseen: Set[str] = frozenset(),
) -> Handled:
    """Decide `command` on its object as it stands and record what follows.

    What it looks at must not have changed when its events are recorded: their versions are
    expected too. A command with ``late=True`` tells what happened some time ago: where its kind
    goes by valid time (`Decider.by_valid_time`) it is decided on the object as it was then.

    Parameters
    ----------
    command : of one of the `domain.catalogue.DECIDERS`
    event_id : gives the id of the n-th event that the command causes
    expected_version : refuse unless the object's stream is at this version; without it a lost
        race is decided anew, at most `DECISIONS_MAX` times
    dry_run : decide and check, but record nothing
    unseen : streams that whoever asks may not know of: they count as never written, and nothing
        that needs one is recorded

    Raises
    ------
    NotFound
        ``<kind>.unknown``: it names one that is unseen
    CommandRejected
        ``command.out_of_order``: it is not late, and would lie before what is known
    InvalidInput
        ``command.time_mismatch``: it tells of another time than `occurred_at`
    HeddleError
        as the decider's `decide` and `Ledger.append`
    """
    format_time(occurred_at)  # refuses what has no zone before it is compared
    decider = decider_of_command(command)
    stream = decider.subject(command)
    _check_time(decider.happened_at(command), occurred_at)
    check_identifier(decider.category.replace("-", "_"), stream.partition(":")[2])
    late = bool(getattr(command, "late", False))

    async def decide() -> Decision:
        loaded = await _load(ledger, stream, unseen, occurred_at if late else None)
        check_version(stream, loaded.version, expected_version)
        others = await _load_others(ledger, decider, command, loaded.state, unseen)
        known = {**others, stream: loaded}
        states = {name: other.state for name, other in others.items()}
        events = decider.decide(command, loaded.state, states)
        if not late:
            _check_order(decider, events, known, occurred_at)
        _check_seen(unseen & known.keys())
        facts = [
            new_fact(
                decider.stream_of(event),
                event,
                event_id=event_id(n),
                occurred_at=occurred_at,
                actor=actor,
                correlation_id=correlation_id,
                causation_id=causation_id,
                traceparent=traceparent,
            )
            for n, event in enumerate(events)
        ]
        return Decision(events, facts, {name: other.version for name, other in known.items()})

    return await decide_once(
        ledger,
        stream,
        decide,
        idempotency=idempotency,
        expected_version=expected_version,
        dry_run=dry_run,
    )


async def _load_others(
    ledger: Ledger,
    decider: Decider[Any, Any, Any],
    command: Any,
    state: Any,
    unseen: Set[str],
) -> dict[str, DecidedObject]:
    """Return the other objects that `command` looks at, as they are known now."""
    others: dict[str, DecidedObject] = {}
    while True:
        states = {stream: other.state for stream, other in others.items()}
        missing = [s for s in decider.looks_at(command, state, states) if s not in others]
        if not missing:
            return others
        if len(others) + len(missing) > OTHERS_MAX:
            raise CommandRejected(
                "command.looks_at_too_much",
                f"{type(command).__name__} concerns more than {OTHERS_MAX} objects",
                hint="split it into several commands",
                value=len(others) + len(missing),
                limit=OTHERS_MAX,
            )
        for stream in missing:
            others[stream] = await _load(ledger, stream, unseen)


async def _load(
    ledger: Ledger, stream: str, unseen: Set[str], valid_at: datetime | None = None
) -> DecidedObject:
    if stream in unseen:
        return unwritten_object(stream)
    return await load_object(ledger, stream, valid_at)


def _check_seen(hidden: Set[str]) -> None:
    """Refuse what could be decided only because the names of others were taken for free ones."""
    for stream in sorted(hidden):
        category, _, key = stream.partition(":")
        kind = category.replace("-", "_")
        raise NotFound(f"{kind}.unknown", f"there is no {category} {key!r}", value=key)


def _check_time(told: datetime | None, occurred_at: datetime) -> None:
    if told is not None and told != occurred_at:
        raise InvalidInput(
            "command.time_mismatch",
            f"the command tells of {format_time(told)}, and is to be recorded as of "
            f"{format_time(occurred_at)}",
            hint="give both the time at which it happened",
            value=format_time(told),
            limit=format_time(occurred_at),
        )


def _check_order(
    decider: Decider[Any, Any, Any],
    events: tuple[Any, ...],
    known: Mapping[str, DecidedObject],
    occurred_at: datetime,
) -> None:
    """Refuse events that would lie before what is known, and so not have the last word."""
    for written in {decider.stream_of(event) for event in events} & known.keys():
        latest = known[written].latest
        if occurred_at < latest:
            raise CommandRejected(
                "command.out_of_order",
                f"{written!r} is known up to {format_time(latest)}, after what is asked",
                hint="if it happened then and is only told now, say that it is late",
                value=format_time(occurred_at),
                limit=format_time(latest),
            )


# --- once, and again after a lost race ----------------------------------------------------


class Decision(NamedTuple):
    """What follows from a command as things stand.

    Parameters
    ----------
    events : what happened; none when things stand so already
    facts : the same in their envelopes
    versions : of every stream that was looked at, the command's own among them
    """

    events: tuple[Any, ...]
    facts: Sequence[NewEvent]
    versions: Mapping[str, int]


async def decide_once(
    ledger: Ledger,
    stream: str,
    decide: Callable[[], Awaitable[Decision]],
    *,
    idempotency: IdempotencyKey | None,
    expected_version: int | None,
    dry_run: bool,
) -> Handled:
    """Record what `decide` comes to, once per idempotency key.

    What was looked at must not have changed when the events are recorded. Where it has, the race
    is lost and `decide` looks and decides anew, at most `DECISIONS_MAX` times in all, unless
    whoever asks expects a version.

    Parameters
    ----------
    stream : of the object that the command is given to
    decide : looks at how things stand and decides; refuses by raising
    """
    if idempotency is not None:
        earlier = await ledger.recall(idempotency)
        if earlier is not None:
            return recalled(earlier)
    for remaining in reversed(range(DECISIONS_MAX)):
        try:
            events, facts, versions = await decide()
        except HeddleError:
            # The same request may just have been recorded, and be what stands in its own way.
            earlier = None if idempotency is None else await ledger.recall(idempotency)
            if earlier is None:
                raise
            return recalled(earlier)
        if dry_run or not facts:
            return Handled(events, versions[stream], await ledger.head())
        try:
            appended = await ledger.append(facts, expected=versions, idempotency=idempotency)
        except Conflict as conflict:
            lost_race = conflict.code == "stream.version_conflict"
            if not lost_race or expected_version is not None or remaining == 0:
                raise
            continue
        if appended.duplicate:
            return recalled(appended)
        own = [
            placed.version
            for fact, placed in zip(facts, appended.placed, strict=True)
            if fact.stream == stream
        ]
        return Handled(events, own[-1] if own else versions[stream], appended.position)
    raise AssertionError("the loop returns or raises")


def check_version(stream: str, version: int, expected: int | None) -> None:
    """Refuse (``stream.version_conflict``) unless `stream` is at the version that is expected."""
    if expected is not None and version != expected:
        raise Conflict(
            "stream.version_conflict",
            f"stream {stream!r} is at version {version}, not {expected}",
            hint="read it again and decide anew",
            value=expected,
            limit=version,
        )


def recalled(earlier: Appended) -> Handled:
    """Return what became of a command that was handled before."""
    last = earlier.placed[-1]
    return Handled((), last.version, last.position, duplicate=True)
