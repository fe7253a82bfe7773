"""`heddle archive`, `compact`, `erase` and `verify` as somebody types them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.archive_cli import duration, register
from api.transparency_cli import register as register_transparency
from domain.errors import HeddleError, InvalidInput
from eventlog.ledger import Ledger
from tests.eventlog.archived import erase_positions, everything, record, tiers
from tests.eventlog.new_events import fact, frame_of, opened


class Shell:
    """A person at a machine whose settings name the test's database."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.database_url = database_url
        self.archive = folder / "archive"
        self._environment = {
            "HEDDLE_DATABASE_URL": database_url,
            "HEDDLE_DATA_DIR": str(folder),
            "HEDDLE_ARCHIVE_URL": "",
        }
        self._app = typer.Typer()
        register(self._app)
        register_transparency(self._app)

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        """Run a command and return the document it prints."""
        result = CliRunner().invoke(self._app, [*arguments, "--json"], env=self._environment)
        if isinstance(result.exception, HeddleError):
            raise result.exception
        assert result.exit_code == code, result.output
        return json.loads(result.stdout.splitlines()[-1])

    def text(self, *arguments: str) -> str:
        """Run a command and return the lines it prints."""
        result = CliRunner().invoke(self._app, arguments, env=self._environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    def log(self, work: Callable[[Ledger], Awaitable[Any]]) -> Any:
        """Do `work` on the log."""

        async def run() -> Any:
            async with opened(self.database_url) as ledger:
                return await work(ledger)

        return asyncio.run(run())


@pytest.fixture
def heddle(database_url: str, tmp_path: Path) -> Shell:
    """A log of two facts and six frames."""

    async def fill(ledger: Ledger) -> None:
        await ledger.append([fact(1, stream="part:SN-1"), fact(2)])
        await record(ledger, [frame_of(n, start_ns=n * 10**9) for n in range(1, 7)])

    shell = Shell(database_url, tmp_path)
    shell.log(fill)
    return shell


def test_payloads_are_archived_verified_and_read_on(heddle: Shell) -> None:
    assert heddle("archive")["windows"] == 0  # thirty days, unless said otherwise
    told = heddle("archive", "--older-than", "0")
    assert (told["windows"], told["readings"], told["files"]) == (6, 30, 1)
    assert told["archive"] == heddle.archive.as_uri()
    assert [p.suffix for p in heddle.archive.rglob("*") if p.is_file()] == [".parquet"]
    report = heddle("verify")
    assert (report["clean"], report["payloads"], report["payloads_archived"]) == (True, 8, 6)
    report = heddle("verify", "--skip-archive")
    assert (report["clean"], report["payloads"], report["payloads_archived"]) == (True, 2, 6)
    assert len([e.frame for e in heddle.log(everything) if e.is_frame]) == 6


def test_files_are_compacted_and_strays_removed(heddle: Shell, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"

    async def more(ledger: Ledger) -> None:
        await record(ledger, [frame_of(n, start_ns=n * 10**9) for n in range(7, 9)])

    heddle("archive", "--older-than", "0s", "--to", str(elsewhere))
    heddle.log(more)
    heddle("archive", "--older-than", "0s", "--to", f"file://{elsewhere}")
    told = heddle("compact", "--to", str(elsewhere))
    assert (told["files_before"], told["files_after"], told["windows"]) == (2, 1, 8)
    stray = elsewhere / "ledger=plant-1" / "stray.parquet"
    stray.write_bytes(b"")
    assert heddle("archive", "--to", str(elsewhere))["strays_removed"] == []
    told = heddle("archive", "--to", str(elsewhere), "--remove-strays")
    assert told["strays_removed"] == ["ledger=plant-1/stray.parquet"]
    assert not stray.exists()
    assert heddle("verify")["clean"]


def test_payloads_are_erased_with_reason_and_actor(heddle: Shell) -> None:
    heddle("archive", "--older-than", "0")
    by = ("--reason", "consent withdrawn", "--actor", "user:dpo")
    told = heddle("erase", "1", "4", *by, "--legal-basis", "GDPR 17(1)(b)")
    assert (told["erased"], told["recorded_at"]) == (2, [9])
    told = heddle("erase", "--stream", "part:SN-1", *by)
    assert (told["erased"], told["erased_before"]) == (0, 1)
    report = heddle("verify")
    assert report["clean"]
    assert [(e["position"], e["erased_by"]) for e in report["erased"]] == [(1, 9), (4, 9)]
    assert "event 4 (telemetry:loop-1): erased by event 9" in heddle.text("verify")
    assert heddle("erase", "--finish")["finished"] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("1",), "erasure.text"),
        (("1", "--reason", "x"), "erasure.text"),
        (("--reason", "x", "--actor", "y"), "erasure.nothing"),
        (("1", "--stream", "part:SN-1", "--reason", "x", "--actor", "y"), "erasure.nothing"),
        (("99", "--reason", "x", "--actor", "y"), "erasure.no_such_event"),
        (("--stream", "part:SN-9", "--reason", "x", "--actor", "y"), "stream.unknown"),
    ],
)
def test_an_erasure_that_cannot_be_is_refused(
    heddle: Shell, arguments: tuple[str, ...], code: str
) -> None:
    with pytest.raises(HeddleError) as refused:
        heddle("erase", *arguments)
    assert refused.value.code == code
    assert set(heddle.log(tiers).values()) == {0}


def test_an_unfinished_erasure_is_finished(heddle: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: object) -> int:
        return 0

    with monkeypatch.context() as patched:
        patched.setattr("eventlog.erasure.finish_erasures", never)
        heddle.log(lambda ledger: erase_positions(ledger, 2))
    assert heddle("verify", code=1)["findings"][0]["code"] == "event.erasure_unfinished"
    assert heddle("erase", "--finish")["finished"] == 1
    assert heddle("verify")["clean"]


def test_a_duration_is_a_number_and_its_unit() -> None:
    assert duration("30d") == timedelta(days=30)
    assert duration("12h") == timedelta(hours=12)
    assert duration("90m") == timedelta(minutes=90)
    assert duration("45s") == timedelta(seconds=45)
    assert duration("0") == timedelta(0)
    for text in ("", "30", "-1d", "d", "1.5h", "1w", "99999d"):
        with pytest.raises(InvalidInput) as refused:
            duration(text)
        assert refused.value.code == "archive.retention"
