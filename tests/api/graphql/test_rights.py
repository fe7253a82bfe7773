"""Role by operation, over the whole schema and over HTTP: each root field, allowed or denied."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from graphql import GraphQLField, get_named_type, is_composite_type, is_required_argument
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from api.access.keys import create_key
from api.access.requirements import Requirements
from api.access.rights import RIGHTS_OF, Right, Role
from api.graphql.negotiation import GRAPHQL_RESPONSE
from api.graphql.schema import create_schema
from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

SCHEMA = create_schema().core
RIGHTS = Requirements(SCHEMA).rights


def root_fields() -> Iterator[tuple[str, str, GraphQLField]]:
    """Yield each root field of the schema: kind of operation, name, definition."""
    for kind, root in (
        ("query", SCHEMA.query_type),
        ("mutation", SCHEMA.mutation_type),
        ("subscription", SCHEMA.subscription_type),
    ):
        assert root is not None
        for name, found in root.fields.items():
            yield kind, name, found


def document_of(kind: str, name: str, found: GraphQLField) -> str:
    """Return a document that asks for a root field and is valid; its variables are never given."""
    required = {a: arg.type for a, arg in found.args.items() if is_required_argument(arg)}
    declared = ", ".join(f"${a}: {given}" for a, given in required.items())
    passed = ", ".join(f"{a}: ${a}" for a in required)
    below = " { __typename }" if is_composite_type(get_named_type(found.type)) else ""
    return (
        f"{kind} {f'({declared})' if declared else ''} "
        f"{{ {name}{f'({passed})' if passed else ''}{below} }}"
    )


@pytest.fixture(scope="module")
async def keyed(shared_database_url: str) -> AsyncIterator[tuple[Server, dict[Role, str]]]:
    """A server that asks for keys, and a key for each role."""
    settings: dict[str, Any] = {"api_keys": True, "graphql_rate": 1e9, "graphql_burst": 1e9}
    async with serving(shared_database_url, ledger="rights", **settings) as server:
        keys = {}
        for role in Role:
            keys[role], _ = await create_key(
                server.ledger,
                name=f"the-{role}",
                roles=[role],
                locations=None,
                assets=None,
                expires_at=None,
                created_by="user:test",
                now=datetime.now(UTC),
            )
        yield server, keys


@pytest.mark.parametrize("role", list(Role))
async def test_each_root_field_is_open_to_the_roles_that_have_its_right(
    keyed: tuple[Server, dict[Role, str]], role: Role
) -> None:
    server, keys = keyed
    wrong, asked = [], 0
    for kind, name, found in root_fields():
        right = RIGHTS[(kind.capitalize(), name)]
        answer = await server.post(
            document_of(kind, name, found), authorization=f"Bearer {keys[role]}"
        )
        codes = [error["extensions"]["code"] for error in answer.get("errors", ())]
        allowed = right in RIGHTS_OF[role]
        asked += 1
        if ("access.denied" not in codes) != allowed or ("data" in answer and not allowed):
            wrong.append((kind, name, right, codes))
    assert wrong == []
    assert asked == len([key for key in RIGHTS if key[0] in ("Query", "Mutation", "Subscription")])


async def test_nothing_is_answered_to_whoever_does_not_say_who_he_is(
    keyed: tuple[Server, dict[Role, str]],
) -> None:
    server, _ = keyed
    for document in ("{ __typename }", "{ __schema { types { name } } }", "{ log { position } }"):
        for query in ({"query": document}, {"query": "{"}, {}):
            response = await server.http.post("/graphql", json=query)
            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer")
            (error,) = response.json()["errors"]
            assert error["extensions"]["code"] == "access.unauthenticated"
    for path in ("/v1/frames", "/metrics", "/tlog/rights/checkpoint", "/v1/export/events"):
        for method in ("GET", "POST"):
            response = await server.http.request(method, path)
            assert response.status_code in (401, 404, 405), (method, path, response.status_code)
    ready = await server.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert (await server.http.get("/healthz")).status_code == 200


PUBLIC = {"/", "/healthz", "/readyz", "/graphiql"}


async def test_every_route_asks_who_it_is_but_for_the_public_ones(
    keyed: tuple[Server, dict[Role, str]],
) -> None:
    server, _ = keyed
    asked = set()
    for route in routes(server.application):
        assert isinstance(route, Route | Mount | WebSocketRoute), route
        if isinstance(route, WebSocketRoute) or route.path in PUBLIC:
            continue
        assert isinstance(route, Route), f"{route.path} is mounted, and lets anybody in"
        path = re.sub(r"\{[^}]*:int\}", "1", route.path)
        path = re.sub(r"\{[^}]*\}", "rights", path)
        for method in route.methods or ("GET", "POST"):
            response = await server.http.request(method, path)
            assert response.status_code == 401, (method, path, response.status_code)
            asked.add(route.path)
    assert {"/metrics", "/v1/frames", "/v1/evidence"} <= asked


def routes(application: Any) -> list[BaseRoute]:
    """Return the routes of the application: those of the Starlette application within it."""
    found = application._app.routes
    assert isinstance(found, list)
    return found


async def test_a_refused_operation_says_what_it_lacks(
    keyed: tuple[Server, dict[Role, str]],
) -> None:
    server, keys = keyed
    response = await server.http.post(
        "/graphql",
        json={"query": "{ log { position } a: assets(first: 1) { position } }"},
        headers={"authorization": f"Bearer {keys[Role.AGENT]}", "accept": GRAPHQL_RESPONSE},
    )
    assert response.status_code == 403
    answer = response.json()
    assert "data" not in answer
    (error,) = answer["errors"]
    assert error["extensions"]["value"] == "Query.assets"
    assert error["extensions"]["limit"] == Right.READ


async def test_what_is_read_again_and_again_is_judged_by_whoever_asks(
    keyed: tuple[Server, dict[Role, str]],
) -> None:
    server, keys = keyed
    for _ in range(5):
        for role, allowed in ((Role.VIEWER, True), (Role.AGENT, False), (Role.ADMIN, True)):
            answer = await server.post("{ log { position } }", authorization=f"Bearer {keys[role]}")
            assert ("data" in answer) is allowed, role
