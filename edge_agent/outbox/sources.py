"""How far each source got: rows of an outbox, written within its transactions."""

from __future__ import annotations

import json
from collections.abc import Iterable

from domain.errors import InvalidInput
from edge_agent.outbox.records import SourceState
from edge_agent.outbox.store import Store
from edge_agent.readings import Position


def adopt_recording(store: Store, source: str, parts: list[str]) -> None:
    """Make a recording known.

    Raises
    ------
    InvalidInput
        ``source.parts_changed`` when the parts it has read are other ones now
    """
    known = store.rows(
        "SELECT parts, max(coalesce(part, -1), noted_part) + 1 FROM source WHERE name = ?", source
    )
    if not known or known[0][0] is None:
        store.execute("INSERT INTO source (name, parts) VALUES (?, ?)", source, json.dumps(parts))
        return
    known_parts, begun_count = json.loads(known[0][0]), known[0][1]
    if known_parts == parts:
        return
    if known_parts[:begun_count] != parts[:begun_count]:
        raise InvalidInput(
            "source.parts_changed",
            f"source {source!r} has read {known_parts[:begun_count]}; its configuration now "
            f"begins with {parts[:begun_count]}",
            hint="append new files at the end, or give the source another name",
            value=source,
        )
    store.execute(
        "UPDATE source SET parts = ?, ended = 0, live = 0 WHERE name = ?", json.dumps(parts), source
    )


def adopt_live(store: Store, source: str, asset: str) -> None:
    """Make a live source of `asset` known."""
    store.execute(
        "INSERT INTO source (name, parts, asset, live) VALUES (?, '[]', ?, 1) "
        "ON CONFLICT DO UPDATE SET asset = excluded.asset, live = 1",
        source,
        asset,
    )


def source_state(store: Store, source: str) -> SourceState:
    """Return how far `source` got."""
    part, row, time_ns, anchor_ns, first_ns, ended, kept_by = store.rows(
        "SELECT part, row, time_ns, anchor_ns, first_ns, ended, kept_by FROM source WHERE name = ?",
        source,
    )[0]
    position = None if part is None else Position(part, row, time_ns)
    return SourceState(position, anchor_ns, first_ns, bool(ended), kept_by)


def anchor(store: Store, source: str, anchor_ns: int, first_ns: int) -> None:
    """Keep when the first row of a replay was due."""
    store.execute(
        "UPDATE source SET anchor_ns = ?, first_ns = ? WHERE name = ?", anchor_ns, first_ns, source
    )


def note_kept_by(store: Store, source: str, kept_by: str) -> None:
    """Keep who keeps for a live source what comes while nobody listens."""
    store.execute("UPDATE source SET kept_by = ? WHERE name = ?", kept_by, source)


def end(store: Store, source: str) -> None:
    """Keep that a source was read to its end."""
    store.execute("UPDATE source SET ended = 1 WHERE name = ?", source)


def move(store: Store, positions: Iterable[tuple[str, Position]]) -> None:
    """Keep how far each source got, the last position of each."""
    store.execute_many(
        "UPDATE source SET part = ?, row = ?, time_ns = ? WHERE name = ?",
        [(one.part, one.row, one.time_ns, source) for source, one in positions],
    )
