"""What the outbox tells of the agent and its sources."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from edge_agent.outbox.commands import Commands
from edge_agent.outbox.faults import Faults
from edge_agent.outbox.losses import Losses
from edge_agent.outbox.records import OutboxStatus, SourceStatus
from edge_agent.outbox.store import Store


def outbox_status(
    store: Store, commands: Commands, losses: Losses, stored_bytes: int | None = None
) -> OutboxStatus:
    """Return what there is to tell.

    Parameters
    ----------
    stored_bytes : as the running agent counts them, frames put aside included; None adds up those
        that wait, which reads the whole file
    """
    agent = store.rows(
        "SELECT name, last_sequence, acknowledged_sequence, acknowledged_position, run_s FROM agent"
    )
    name, last, acknowledged, position, run_s = agent[0] if agent else ("", 0, 0, 0, 0.0)
    frames = store.value("SELECT count(*) FROM pending")
    size = stored_bytes
    if size is None:
        size = store.value("SELECT coalesce(sum(length(frame)), 0) FROM pending")
    oldest_s = store.value("SELECT kept_at_s FROM pending ORDER BY sequence LIMIT 1")
    # Before the commands are counted: what leaves here meanwhile is among those.
    pending_losses = store.value("SELECT count(*) FROM loss")
    lost, loss_counts = losses.totals()
    faults, refused_count = Faults(store).totals()
    by_reason: Counter[str] = Counter()
    for counts in lost.values():
        by_reason.update(counts)
    return OutboxStatus(
        agent=name,
        last_sequence=last,
        acknowledged_sequence=acknowledged,
        acknowledged_position=position,
        pending_frames=frames,
        pending_bytes=size,
        rejected_counts=dict(
            store.rows("SELECT code, count(*) FROM rejected GROUP BY code ORDER BY code")
        ),
        refused_row_count=refused_count,
        sources=tuple(_sources(store, faults, lost)),
        oldest_pending_s=0.0 if oldest_s is None else max(0.0, round(run_s - oldest_s, 3)),
        pending_commands=store.value("SELECT count(*) FROM command"),
        rejected_command_counts=commands.rejected_counts(),
        lost_counts=dict(by_reason),
        loss_counts=loss_counts,
        pending_losses=pending_losses,
    )


def _sources(
    store: Store, faults: dict[str, dict[str, int]], lost: dict[str, dict[str, int]]
) -> Iterator[SourceStatus]:
    waiting = dict(store.rows("SELECT source, count(*) FROM pending GROUP BY source"))
    for name, parts, part, row, time_ns, ended, live, asset in store.rows(
        "SELECT name, parts, part, row, time_ns, ended, live, asset FROM source ORDER BY name"
    ):
        names = json.loads(parts)
        yield SourceStatus(
            name=name,
            part=names[part] if part is not None and part < len(names) else "",
            row=row,
            time_ns=time_ns,
            ended=bool(ended),
            fault_counts=faults.get(name, {}),
            live=bool(live),
            asset=asset,
            pending_frames=waiting.get(name, 0),
            lost_counts=lost.get(name, {}),
        )
