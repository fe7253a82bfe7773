"""`heddle log` on a real log: filters, ends, times, following, and readers that go away."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import typer
from typer.testing import CliRunner

from api.log_cli import moment_of, register
from domain.errors import HeddleError, InvalidInput
from domain.frame_decoding import decode
from eventlog.database import create_pool
from eventlog.ledger import Ledger
from tests.database import new_database
from tests.eventlog.new_events import fact, frame_event, frame_of, opened
from tests.recordings import REPOSITORY

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIZE = 45
"""Events of the log: one a minute; every ninth a frame, every fifth of another asset."""

PATIENCE_S = 60


@pytest.fixture(scope="module")
def log_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a database whose log the tests of this file share and do not change."""
    with new_database(postgres_url, "heddle_log_cli", template=template_database) as url:
        asyncio.run(_fill(url))
        yield url


async def _fill(url: str) -> None:
    pool = await create_pool(url)
    now = START
    ledger = await Ledger.open(pool, "plant-1", clock=lambda: now)
    for n in range(1, SIZE + 1):
        now = START + n * timedelta(minutes=1)
        if n % 9 == 0:
            await ledger.append([frame_event(frame_of(n))])
        else:
            await ledger.append([fact(n, stream=f"asset:loop-{1 + (n % 5 == 0)}")])
    await ledger.close()
    await pool.close()


def environment(url: str) -> dict[str, str]:
    return {"HEDDLE_DATABASE_URL": url, "HEDDLE_LEDGER": "plant-1"}


def run(url: str, *arguments: str) -> str:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, arguments, env=environment(url))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def documents(url: str, *arguments: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in run(url, *arguments, "--json").splitlines()]


def positions(url: str, *arguments: str) -> list[int]:
    return [document["position"] for document in documents(url, *arguments)]


ALL = list(range(1, SIZE + 1))
FRAMES = [n for n in ALL if n % 9 == 0]
SECOND = [n for n in ALL if n % 5 == 0 and n % 9]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ALL[-20:]),
        (("-n", "3"), ALL[-3:]),
        (("-n", "0"), []),
        (("-n", "10000"), ALL),
        (("--after", "40"), ALL[40:]),
        (("--from", "40"), ALL[39:]),
        (("--from", "40", "--after", "42"), ALL[42:]),
        (("--after", "0"), ALL),
        (("--after", "45"), []),
        (("--after", "1000"), []),
        (("--from", "1"), ALL),
        (("--from", "3", "-n", "2"), ALL[-2:]),
        (("--from", "45", "-n", "2"), ALL[-1:]),
        (("--type", "asset.frame_recorded"), FRAMES),
        (("--type", "asset.frame_recorded", "-n", "2"), FRAMES[-2:]),
        (("--type", "asset.retired"), []),
        (("--stream", "asset:loop-2", "--from", "1"), SECOND),
        (("--stream", "asset:loop-2", "--stream", "telemetry:loop-1", "-n", "5"),
         sorted(SECOND + FRAMES)[-5:]),
        (("--category", "telemetry", "--after", "9"), FRAMES[1:]),
        (("--category", "asset", "--type", "asset.frame_recorded", "--from", "1"), []),
        (("--since", "2026-03-01T12:40:00Z"), ALL[39:]),
        (("--since", "2026-03-01T13:40:00+01:00", "-n", "2"), ALL[-2:]),
        (("--since", "2026-03-01T12:40:00.000001Z"), ALL[40:]),
        (("--from", "1", "--until", "2026-03-01T12:05:00Z"), ALL[:5]),
        (("--until", "2026-03-01T12:05:00Z", "-n", "2"), [4, 5]),
        (("--since", "2026-03-01T12:04:00Z", "--until", "2026-03-01T12:05:30Z"), [4, 5]),
        (("--since", "1h"), []),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_shown_oldest_first(
    log_url: str, arguments: tuple[str, ...], found: list[int]
) -> None:
    assert positions(log_url, *arguments) == found


def test_many_pages_are_shown_once_and_in_order(
    log_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.log_cli.PAGE_EVENTS", 4)
    assert positions(log_url, "--from", "1") == ALL
    assert positions(log_url, "-n", "30") == ALL[-30:]
    monkeypatch.setattr("eventlog.reading.SCANNED_EVENTS_MAX", 3)
    assert positions(log_url, "--from", "1", "--type", "asset.frame_recorded") == FRAMES
    assert positions(log_url, "-n", "3", "--type", "asset.frame_recorded") == FRAMES[-3:]


def test_a_line_of_json_is_the_envelope_and_the_fact(log_url: str) -> None:
    (document,) = documents(log_url, "--from", "44", "-n", "2", "--until", "2026-03-01T12:44:00Z")
    event = fact(44)
    assert document == {
        "ledger": "plant-1",
        "position": 44,
        "stream": "asset:loop-1",
        "version": document["version"],
        "type": "asset.setpoint_reported",
        "schema_version": 1,
        "event_id": str(event.event_id),
        "occurred_at": "2020-03-09T10:34:33.123456Z",
        "recorded_at": "2026-03-01T12:44:00.000000Z",
        "actor": "user:mara",
        "correlation_id": None,
        "causation_id": None,
        "traceparent": None,
        "source": None,
        "sequence": None,
        "payload_sha256": event.payload_sha256.hex(),
        "leaf_hash": document["leaf_hash"],
        "payload_tier": "row",
        "fact": {"asset_id": "loop-1", "setpoint": "44", "value": 1.0},
        "frame": None,
    }
    assert re.fullmatch("[0-9a-f]{64}", document["leaf_hash"])


def test_a_line_of_json_outlines_a_frame_and_holds_its_payload_where_asked(log_url: str) -> None:
    (document,) = documents(log_url, "--type", "asset.frame_recorded", "-n", "1")
    assert document["fact"] is None
    assert document["frame"] == {
        "window_start": "1970-01-01T00:00:00.000000Z",
        "window_end": "1970-01-01T00:00:00.000004Z",
        "reading_count": 5,
        "channels": ["supply_voltage"],
        "time": None,
    }
    assert (document["source"], document["sequence"]) == ("agent:agent-1", 45)
    assert "payload" not in document
    (document,) = documents(log_url, "--type", "asset.frame_recorded", "-n", "1", "--payloads")
    assert decode(base64.b64decode(document["payload"])).sequence == 45


def test_lines_for_people_are_aligned_and_short(log_url: str) -> None:
    fact_line, frame_line = run(log_url, "--from", "44").splitlines()
    assert fact_line.startswith("      44  2026-03-01 12:44:00.000Z  asset.setpoint_reported ")
    assert fact_line.endswith('{"asset_id":"loop-1","setpoint":"44","value":1.0}  by user:mara')
    assert "5 readings of 1 channel (supply_voltage) over 4e-06 s from 1970-01-01" in frame_line
    assert fact_line.index("{") == frame_line.index("5 readings")
    assert "\x1b" not in fact_line + frame_line


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--since", "yesterday"), "time.malformed"),
        (("--since", "2026-03-01T12:40:00"), "event.naive_time"),
        (("--until", "5w"), "time.malformed"),
        (("--since", "9999999999d"), "time.malformed"),
        (("--follow", "--until", "1h"), "log.follow_until"),
        (("--ledger", "plant-9"), "ledger.unknown"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_code(
    log_url: str, arguments: tuple[str, ...], code: str
) -> None:
    with pytest.raises(HeddleError) as refused:
        run(log_url, *arguments)
    assert refused.value.code == code


def test_asking_for_a_ledger_does_not_make_it(log_url: str) -> None:
    async def ledgers() -> int:
        pool = await create_pool(log_url)
        try:
            count: int = await pool.fetchval("select count(*) from ledger")
            return count
        finally:
            await pool.close()

    with pytest.raises(HeddleError):
        run(log_url, "--ledger", "plant-9")
    assert asyncio.run(ledgers()) == 1


def test_a_time_may_be_told_by_how_long_ago() -> None:
    for text, ago in (("90s", 90), ("15m", 900), ("6h", 21_600), ("2d", 172_800)):
        assert moment_of(text, START) == START - timedelta(seconds=ago)
    with pytest.raises(InvalidInput):
        moment_of("999999999d", START)


def test_a_database_without_tables_says_what_to_do(empty_database_url: str) -> None:
    with pytest.raises(HeddleError) as refused:
        run(empty_database_url)
    assert (refused.value.code, "heddle migrate" in refused.value.hint) == (
        "database.old_schema",
        True,
    )


# --- as a process -------------------------------------------------------------------------


def start(url: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    # Where the tests run in the background of a shell, they and theirs would ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", "log", *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment(url),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_following_shows_each_event_as_it_is_recorded_until_interrupted(database_url: str) -> None:
    async def append(*labels: int) -> None:
        async with opened(database_url) as ledger:
            for label in labels:
                await ledger.append([fact(label, stream=f"asset:loop-{label % 2}")])

    asyncio.run(append(1, 2, 3))
    arguments = ("--follow", "--json", "-n", "1", "--stream", "asset:loop-1")
    with start(database_url, *arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert json.loads(process.stdout.readline())["position"] == 3
            asyncio.run(append(4, 5, 6, 7))
            assert json.loads(process.stdout.readline())["position"] == 5
            assert json.loads(process.stdout.readline())["position"] == 7
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
            assert process.stdout.read() == ""
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_quietly(database_url: str) -> None:
    async def fill() -> None:
        async with opened(database_url) as ledger:
            for start in range(0, 4_000, 1_000):
                await ledger.append([fact(start + n) for n in range(1_000)])

    asyncio.run(fill())
    with start(database_url, "--from", "1", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert "asset.setpoint_reported" in process.stdout.readline()
            process.stdout.close()
            assert process.wait(PATIENCE_S) == 141
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_lines_are_coloured_and_cut_to_its_width(
    log_url: str, no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    ours, its = pty.openpty()
    with start(log_url, "-n", "1", "--stream", "asset:loop-1", stdout=its) as process:
        os.close(its)
        shown = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                while part := terminal.read(4096):
                    shown += part
            except OSError:
                pass  # how Linux says that the other end was closed
        assert process.wait(PATIENCE_S) == 0
    line = shown.decode().rstrip("\r\n")
    assert ("\x1b[" in line) is not no_color
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
    assert len(plain) == 120
    assert plain.endswith("…")
