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

from domain.asset import AssetRegistered, AssetRetired, ClearAlert, RaiseAlert
from domain.asset_model import AlertRule, AssetType
from domain.asset_types import asset_type
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import FRAME_RECORDED
from domain.frames import Quality
from domain.identifiers import derived_uuid7
from eventlog.commands import handle
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import PayloadOf
from projections.alert_rules import (
    INITIAL,
    Cleared,
    Raised,
    RuleState,
    Seconds,
    Transition,
    advance,
)
from projections.runner import EVENTS_AT_ONCE

logger = logging.getLogger("heddle.projections")

ACTOR: Final = "policy:alerts"
STATE_VERSION: Final = 1

_STATE = struct.Struct("<BqqqdII")  # version, pending, raised, clearing, baseline, lengths
_NONE_S: Final = -(2**63)


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

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Advance the rules by `events` and append what follows from them."""
        types = await _asset_types(connection, ledger, events)
        memories = await _load_memories(connection, ledger.ledger_id, types)
        touched: set[tuple[str, str]] = set()
        for number, event in enumerate(events):
            if number % EVENTS_AT_ONCE == 0:
                await asyncio.sleep(0)
            asset_id = event.stream.partition(":")[2]
            described = types.get(asset_id)
            if not event.is_frame or described is None:
                continue
            for rule in described.alert_rules:
                memory = memories.get((asset_id, rule.name), _Memory())
                memory = await _advance(ledger, event, asset_id, described, rule, memory)
                memories[asset_id, rule.name] = memory
                touched.add((asset_id, rule.name))
        await _store_memories(
            connection, ledger.ledger_id, {key: memories[key] for key in sorted(touched)}
        )


async def _advance(
    ledger: Ledger,
    event: RecordedEvent,
    asset_id: str,
    described: AssetType,
    rule: AlertRule,
    memory: _Memory,
) -> _Memory:
    frame = event.frame
    for index, header in enumerate(frame.header.channels):
        if header.name != rule.channel:
            continue
        good = frame.qualities[index] == Quality.GOOD
        state, transitions = advance(
            rule,
            described.channel(rule.channel),
            memory.state,
            frame.channel_times_ns(index)[good],
            frame.channel_si(index)[good],
        )
        memory = replace(memory, state=state)
        for transition in transitions:
            memory = await _command(ledger, event, asset_id, rule, memory, transition)
    return memory


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
    connection: Connection, ledger_id: int, types: dict[str, AssetType]
) -> dict[tuple[str, str], _Memory]:
    rows = await connection.fetch(
        "select asset_id, rule, alert_id, state from alert_policy_rule "
        "where ledger_id = $1 and asset_id = any($2)",
        ledger_id,
        list(types),
    )
    return {
        (row["asset_id"], row["rule"]): _Memory(unpack_state(row["state"]), row["alert_id"])
        for row in rows
    }


async def _store_memories(
    connection: Connection, ledger_id: int, memories: dict[tuple[str, str], _Memory]
) -> None:
    await connection.execute(
        """
        insert into alert_policy_rule (ledger_id, asset_id, rule, alert_id, state)
        select $1, * from unnest($2::text[], $3::text[], $4::uuid[], $5::bytea[])
        on conflict (ledger_id, asset_id, rule) do update set
            alert_id = excluded.alert_id, state = excluded.state
        """,
        ledger_id,
        [asset_id for asset_id, _ in memories],
        [rule for _, rule in memories],
        [memory.alert_id for memory in memories.values()],
        [pack_state(memory.state) for memory in memories.values()],
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
    columns = b"".join(
        column.tobytes()
        for seconds in (state.history, state.open)
        for column in (seconds.second, seconds.total, seconds.count)
    )
    return head + zlib.compress(columns, 1)


def unpack_state(packed: bytes) -> RuleState:
    """Return the state that `pack_state` made `packed` from."""
    version, pending, raised, clearing, baseline, *lengths = _STATE.unpack_from(packed)
    if version != STATE_VERSION:
        raise InvalidInput(
            "alert_policy.state_version",
            f"rule state version {version} is not known; this policy knows {STATE_VERSION}",
            value=version,
            limit=STATE_VERSION,
        )
    columns = np.frombuffer(zlib.decompress(packed[_STATE.size :]), np.int64)
    parts = []
    for length in lengths:
        parts.append(Seconds(*(columns[n * length : (n + 1) * length] for n in range(3))))
        columns = columns[3 * length :]
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
