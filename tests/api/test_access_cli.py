"""`heddle key` and `heddle token`, as somebody would type them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from api.access.authentication import Authenticator
from api.access.rights import Role
from api.access_cli import register
from api.settings import ServerSettings
from domain.errors import HeddleError, InvalidInput, NotFound
from tests.conftest import LEDGER
from tests.eventlog.new_events import opened


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a database with an empty ledger, which the environment names."""

    async def make() -> None:
        async with opened(database_url):
            pass

    asyncio.run(make())
    monkeypatch.setenv("HEDDLE_DATABASE_URL", database_url)
    monkeypatch.setenv("HEDDLE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HEDDLE_LEDGER", LEDGER)
    return database_url


def run(*arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def listed() -> list[dict[str, Any]]:
    result = run("key", "list", "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def let_in(url: str, proof: str, **settings: Any) -> str:
    """Return whom a server lets in by `proof`, or the code that it refuses it with."""

    async def ask() -> str:
        async with opened(url) as ledger:
            given = ServerSettings.from_environment()
            server = Authenticator(
                ServerSettings(data_dir=given.data_dir, ledger=ledger.name, **settings), ledger
            )
            try:
                identity = await server.identify({"authorization": f"Bearer {proof}"}, "127.0.0.1")
            except HeddleError as error:
                return error.code
            return identity.actor

    return asyncio.run(ask())


def test_a_key_is_printed_once_lets_in_and_can_be_taken_back(url: str) -> None:
    made = run("key", "create", "gateway-1", "--role", "agent", "--asset", "a-1", "--days", "30")
    assert made.exit_code == 0, made.output
    (text,) = made.stdout.splitlines()
    assert let_in(url, text, api_keys=True) == "agent:gateway-1"
    (key,) = listed()
    assert text not in json.dumps(key)
    assert (key["state"], key["roles"], key["assets"]) == ("valid", ["agent"], ["a-1"])
    assert key["last_used_at"] is not None
    assert run("key", "list").exit_code == 0
    revoked = run("key", "revoke", key["key_id"], "--reason", "lost", "--json")
    assert json.loads(revoked.stdout) == {"key_id": key["key_id"], "revoked": True}
    again = run("key", "revoke", key["key_id"], "--reason", "lost", "--json")
    assert json.loads(again.stdout)["revoked"] is False
    assert let_in(url, text, api_keys=True) == "access.unauthenticated"
    assert listed()[0]["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (("key", "create", "x", "--role", "king"), InvalidInput, "role.unknown"),
        (("key", "create", "x y", "--role", "agent"), InvalidInput, "key.malformed_name"),
        (("key", "revoke", "nothing", "--reason", "x"), NotFound, "key.unknown"),
        (("key", "revoke", "nothing", "--reason", ""), InvalidInput, "key.reason"),
        (("key", "list", "--ledger", "nowhere"), NotFound, "ledger.unknown"),
        (("token", "--role", "king"), InvalidInput, "role.unknown"),
    ],
)
def test_what_makes_no_sense_is_told(
    url: str, arguments: tuple[str, ...], error: type[HeddleError], code: str
) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, error), result.output
    assert result.exception.code == code


def test_a_token_is_for_this_ledger_and_a_server_that_takes_such(url: str) -> None:
    result = run("token", "--role", Role.ENGINEER, "--actor", "jane", "--location", "site-1")
    assert result.exit_code == 0, result.output
    token = result.stdout.strip()
    assert let_in(url, token, dev_tokens=True) == "user:jane"
    assert let_in(url, token) == "access.unauthenticated"
    other = run("token", "--role", "viewer", "--ledger", "plant-9").stdout.strip()
    assert let_in(url, other, dev_tokens=True) == "access.unauthenticated"
