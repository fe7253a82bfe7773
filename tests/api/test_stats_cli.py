"""`heddle stats` against a log whose every figure is known, counted whole and estimated."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.stats_cli import register
from domain.errors import NotFound
from eventlog.ledger import IdempotencyKey
from eventlog.ledger_statistics import drawn_positions
from tests.database import as_superuser, execute
from tests.eventlog.new_events import fact, frame_event, frame_of, opened
from tests.eventlog.signing import signer_for

FACTS, FRAMES, READINGS = 60, 20, 7


@pytest.fixture
def filled(database_url: str, tmp_path: Path) -> str:
    """URL of a database with facts, frames, keys, a checkpoint, and a second, empty ledger."""

    async def fill() -> None:
        async with opened(database_url, "plant-2"):
            pass
        async with opened(database_url) as ledger:
            for n in range(FACTS):
                key = IdempotencyKey.of(f"k{n}", b"") if n % 4 == 0 else None
                await ledger.append([fact(n, stream=f"asset:loop-{n % 3}")], idempotency=key)
            await signer_for(ledger, tmp_path).sign()
            for n in range(1, FRAMES + 1):
                await ledger.append([frame_event(frame_of(n, length=READINGS))])
            await ledger.pool.execute(
                "insert into projection_checkpoint values "
                "($1, 'twins', 1, 75), ($1, 'twins', 2, 80), ($1, 'alerts', 1, 0)",
                ledger.ledger_id,
            )

    asyncio.run(fill())
    return database_url


def run(url: str, *arguments: str) -> str:
    app = typer.Typer()
    register(app)
    environment = {"HEDDLE_DATABASE_URL": url}
    result = CliRunner().invoke(app, arguments, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def document(url: str, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(url, *arguments, "--json"))
    return found


def test_every_figure_of_a_small_log_is_exact(filled: str) -> None:
    found = document(filled)
    first, second = found["ledgers"]
    assert (first["ledger"], second["ledger"]) == ("plant-1", "plant-2")
    assert (first["position"], first["exact"], first["sampled_events"]) == (80, True, 80)
    assert first["streams"] == 4
    assert first["categories"] == [
        {"category": "asset", "streams": 3, "events": FACTS},
        {"category": "telemetry", "streams": 1, "events": FRAMES},
    ]
    assert first["types"] == [
        {"type": "asset.setpoint_reported", "events": FACTS, "standard_error": 0.0},
        {"type": "asset.frame_recorded", "events": FRAMES, "standard_error": 0.0},
    ]
    assert (first["frames"], first["readings"]) == (FRAMES, FRAMES * READINGS)
    stored = [frame_event(frame_of(n, length=READINGS)) for n in range(1, FRAMES + 1)]
    of_frames = sum(len(event.payload) for event in stored)
    of_facts = sum(len(fact(n).payload) for n in range(FACTS))
    assert first["payload_bytes"] == of_frames + of_facts
    assert first["payload_bytes_per_reading"] == round(of_frames / (FRAMES * READINGS), 3)
    assert first["payload_tiers"] == {"row": 80, "archive": 0, "erased": 0}
    assert first["archive"] == {"files": 0, "bytes": 0, "frames": 0}
    assert first["idempotency_keys"] == FACTS / 4
    assert first["idempotency_keys_more"] is False
    checkpoint = first["checkpoint"]
    assert (checkpoint["size"], checkpoint["unsigned_events"], checkpoint["kept"]) == (60, 20, 1)
    assert checkpoint["signed_at"] == "2026-03-01T12:00:00.000000Z"
    assert checkpoint["age_s"] > 0
    assert [(p["projection"], p["version"], p["lag"]) for p in first["projections"]] == [
        ("alerts", 1, 80),
        ("twins", 1, 5),
        ("twins", 2, 0),
    ]
    assert (second["position"], second["types"], second["checkpoint"]) == (0, [], None)
    assert second["payload_bytes_per_reading"] is None


def test_sizes_on_disk_add_up_to_what_postgresql_says(filled: str) -> None:
    found = document(filled)
    tables = {table["table"]: table for table in found["tables"]}
    assert {"event", "stream_head", "event_identity", "checkpoint", "tile"} <= set(tables)
    assert not [name for name in tables if name.startswith("event_p0")]
    parts = ("row_bytes", "overflow_bytes", "index_bytes")
    for table in tables.values():
        assert table["bytes"] == sum(table[part] for part in parts)
    assert tables["event"]["index_bytes"] > 0
    assert sum(table["bytes"] for table in tables.values()) < found["database_bytes"]


def test_a_payload_that_left_its_row_is_counted_where_it_is(filled: str) -> None:
    execute(
        as_superuser(filled),
        "update event set payload = null, payload_tier = 1 where window_end_ns is not null "
        "and position % 2 = 0",
    )
    (first, _) = document(filled)["ledgers"]
    assert first["payload_tiers"] == {"row": 70, "archive": 10, "erased": 0}
    assert (first["frames"], first["readings"]) == (FRAMES, FRAMES * READINGS)
    left = [frame_event(frame_of(n, length=READINGS)) for n in range(1, FRAMES + 1, 2)]
    per_reading = sum(len(event.payload) for event in left) / (10 * READINGS)
    assert first["payload_bytes_per_reading"] == round(per_reading, 3)


def test_a_long_log_is_estimated_from_a_sample_and_says_so(
    filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.ledger_statistics.SAMPLED_EVENTS", 40)
    (first, _) = document(filled)["ledgers"]
    assert (first["exact"], first["sampled_events"], first["position"]) == (False, 40, 80)
    # One of each two positions is drawn: 60 facts and 20 frames are halves, to the event.
    assert {t["type"]: t["events"] for t in first["types"]} == {
        "asset.setpoint_reported": FACTS,
        "asset.frame_recorded": FRAMES,
    }
    assert first["types"][0]["standard_error"] > 0
    assert first["readings"] == FRAMES * READINGS
    assert "~60" in run(filled, "--ledger", "plant-1")
    (exact, _) = document(filled, "--exact")["ledgers"]
    assert (exact["exact"], exact["frames"]) == (True, FRAMES)
    monkeypatch.setattr("eventlog.ledger_statistics.KEYS_COUNTED_MAX", 10)
    (bounded, _) = document(filled)["ledgers"]
    assert (bounded["idempotency_keys"], bounded["idempotency_keys_more"]) == (10, True)


def test_positions_are_drawn_evenly_and_the_same_again() -> None:
    drawn = drawn_positions(1_000_003, 1_000)
    assert list(drawn) == list(drawn_positions(1_000_003, 1_000))
    assert len(drawn) == 1_000
    for n, position in enumerate(drawn):
        assert n * 1_000_003 // 1_000 < position <= (n + 1) * 1_000_003 // 1_000
    assert {position % 2 for position in drawn} == {0, 1}


def test_lines_for_people_name_every_figure(filled: str) -> None:
    shown = run(filled)
    for text in (
        "ledger plant-1: 80 events on 4 streams, the last recorded at 20",
        "  asset.frame_recorded         20",
        "frames: 20 with 140 readings",
        "payloads by tier: row 80, archive 0, erased 0",
        "idempotency keys: 15",
        "checkpoint: 60 events signed",
        "20 not signed yet",
        "ledger plant-2: 0 events on 0 streams",
        "checkpoint: none was signed yet",
        "on disk: ",
    ):
        assert text in shown
    assert "~" not in shown.partition("on disk")[0]


def test_an_unknown_ledger_is_refused_with_those_there_are(filled: str) -> None:
    with pytest.raises(NotFound) as refused:
        run(filled, "--ledger", "plant-9")
    assert (refused.value.code, refused.value.hint) == (
        "ledger.unknown",
        "known are plant-1, plant-2",
    )
