"""API keys: how agents and integrations prove who they are.

A key is ``hdl_<id>_<secret>``: the id names its row, the secret is 256 random bits of which only
the SHA-256 is kept. That it was created or revoked is an event in the stream ``api-key:<id>``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from api.access.identity import Identity
from api.access.rights import Role
from domain.access_events import ApiKeyCreated, ApiKeyRevoked, api_key_stream
from domain.errors import Conflict, InvalidInput, NotFound
from domain.identifiers import check_identifier, uuid7
from eventlog.envelope import new_fact
from eventlog.ledger import NO_STREAM, Appended, IdempotencyKey, Ledger

ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
KEY_PREFIX: Final = "hdl_"
SCOPE_MAX: Final = 1_000
"""Locations, and assets, that one key names."""

REASON_LENGTH_MAX: Final = 500
LISTED_MAX: Final = 1_000
USE_NOTED_EVERY: Final = timedelta(minutes=5)

_KEY: Final = re.compile(rf"hdl_([0-9a-f]{{{2 * ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: everything but its secret.

    Parameters
    ----------
    key_id : names it, in public too
    secret_sha256 : 32 bytes
    acts_as : the actor of what is done with it
    locations, assets : as `Identity` has them
    last_used_at : to within `USE_NOTED_EVERY`
    """

    key_id: str
    secret_sha256: bytes
    name: str
    acts_as: str
    roles: frozenset[Role]
    locations: frozenset[str] | None
    assets: frozenset[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Return whether it lets anybody in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def identity(self, method: str = "api_key") -> Identity:
        """Return whom it lets in."""
        return Identity(
            actor=self.acts_as,
            roles=self.roles,
            locations=self.locations,
            assets=self.assets,
            expires_at=self.expires_at,
            method=method,
            key_id=self.key_id,
        )


def parse_key(text: str) -> tuple[str, bytes] | None:
    """Return the id and the SHA-256 of the secret of the key `text`; None where it is none."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    return match[1], hashlib.sha256(match[2].encode()).digest()


# --- creating and revoking ----------------------------------------------------------------


async def create_key(
    ledger: Ledger,
    *,
    name: str,
    roles: Sequence[Role],
    locations: Sequence[str] | None,
    assets: Sequence[str] | None,
    expires_at: datetime | None,
    created_by: str,
    now: datetime,
) -> tuple[str, ApiKey]:
    """Create a key and return its text, which nobody can tell again, and what is kept of it.

    Raises
    ------
    InvalidInput
        as `new_key`
    """
    text, key = new_key(
        name=name,
        roles=roles,
        locations=locations,
        assets=assets,
        expires_at=expires_at,
        created_by=created_by,
        now=now,
    )
    await record_key(ledger, key)
    return text, key


def new_key(
    *,
    name: str,
    roles: Sequence[Role],
    locations: Sequence[str] | None,
    assets: Sequence[str] | None,
    expires_at: datetime | None,
    created_by: str,
    now: datetime,
) -> tuple[str, ApiKey]:
    """Return the text of a new key and what is to be kept of it; it lets nobody in yet.

    Raises
    ------
    InvalidInput
        ``key.roles``, ``key.scope``, ``key.expires``, ``key.malformed_name``
    """
    check_identifier("key", name)
    if not roles:
        raise InvalidInput("key.roles", "a key has one role at least", value=[])
    for kind, names in (("location", locations), ("asset", assets)):
        _check_scope(kind, names)
    if expires_at is not None and expires_at <= now:
        raise InvalidInput(
            "key.expires",
            f"the key would end at {expires_at.isoformat()}, before it begins",
            value=expires_at.isoformat(),
        )
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(
        key_id=secrets.token_hex(ID_BYTES),
        secret_sha256=hashlib.sha256(secret.encode()).digest(),
        name=name,
        acts_as=f"{'agent' if Role.AGENT in roles else 'service'}:{name}",
        roles=frozenset(roles),
        locations=None if locations is None else frozenset(locations),
        assets=None if assets is None else frozenset(assets),
        created_at=now,
        created_by=created_by,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    return f"{KEY_PREFIX}{key.key_id}_{secret}", key


async def record_key(
    ledger: Ledger, key: ApiKey, *, idempotency: IdempotencyKey | None = None
) -> Appended:
    """Have a new key let in whom it says.

    Where the idempotency key was used before, nothing is done, and the earlier outcome returned.
    """
    # The log first: a key that nobody can account for must not exist.
    created = ApiKeyCreated(
        key_id=key.key_id,
        name=key.name,
        acts_as=key.acts_as,
        roles=tuple(sorted(key.roles)),
        locations=None if key.locations is None else tuple(sorted(key.locations)),
        assets=None if key.assets is None else tuple(sorted(key.assets)),
        expires_at=key.expires_at,
    )
    appended = await _record(
        ledger,
        created,
        actor=key.created_by,
        now=key.created_at,
        after=NO_STREAM,
        idempotency=idempotency,
    )
    if appended.duplicate:
        return appended
    await ledger.pool.execute(
        """
        insert into api_key (ledger_id, key_id, secret_sha256, name, acts_as, roles, locations,
            assets, created_at, created_by, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        ledger.ledger_id,
        key.key_id,
        key.secret_sha256,
        key.name,
        key.acts_as,
        list(created.roles),
        created.locations,
        created.assets,
        key.created_at,
        key.created_by,
        key.expires_at,
    )
    return appended


async def revoke_key(
    ledger: Ledger,
    key_id: str,
    *,
    reason: str,
    revoked_by: str,
    now: datetime,
    idempotency: IdempotencyKey | None = None,
) -> Appended | None:
    """Have a key let nobody in any more; return None where it already was revoked.

    Raises
    ------
    NotFound
        ``key.unknown``
    InvalidInput
        ``key.reason``
    """
    if not 1 <= len(reason) <= REASON_LENGTH_MAX:
        raise InvalidInput(
            "key.reason",
            f"a reason has 1 to {REASON_LENGTH_MAX} characters, not {len(reason)}",
            value=len(reason),
            limit=REASON_LENGTH_MAX,
        )
    # The key first: it must not outlive a log that cannot be written to.
    updated = await ledger.pool.fetchval(
        "update api_key set revoked_at = coalesce(revoked_at, $3) "
        "where ledger_id = $1 and key_id = $2 returning key_id",
        ledger.ledger_id,
        key_id,
        now,
    )
    if updated is None:
        raise NotFound("key.unknown", f"there is no key {key_id!r:.80}", value=key_id[:80])
    try:
        # A key is created, and is revoked once.
        return await _record(
            ledger,
            ApiKeyRevoked(key_id, reason),
            actor=revoked_by,
            now=now,
            after=1,
            idempotency=idempotency,
        )
    except Conflict as conflict:
        if conflict.code != "stream.version_conflict":
            raise
        return None


async def _record(
    ledger: Ledger,
    event: ApiKeyCreated | ApiKeyRevoked,
    *,
    actor: str,
    now: datetime,
    after: int,
    idempotency: IdempotencyKey | None,
) -> Appended:
    """Record `event` as what follows on so many others of its key."""
    event_id = uuid7(int(now.timestamp() * 1000), secrets.token_bytes(10))
    stream = api_key_stream(event.key_id)
    fact = new_fact(stream, event, event_id=event_id, occurred_at=now, actor=actor)
    return await ledger.append([fact], expected={stream: after}, idempotency=idempotency)


def _check_scope(kind: str, names: Sequence[str] | None) -> None:
    if names is None:
        return
    if not 1 <= len(names) <= SCOPE_MAX:
        raise InvalidInput(
            "key.scope",
            f"a key names 1 to {SCOPE_MAX} {kind}s or is not bound to any, not {len(names)}",
            value=len(names),
            limit=SCOPE_MAX,
        )
    for name in names:
        check_identifier(kind, name)


# --- reading ------------------------------------------------------------------------------

_COLUMNS: Final = (
    "key_id, secret_sha256, name, acts_as, roles, locations, assets, created_at, created_by, "
    "expires_at, revoked_at, last_used_at"
)


async def find_key(ledger: Ledger, key_id: str) -> ApiKey | None:
    """Return the key of this id, revoked or not."""
    row = await ledger.pool.fetchrow(
        f"select {_COLUMNS} from api_key where ledger_id = $1 and key_id = $2",
        ledger.ledger_id,
        key_id,
    )
    return None if row is None else _key(row)


async def find_named_key(ledger: Ledger, name: str, now: datetime) -> ApiKey | None:
    """Return the newest key of this name that is valid."""
    row = await ledger.pool.fetchrow(
        f"""
        select {_COLUMNS} from api_key where ledger_id = $1 and name = $2
            and revoked_at is null and (expires_at is null or expires_at > $3)
        order by created_at desc, key_id limit 1
        """,
        ledger.ledger_id,
        name,
        now,
    )
    return None if row is None else _key(row)


async def list_keys(
    ledger: Ledger, *, first: int = LISTED_MAX, after: tuple[datetime, str] | None = None
) -> list[ApiKey]:
    """Return the newest keys, at most `first`, beyond the one created `after` with its id."""
    created_at, key_id = after or (None, None)
    rows = await ledger.pool.fetch(
        f"""
        select {_COLUMNS} from api_key where ledger_id = $1
            and ($3::timestamptz is null or created_at < $3 or (created_at = $3 and key_id > $4))
        order by created_at desc, key_id limit $2
        """,
        ledger.ledger_id,
        first,
        created_at,
        key_id,
    )
    return [_key(row) for row in rows]


async def note_use(ledger: Ledger, key: ApiKey, now: datetime) -> None:
    """Write down that the key was used, unless that was done a moment ago."""
    if key.last_used_at is None or now - key.last_used_at >= USE_NOTED_EVERY:
        await ledger.pool.execute(
            "update api_key set last_used_at = $3 where ledger_id = $1 and key_id = $2 "
            "and (last_used_at is null or last_used_at < $3)",
            ledger.ledger_id,
            key.key_id,
            now,
        )


def utc_now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def _key(row: asyncpg.Record) -> ApiKey:
    known = {role.value for role in Role}
    values: dict[str, Any] = dict(row)
    # A role that this software does not know gives no right.
    values["roles"] = frozenset(Role(role) for role in row["roles"] if role in known)
    for scope in ("locations", "assets"):
        values[scope] = None if row[scope] is None else frozenset(row[scope])
    return ApiKey(**values)
