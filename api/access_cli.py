"""`heddle key` and `heddle token`: who is let in, and as what.

Exit status: 0 when it is done, 2 for a failure told on stderr.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from domain.errors import InvalidInput

if TYPE_CHECKING:
    from api.access.keys import ApiKey
    from api.access.rights import Role
    from api.settings import ServerSettings
    from eventlog.ledger import Ledger

KEY_DAYS_MAX: Final = 3_650
TOKEN_HOURS: Final = 8.0

Roles = Annotated[
    list[str],
    typer.Option(
        "--role",
        help="What it is: viewer, operator, maintenance, quality, engineer, auditor, admin or "
        "agent. May be given several times.",
    ),
]
Locations = Annotated[
    list[str] | None,
    typer.Option("--location", help="A site or area that it sees; without it all of the ledger."),
]
LedgerName = Annotated[str | None, typer.Option("--ledger", help="HEDDLE_LEDGER without it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line.")]

keys = typer.Typer(name="key", help="API keys of agents and integrations.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(keys)
    app.command("token")(token)


# --- keys ---------------------------------------------------------------------------------


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Of an agent: its name, which its frames bear.")],
    role: Roles,
    location: Locations = None,
    asset: Annotated[
        list[str] | None, typer.Option("--asset", help="An asset that it speaks for.")
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=KEY_DAYS_MAX, help="It ends after so long.")
    ] = None,
    ledger: LedgerName = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it: once, for its secret is kept nowhere."""
    asyncio.run(_create(name, role, location, asset, days, ledger, as_json=as_json))


@keys.command("list")
def list_(ledger: LedgerName = None, as_json: AsJson = False) -> None:
    """List the keys, newest first: what they may, until when, and when they were last used."""
    asyncio.run(_list(ledger, as_json=as_json))


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `heddle key list` shows it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is written into the log.")],
    ledger: LedgerName = None,
    as_json: AsJson = False,
) -> None:
    """Have a key let nobody in any more, on every server within seconds."""
    asyncio.run(_revoke(key_id, reason, ledger, as_json=as_json))


async def _create(
    name: str,
    roles: Sequence[str],
    locations: Sequence[str] | None,
    assets: Sequence[str] | None,
    days: int | None,
    ledger_name: str | None,
    *,
    as_json: bool,
) -> None:
    from api.access.keys import create_key

    now = datetime.now(UTC)
    async with _opened(ledger_name) as (ledger, settings):
        text, key = await create_key(
            ledger,
            name=name,
            roles=_roles(roles),
            locations=locations or None,
            assets=assets or None,
            expires_at=None if days is None else now + timedelta(days=days),
            created_by=_who(),
            now=now,
        )
    if as_json:
        typer.echo(json.dumps({"key": text, **_told(key)}))
        return
    typer.echo(text)
    sys.stderr.write(
        f"key {key.key_id} lets in {key.acts_as} as {', '.join(sorted(key.roles))}; "
        "this is the only time that it is shown\n"
    )
    if not settings.api_keys:
        sys.stderr.write("servers ask for keys only with HEDDLE_API_KEYS=yes\n")


async def _list(ledger_name: str | None, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from api.access.keys import list_keys

    async with _opened(ledger_name) as (ledger, _):
        found = [_told(key) for key in await list_keys(ledger)]
    if as_json:
        for told in found:
            typer.echo(json.dumps(told))
        return
    columns = ("id", "actor", "roles", "locations", "assets", "state", "last used")
    table = Table(*columns)
    for told in found:
        table.add_row(
            told["key_id"],
            told["acts_as"],
            " ".join(told["roles"]),
            "all" if told["locations"] is None else " ".join(told["locations"]),
            "all" if told["assets"] is None else " ".join(told["assets"]),
            told["state"],
            told["last_used_at"] or "never",
        )
    Console().print(table)


async def _revoke(key_id: str, reason: str, ledger_name: str | None, *, as_json: bool) -> None:
    from api.access.keys import revoke_key

    async with _opened(ledger_name) as (ledger, _):
        revoked = await revoke_key(
            ledger, key_id, reason=reason, revoked_by=_who(), now=datetime.now(UTC)
        )
    told = f"key {key_id} {'was revoked before' if revoked is None else 'is revoked'}"
    typer.echo(json.dumps({"key_id": key_id, "revoked": revoked is not None}) if as_json else told)


def _told(key: ApiKey) -> dict[str, Any]:
    def moment(given: datetime | None) -> str | None:
        return None if given is None else given.isoformat(timespec="seconds")

    state = "valid"
    if key.revoked_at is not None:
        state = "revoked"
    elif not key.is_valid(datetime.now(UTC)):
        state = "ended"
    return {
        "key_id": key.key_id,
        "name": key.name,
        "acts_as": key.acts_as,
        "roles": sorted(key.roles),
        "locations": None if key.locations is None else sorted(key.locations),
        "assets": None if key.assets is None else sorted(key.assets),
        "state": state,
        "created_at": moment(key.created_at),
        "created_by": key.created_by,
        "expires_at": moment(key.expires_at),
        "revoked_at": moment(key.revoked_at),
        "last_used_at": moment(key.last_used_at),
    }


# --- tokens -------------------------------------------------------------------------------


def token(
    role: Roles,
    actor: Annotated[str | None, typer.Option("--actor", help="Who acts; you without it.")] = None,
    location: Locations = None,
    hours: Annotated[
        float, typer.Option("--hours", min=0.01, max=24.0, help="It ends after so long.")
    ] = TOKEN_HOURS,
    ledger: LedgerName = None,
) -> None:
    """Print a token for development, for servers on this machine with HEDDLE_DEV_TOKENS=yes."""
    from api.access.development import make_token
    from api.settings import ServerSettings

    settings = ServerSettings.from_environment()
    typer.echo(
        make_token(
            settings.data_dir,
            ledger or settings.ledger,
            actor=actor or _login(),
            roles=_roles(role),
            locations=location or None,
            life=timedelta(hours=hours),
            now=datetime.now(UTC),
        )
    )
    if not settings.dev_tokens:
        sys.stderr.write("servers accept it only with HEDDLE_DEV_TOKENS=yes\n")


# --- for both -----------------------------------------------------------------------------


def _roles(names: Sequence[str]) -> list[Role]:
    from api.access.rights import Role

    known = {role.value for role in Role}
    for name in names:
        if name not in known:
            raise InvalidInput(
                "role.unknown",
                f"{name!r:.80} is no role",
                hint=f"roles are {', '.join(sorted(known))}",
                value=name[:80],
            )
    return [Role(name) for name in names]


def _login() -> str:
    """Return who runs this, in letters that an actor may have."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        name = ""
    return re.sub(r"[^A-Za-z0-9._@+-]", "-", name).lstrip("._@+-") or "local"


def _who() -> str:
    return f"user:{_login()}"


@asynccontextmanager
async def _opened(name: str | None) -> AsyncIterator[tuple[Ledger, ServerSettings]]:
    from api.database import existing_ledger, open_pool
    from api.settings import ServerSettings

    settings = ServerSettings.from_environment()
    async with (
        open_pool(settings) as (pool, _),
        existing_ledger(pool, name or settings.ledger) as ledger,
    ):
        yield ledger, settings
