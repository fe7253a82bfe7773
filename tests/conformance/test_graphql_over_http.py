"""GraphQL over HTTP, by the audits of the npm package graphql-http: MUST, SHOULD and MAY."""

from __future__ import annotations

import json

import pytest

from tests.api.graphql.server import Server
from tests.conformance.programs import run

pytestmark = pytest.mark.anyio

AUDITS = 61


async def test_every_audit_passes(node: str, server: Server) -> None:
    results = json.loads(await run(node, "audit_http.mjs", f"{server.url}/graphql"))

    assert len(results) == AUDITS
    assert [result for result in results if result["status"] != "ok"] == []
