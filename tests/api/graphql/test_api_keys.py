"""API keys by GraphQL: made once, told once, revoked for good, by whoever sees everything."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from api.access.keys import create_key
from api.access.rights import Role
from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

_numbers = itertools.count(1)

CREATE = """
mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) {
  __typename
  ... on CreateApiKeySuccess {
    secret duplicate dryRun version position
    apiKey { keyId name actsAs roles locations assets state createdBy expiresAt lastUsedAt }
  }
  ... on Error { code message path }
} }
"""
REVOKE = """
mutation($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) {
  __typename
  ... on RevokeApiKeySuccess { duplicate dryRun version apiKey { keyId state } }
  ... on Error { code }
} }
"""
LIST = """
query($first: Int!, $after: Cursor) { apiKeys(first: $first, after: $after) {
  nodes { keyId name state } pageInfo { hasNextPage endCursor }
} }
"""


class Admin:
    """An administrator with a key of his own."""

    def __init__(self, server: Server, key: str) -> None:
        self.server = server
        self.key = key

    async def post(self, document: str, **variables: Any) -> dict[str, Any]:
        return await self.server.post(document, variables, authorization=f"Bearer {self.key}")

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        answer = await self.post(document, **variables)
        assert "errors" not in answer, answer
        found: dict[str, Any] = next(iter(answer["data"].values()))
        return found


async def key_of(server: Server, role: Role, locations: list[str] | None = None) -> str:
    text, _ = await create_key(
        server.ledger,
        name=f"the-{role}",
        roles=[role],
        locations=locations,
        assets=None,
        expires_at=None,
        created_by="user:test",
        now=datetime.now(UTC),
    )
    return text


@pytest.fixture
async def admin(shared_database_url: str) -> AsyncIterator[Admin]:
    name = f"keys-{next(_numbers)}"
    async with serving(shared_database_url, ledger=name, api_keys=True) as server:
        server.clock.now = datetime.now(UTC)
        yield Admin(server, await key_of(server, Role.ADMIN))


async def test_a_key_is_told_once_and_lets_in_until_it_is_revoked(
    admin: Admin, shared_database_url: str
) -> None:
    given = {
        "idempotencyKey": "k-1",
        "name": "cmms",
        "roles": ["MAINTENANCE", "VIEWER"],
        "locations": ["site-1"],
        "expiresAt": "2999-01-01T00:00:00Z",
    }

    made = await admin.ask(CREATE, input=given)
    again = await admin.ask(CREATE, input=given)
    other = await admin.ask(CREATE, input={**given, "name": "erp"})

    assert made["__typename"] == "CreateApiKeySuccess"
    assert (made["duplicate"], made["version"]) == (False, 1)
    assert made["apiKey"]["actsAs"] == "service:cmms"
    assert made["apiKey"]["roles"] == ["MAINTENANCE", "VIEWER"]
    assert made["apiKey"]["createdBy"] == "service:the-admin"
    assert made["apiKey"]["state"] == "VALID"
    assert again == {**made, "secret": None, "duplicate": True}
    assert other["code"] == "idempotency_key.reused"
    viewer = Admin(admin.server, made["secret"])
    assert await viewer.ask("{ log { ledger } }")
    log = await admin.server.ledger.pool.fetch("select payload from event")
    secret = made["secret"].rpartition("_")[2].encode()
    assert log
    assert not any(secret in bytes(row["payload"] or b"") for row in log)

    key_id = made["apiKey"]["keyId"]
    wrong = {"idempotencyKey": "r-0", "keyId": key_id, "reason": "lost", "expectedVersion": 7}
    trial = {"idempotencyKey": "r-1", "keyId": key_id, "reason": "lost", "dryRun": True}
    revoke = {"idempotencyKey": "r-1", "keyId": key_id, "reason": "lost"}
    assert (await admin.ask(REVOKE, input=wrong))["code"] == "stream.version_conflict"
    assert (await admin.ask(REVOKE, input=trial))["apiKey"]["state"] == "VALID"
    revoked = await admin.ask(REVOKE, input=revoke)
    repeated = await admin.ask(REVOKE, input=revoke)
    once_more = await admin.ask(REVOKE, input={**revoke, "idempotencyKey": "r-2"})
    assert revoked == {
        "__typename": "RevokeApiKeySuccess",
        "duplicate": False,
        "dryRun": False,
        "version": 2,
        "apiKey": {"keyId": key_id, "state": "REVOKED"},
    }
    assert repeated == {**revoked, "duplicate": True}
    assert once_more == revoked
    # A server that knew the key lets it in for some seconds; another one never.
    ledger = admin.server.ledger.name
    async with serving(shared_database_url, ledger=ledger, api_keys=True) as elsewhere:
        refused = await Admin(elsewhere, made["secret"]).post("{ log { ledger } }")
    assert refused["errors"][0]["extensions"]["code"] == "access.unauthenticated"


async def test_a_trial_makes_no_key(admin: Admin) -> None:
    given = {"idempotencyKey": "k-1", "name": "cmms", "roles": ["VIEWER"]}

    trial = await admin.ask(CREATE, input={**given, "dryRun": True})
    made = await admin.ask(CREATE, input=given)

    assert (trial["dryRun"], trial["secret"], trial["apiKey"]) == (True, None, None)
    assert made["secret"].startswith("hdl_")
    assert len((await admin.ask(LIST, first=10))["nodes"]) == 2


async def test_keys_are_listed_newest_first_page_by_page(admin: Admin) -> None:
    for n in range(5):
        admin.server.clock.move(1)
        given = {"idempotencyKey": f"k-{n}", "name": f"agent-{n}", "roles": ["AGENT"]}
        await admin.ask(CREATE, input=given)

    names, after = [], None
    while True:
        page = await admin.ask(LIST, first=2, after=after)
        names += [node["name"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert names == [*(f"agent-{n}" for n in range(4, -1, -1)), "the-admin"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"roles": []}, "key.roles"),
        ({"name": "a b"}, "key.malformed_name"),
        ({"locations": []}, "key.scope"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "key.expires"),
    ],
)
async def test_what_is_no_key_is_refused(admin: Admin, given: dict[str, Any], code: str) -> None:
    sound = {"idempotencyKey": "k-1", "name": "cmms", "roles": ["VIEWER"]}

    found = await admin.ask(CREATE, input={**sound, **given})

    assert (found["__typename"], found["code"]) == ("ValidationError", code)


async def test_whoever_sees_a_part_alone_makes_no_keys_and_lists_none(admin: Admin) -> None:
    bound = Admin(admin.server, await key_of(admin.server, Role.ADMIN, ["site-1"]))
    given = {"idempotencyKey": "k-1", "name": "cmms", "roles": ["ADMIN"]}

    made = await bound.ask(CREATE, input=given)
    revoked = await bound.ask(
        REVOKE, input={"idempotencyKey": "r-1", "keyId": "0123456789abcdef", "reason": "lost"}
    )
    listed = await bound.post(LIST, first=5)

    assert made["code"] == revoked["code"] == "access.denied"
    assert listed["errors"][0]["extensions"]["code"] == "access.denied"
    assert len((await admin.ask(LIST, first=10))["nodes"]) == 2
