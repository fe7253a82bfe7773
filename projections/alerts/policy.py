"""The alert policy: follows frames, runs the rules of each asset's type, and commands alerts.

A policy answers events with commands. Its memory and its checkpoint are one transaction; its
commands carry identifiers made from the rule and the moment, so that a batch that is folded
again after a crash commands the same once more and the log recognises it.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import zstandard

from domain.asset import AssetRegistered, AssetRetired, ClearAlert, RaiseAlert
from domain.asset_model import AlertRule, AssetType
from domain.asset_types import asset_type
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import FRAME_RECORDED
from domain.frames import Frame, Quality
from domain.identifiers import derived_uuid7
from eventlog.commands import handle
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import PayloadOf
from projections.alerts.rule_states import (
    INITIAL,
    Cleared,
    Raised,
    RuleState,
    Seconds,
    Transition,
)
from projections.alerts.rules import Readings, advance_all
from projections.running.runner import EVENTS_AT_ONCE

logger = logging.getLogger("heddle.projections")

ACTOR: Final = "policy:alerts"
ASSETS_AT_ONCE: Final = 8
"""Assets whose alerts are commanded at once: each may hold a connection meanwhile."""

NO_READINGS: Final[Readings] = (np.zeros(0, np.int64), np.zeros(0))
FIRST_STATE_VERSION: Final = 1
STATE_VERSION: Final = 2

_STATE = struct.Struct("<BqqqdII")  # version, pending, raised, clearing, baseline, lengths
_NONE_S: Final = -(2**63)
_compressor = zstandard.ZstdCompressor(level=1)
_decompressor = zstandard.ZstdDecompressor()


@dataclass(frozen=True, slots=True)
class _Memory:
    """A rule of an asset: its state, and the alert it has raised."""

    state: RuleState = INITIAL
    alert_id: uuid.UUID | None = None


class AlertPolicy:
    """Raises and clears alerts by the rules that asset types declare."""

    name: ClassVar[str] = "alert-policy"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        FRAME_RECORDED,
        "asset.registered",
        "asset.retired",
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.ALL
    tables: ClassVar[tuple[str, ...]] = ("alert_policy_asset", "alert_policy_rule")
    commands_as: ClassVar[str] = ACTOR

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Advance the rules by `events` and append what follows from them."""
        types = await _asset_types(connection, ledger, events)
        frames = _frames_by_asset(events, types)
        if not frames:
            return
        memories = await _load_memories(connection, ledger.ledger_id, list(frames))
        told: dict[str, list[_Told]] = {asset_id: [] for asset_id in frames}
        for described in sorted(set(types.values()), key=lambda found: found.name):
            of_type = {a: some for a, some in frames.items() if types[a] is described}
            for channel in dict.fromkeys(rule.channel for rule in described.alert_rules):
                readings = await _readings(of_type, channel)
                for order, rule in enumerate(described.alert_rules):
                    if rule.channel == channel:
                        _advance(described, rule, order, readings, of_type, memories, told)
                        await asyncio.sleep(0)
        await _command_all(ledger, told, memories)
        await _store_memories(connection, ledger.ledger_id, memories)


Frames = dict[str, list[RecordedEvent]]
"""Frames of each asset, in the order of the log."""

Memories = dict[tuple[str, str], _Memory]
"""By asset and rule."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A transition of a rule; `cause` is the frame that told it, `order` the rule's in its type."""

    cause: RecordedEvent
    order: int
    rule: AlertRule
    transition: Transition


def _frames_by_asset(events: Sequence[RecordedEvent], types: dict[str, AssetType]) -> Frames:
    frames: Frames = {}
    for event in events:
        if event.is_frame:
            asset_id = event.stream.partition(":")[2]
            if asset_id in types and types[asset_id].alert_rules:
                frames.setdefault(asset_id, []).append(event)
    return frames


async def _readings(frames: Frames, channel: str) -> dict[str, list[Readings]]:
    """Return the GOOD readings of `channel` in each frame; a pair of empty columns without any."""
    readings: dict[str, list[Readings]] = {}
    done = 0
    for asset_id, some in frames.items():
        readings[asset_id] = []
        for event in some:
            readings[asset_id].append(_good_readings(event.frame, channel))
            done += 1
            if done % EVENTS_AT_ONCE == 0:
                await asyncio.sleep(0)
    return readings


def _good_readings(frame: Frame, channel: str) -> Readings:
    names = frame.header.names
    if channel not in names:
        return NO_READINGS
    index = names.index(channel)
    if frame.header.channels[index].is_text:
        return NO_READINGS
    times_ns, values = frame.channel_times_ns(index), frame.channel_si(index)
    if frame.all_good:
        return times_ns, values
    good = frame.qualities[index] == Quality.GOOD
    return times_ns[good], values[good]


def _advance(
    described: AssetType,
    rule: AlertRule,
    order: int,
    readings: dict[str, list[Readings]],
    frames: Frames,
    memories: Memories,
    told: dict[str, list[_Told]],
) -> None:
    """Move the memories of `rule` on by `readings`, and note in `told` what began and ended."""
    held = [memories.get((asset_id, rule.name), _Memory()) for asset_id in readings]
    advanced = advance_all(
        rule,
        described.channel(rule.channel),
        [memory.state for memory in held],
        list(readings.values()),
    )
    for asset_id, memory, result in zip(readings, held, advanced, strict=True):
        memories[asset_id, rule.name] = replace(memory, state=result.state)
        told[asset_id] += [
            _Told(frames[asset_id][place], order, rule, transition)
            for transition, place in zip(result.transitions, result.told_by, strict=True)
        ]


async def _command_all(ledger: Ledger, told: dict[str, list[_Told]], memories: Memories) -> None:
    """Command what `told` speaks of: of one asset in order, of several at once."""
    places = asyncio.Semaphore(ASSETS_AT_ONCE)

    async def command_one(asset_id: str, some: list[_Told]) -> None:
        # As if frame after frame had been folded, and in it rule after rule.
        for one in sorted(some, key=lambda one: (one.cause.position, one.order)):
            async with places:
                key = (asset_id, one.rule.name)
                memories[key] = await _command(
                    ledger, one.cause, asset_id, one.rule, memories[key], one.transition
                )

    outcomes = await asyncio.gather(
        *(command_one(asset_id, some) for asset_id, some in told.items() if some),
        return_exceptions=True,
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


async def _command(
    ledger: Ledger,
    cause: RecordedEvent,
    asset_id: str,
    rule: AlertRule,
    memory: _Memory,
    transition: Transition,
) -> _Memory:
    """Raise or clear the alert that `transition` speaks of; return the memory afterwards."""
    command: RaiseAlert | ClearAlert
    key = f"{ACTOR}:{asset_id}:{rule.name}:{transition.at_s}"
    match transition:
        case Raised():
            alert_id = derived_uuid7(transition.at_s * 1000, ledger.name, key)
            command = RaiseAlert(
                asset_id=asset_id,
                alert_id=alert_id,
                rule=rule.name,
                severity=rule.severity,
                channel=rule.channel,
                value=transition.value,
                limit=transition.limit,
                since=datetime.fromtimestamp(transition.since_s, UTC),
                message=rule.message,
            )
            memory = replace(memory, alert_id=alert_id)
        case Cleared():
            if memory.alert_id is None:
                return memory
            command = ClearAlert(asset_id, memory.alert_id, transition.value)
            memory = replace(memory, alert_id=None)
    kind = type(command).__name__
    try:
        await handle(
            ledger,
            command,
            actor=ACTOR,
            occurred_at=datetime.fromtimestamp(transition.at_s, UTC),
            event_id=lambda n: derived_uuid7(
                transition.at_s * 1000, ledger.name, key, kind, str(n)
            ),
            idempotency=IdempotencyKey.of(f"{key}:{kind}", repr(command).encode()),
            causation_id=cause.event_id,
            traceparent=cause.traceparent,
        )
    except (NotFound, CommandRejected, InvalidInput) as refused:
        # The asset was retired, or somebody else cleared the alert: nothing is left to do.
        logger.info("alert policy: %s of %s refused: %s", kind, asset_id, refused)
    return memory


# --- memory -------------------------------------------------------------------------------


async def _asset_types(
    connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
) -> dict[str, AssetType]:
    """Return the type of each asset that `events` speak of, noting assets that are new."""
    for event in events:
        if event.is_frame:
            continue
        match event.fact:
            case AssetRegistered(asset_id=asset_id, asset_type=type_name):
                await connection.execute(
                    "insert into alert_policy_asset values ($1, $2, $3) on conflict do nothing",
                    ledger.ledger_id,
                    asset_id,
                    type_name,
                )
            case AssetRetired(asset_id=asset_id):
                await connection.execute(
                    "delete from alert_policy_asset where ledger_id = $1 and asset_id = $2",
                    ledger.ledger_id,
                    asset_id,
                )
    rows = await connection.fetch(
        "select asset_id, asset_type from alert_policy_asset "
        "where ledger_id = $1 and asset_id = any($2)",
        ledger.ledger_id,
        list({event.stream.partition(":")[2] for event in events}),
    )
    return {row["asset_id"]: asset_type(row["asset_type"]) for row in rows}


async def _load_memories(
    connection: Connection, ledger_id: int, asset_ids: Sequence[str]
) -> Memories:
    rows = await connection.fetch(
        "select asset_id, rule, alert_id, state from alert_policy_rule "
        "where ledger_id = $1 and asset_id = any($2)",
        ledger_id,
        asset_ids,
    )
    return {
        (row["asset_id"], row["rule"]): _Memory(unpack_state(row["state"]), row["alert_id"])
        for row in rows
    }


async def _store_memories(connection: Connection, ledger_id: int, memories: Memories) -> None:
    # Sorted, so that two processes that fold at once lock rows in one order.
    keys = sorted(memories)
    await connection.execute(
        """
        insert into alert_policy_rule (ledger_id, asset_id, rule, alert_id, state)
        select $1, * from unnest($2::text[], $3::text[], $4::uuid[], $5::bytea[])
        on conflict (ledger_id, asset_id, rule) do update set
            alert_id = excluded.alert_id, state = excluded.state
        """,
        ledger_id,
        [asset_id for asset_id, _ in keys],
        [rule for _, rule in keys],
        [memories[key].alert_id for key in keys],
        [pack_state(memories[key].state) for key in keys],
    )


def pack_state(state: RuleState) -> bytes:
    """Return `state` as the bytes kept in its row."""
    head = _STATE.pack(
        STATE_VERSION,
        *(
            _NONE_S if moment is None else moment
            for moment in (state.pending_since_s, state.raised_at_s, state.clearing_since_s)
        ),
        np.nan if state.frozen_baseline is None else state.frozen_baseline,
        len(state.history),
        len(state.open),
    )
    if not len(state.history) + len(state.open):
        return head
    second, total, count = (
        np.concatenate((getattr(state.history, name), getattr(state.open, name)))
        for name in ("second", "total", "count")
    )
    # Differences, byte plane by byte plane: a row that PostgreSQL keeps in one piece.
    columns = np.stack((np.diff(second, prepend=0), np.diff(total, prepend=0), count))
    planes = columns.view(np.uint8).reshape(3, -1, 8).transpose(0, 2, 1)
    return head + _compressor.compress(planes.tobytes())


def unpack_state(packed: bytes) -> RuleState:
    """Return the state that `pack_state` made `packed` from, or its version 1."""
    version, pending, raised, clearing, baseline, *lengths = _STATE.unpack_from(packed)
    if version == FIRST_STATE_VERSION:
        columns = _columns_1(packed[_STATE.size :], *lengths)
    elif version == STATE_VERSION:
        columns = _columns_2(packed[_STATE.size :], sum(lengths))
    else:
        raise InvalidInput(
            "alert_policy.state_version",
            f"rule state version {version} is not known; this policy knows up to {STATE_VERSION}",
            value=version,
            limit=STATE_VERSION,
        )
    history = lengths[0]
    parts = [Seconds(*columns[:, :history]), Seconds(*columns[:, history:])]
    pending_since_s, raised_at_s, clearing_since_s = (
        None if moment == _NONE_S else moment for moment in (pending, raised, clearing)
    )
    return RuleState(
        history=parts[0],
        open=parts[1],
        pending_since_s=pending_since_s,
        raised_at_s=raised_at_s,
        clearing_since_s=clearing_since_s,
        frozen_baseline=None if np.isnan(baseline) else baseline,
    )


def _columns_1(packed: bytes, history: int, still_open: int) -> npt.NDArray[np.int64]:
    """Return second, total and count of all seconds: shape (3, n)."""
    columns = np.frombuffer(zlib.decompress(packed), np.int64)
    return np.concatenate(
        (columns[: 3 * history].reshape(3, history), columns[3 * history :].reshape(3, still_open)),
        axis=1,
    )


def _columns_2(packed: bytes, count: int) -> npt.NDArray[np.int64]:
    if count == 0:
        return np.zeros((3, 0), np.int64)
    planes = np.frombuffer(_decompressor.decompress(packed, max_output_size=24 * count), np.uint8)
    columns = planes.reshape(3, 8, count).transpose(0, 2, 1).copy().view(np.int64)[:, :, 0]
    columns[:2] = np.cumsum(columns[:2], axis=1)
    return columns
