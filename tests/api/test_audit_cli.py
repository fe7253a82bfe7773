"""`heddle audit` on a real log: what it shows, as lines and as JSON, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import typer
from typer.testing import CliRunner

from api.audit_cli import register
from domain.errors import HeddleError
from domain.maintenance.work_order import Finding, WorkOrderPaused
from eventlog.database import create_pool
from eventlog.ledger import Ledger
from tests.database import new_database
from tests.projections.factory_facts import completed, correct, hour, requested, tell

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def log_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a database whose log the tests of this file share and do not change."""
    with new_database(postgres_url, "heddle_audit_cli", template=template_database) as url:
        asyncio.run(_fill(url))
        yield url


async def _fill(url: str) -> None:
    pool = await create_pool(url)
    now = START
    ledger = await Ledger.open(pool, "plant-1", clock=lambda: now)
    for n in range(1, 31):
        now = START + n * timedelta(minutes=1)
        await tell(ledger, *requested(f"WO-{n}"), hour(0), f"user:{n % 3}")
    now = START + timedelta(hours=1)
    await tell(ledger, *completed("WO-1"), hour(3), "user:mara")  # 31
    await correct(ledger, 31, completed("WO-1", Finding.NO_FAULT_FOUND)[1])  # 32
    await tell(ledger, "work-order:WO-2", WorkOrderPaused("WO-2", "a\x1b[31mb"), hour(3))  # 33
    await ledger.close()
    await pool.close()


def run(url: str, *arguments: str) -> str:
    app = typer.Typer()
    register(app)
    environment = {"HEDDLE_DATABASE_URL": url, "HEDDLE_LEDGER": "plant-1"}
    result = CliRunner().invoke(app, arguments, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def documents(url: str, *arguments: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in run(url, *arguments, "--json").splitlines()]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), list(range(33, 13, -1))),
        (("-n", "100"), list(range(33, 0, -1))),
        (("--actor", "user:mara"), [33, 31]),
        (("--actor", "user:0", "-n", "3"), [30, 27, 24]),
        (("--object", "work-order:WO-1"), [32, 31, 1]),
        (("--object", "work-order:WO-1", "--kind", "work_order.completed"), [31]),
        (("--kind", "record.corrected", "--kind", "work_order.paused"), [33, 32]),
        (("--until", "2026-03-01T12:02:00Z"), [2, 1]),
        (("--since", "2026-03-01T12:29:30Z", "--until", "2026-03-01T12:59:00Z"), [30]),
        (("--as-of", "31", "-n", "2"), [31, 30]),
        (("--as-of", "0"), []),
    ],
)
def test_what_is_asked_for_is_shown_newest_first(
    log_url: str, arguments: tuple[str, ...], found: list[int]
) -> None:
    assert [document["position"] for document in documents(log_url, *arguments)] == found


def test_many_pages_are_shown_once_and_in_order(
    log_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.audit_cli.PAGE_ENTRIES", 4)
    shown = [document["position"] for document in documents(log_url, "-n", "30")]
    assert shown == list(range(33, 3, -1))


def test_a_line_of_json_says_who_what_when_and_what_was_before(log_url: str) -> None:
    correction, entry = documents(log_url, "--object", "work-order:WO-1", "-n", "2")
    assert entry == {
        "position": 31,
        "event_id": entry["event_id"],
        "recorded_at": "2026-03-01T13:00:00.000000Z",
        "occurred_at": "2026-03-02T03:00:00.000000Z",
        "actor": "user:mara",
        "object": "work-order:WO-1",
        "kind": "work_order.completed",
        "words": (
            "Work order completed: finding FAILURE_CONFIRMED, failure mode bearing_wear, "
            "labour 1800 s, note done"
        ),
        "corrected_by": [32],
        "signatures": [],
        "change": None,
    }
    assert correction["change"] == {
        "corrected_position": 31,
        "previous_position": 31,
        "previous_erased": False,
        "reason": "it was written down wrong",
        "fields": {
            "failure_mode": {"previous": "bearing_wear", "now": None},
            "finding": {"previous": "FAILURE_CONFIRMED", "now": "NO_FAULT_FOUND"},
        },
    }


def test_lines_for_people_show_changes_below_and_marks_behind(log_url: str) -> None:
    correction, mode, finding, entry = run(
        log_url, "--object", "work-order:WO-1", "-n", "2"
    ).splitlines()
    assert entry.startswith("      31  2026-03-01 13:00:00.000Z  user:mara ")
    assert entry.endswith("note done [corrected by 32]")
    assert "Corrected 31: Work order completed: finding NO_FAULT_FOUND" in correction
    assert mode.strip() == 'failure_mode: "bearing_wear" -> nothing'
    assert finding.strip() == 'finding: "FAILURE_CONFIRMED" -> "NO_FAULT_FOUND"'


def test_what_an_event_says_cannot_move_the_cursor(log_url: str) -> None:
    line = run(log_url, "-n", "1")
    assert "\x1b" not in line
    assert r"a\x1b[31mb" in line


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--since", "yesterday"), "time.malformed"),
        (("--ledger", "plant-9"), "ledger.unknown"),
        (tuple(f"--actor=user:{n}" for n in range(51)), "filter.too_many"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_code(
    log_url: str, arguments: tuple[str, ...], code: str
) -> None:
    with pytest.raises(HeddleError) as refused:
        run(log_url, *arguments)
    assert refused.value.code == code
