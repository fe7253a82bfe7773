"""`heddle rebuild` and `heddle check`, as somebody would type them."""

from __future__ import annotations

import asyncio
import json

import pytest
import typer
from typer.testing import CliRunner, Result

from api.app import projections
from api.projections_cli import register
from domain.errors import InvalidInput, NotFound
from projections.running.projection import Policy
from projections.twins.projection import TwinProjection
from tests.database import as_superuser, execute
from tests.eventlog.new_events import fact, opened
from tests.projections.loop_frames import PATIENCE_S, running
from tests.projections.loop_frames import register as register_asset

ASSETS = 3


@pytest.fixture
def folded_url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a database whose assets every projection has folded."""

    async def fill() -> None:
        async with opened(database_url) as ledger:
            for n in range(1, ASSETS + 1):
                await register_asset(ledger, f"loop-{n}")
            await ledger.append([fact(n) for n in range(5)])
            async with running(ledger, database_url, *projections()) as runners:
                for runner in runners:
                    await runner.wait_for(await ledger.head(), PATIENCE_S)

    asyncio.run(fill())
    monkeypatch.setenv("HEDDLE_DATABASE_URL", database_url)
    return database_url


def run(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def documents(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_projection_is_as_the_log_says(folded_url: str) -> None:
    result = run("check", "--json")
    assert result.exit_code == 0, result.output
    found = documents(result)
    rebuildable = [p.name for p in projections() if not isinstance(p, Policy)]
    assert [document["projection"] for document in found] == rebuildable
    assert {document["equal"] for document in found} == {True}


def test_every_projection_can_be_rebuilt_and_is_as_it_was(folded_url: str) -> None:
    before = documents(run("check", "--json"))
    for projection in projections():
        if isinstance(projection, Policy):
            continue
        result = run("rebuild", projection.name, "--json")
        assert result.exit_code == 0, result.output
    assert documents(run("check", "--json")) == before


def test_a_row_changed_by_hand_is_told_of_and_repaired(folded_url: str) -> None:
    execute(
        as_superuser(folded_url),
        "update twin_asset set title = 'Loop of nobody' where asset_id = 'loop-2'",
    )
    result = run("check", TwinProjection.name)
    assert result.exit_code == 1
    assert "twins version" in result.stdout
    assert "DIFFERS" in result.stdout
    assert "loop-2" in result.stdout
    assert "Loop of nobody" in result.stdout
    assert "loop-3" not in result.stdout
    result = run("rebuild", TwinProjection.name)
    assert result.exit_code == 0
    assert "is in place (plant-1 at 8), 8 events in" in result.stdout
    assert run("check", TwinProjection.name).exit_code == 0


def test_an_unknown_projection_is_refused_with_the_known_ones(folded_url: str) -> None:
    for command in ("rebuild", "check"):
        error = run(command, "twins-of-nobody").exception
        assert isinstance(error, NotFound)
        assert (error.code, error.value) == ("projection.unknown", "twins-of-nobody")
        assert "rollups" in error.hint


def test_a_policy_is_refused(folded_url: str) -> None:
    for command in ("rebuild", "check"):
        error = run(command, "alert-policy").exception
        assert isinstance(error, InvalidInput)
        assert error.code == "projection.is_policy"


def test_a_ledger_that_is_not_there_is_not_made(folded_url: str) -> None:
    error = run("check", "twins", "--ledger", "plant-7").exception
    assert isinstance(error, NotFound)
