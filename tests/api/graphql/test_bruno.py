"""The Bruno collection: what GraphiQL shows, and every request of it is answered."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from graphql import parse, validate

from api.app import projections
from api.graphql.schema import create_schema
from projections.running.projection import Policy
from tests.api.graphql.server import Server, frame_of, serving

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[3] / "examples" / "bruno"
SCHEMA = create_schema().core


def blocks(file: Path) -> dict[str, str]:
    """Return the blocks of a request by their names, as Bruno reads them."""
    found = re.findall(r"^([\w:]+) \{\n(.*?)^\}$", file.read_text(), re.DOTALL | re.MULTILINE)
    return {name: textwrap.dedent(body) for name, body in found}


def test_the_requests_are_what_the_generator_writes() -> None:
    command = [sys.executable, str(FOLDER / "generate.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert checked.returncode == 0, checked.stderr


@pytest.fixture
async def pumps(shared_database_url: str) -> AsyncIterator[Server]:
    """What `heddle demo` serves, in small: a pump loop, and every projection."""
    folded = [each for each in projections() if not isinstance(each, Policy)]
    async with serving(shared_database_url, projections=folded, ledger="bruno") as server:
        await server.register("pump-loop-1", commission=True)
        await server.record(frame_of("pump-loop-1", {"flow": ("l/min", [30.0] * 5)}))
        yield server


async def test_every_request_is_answered(pumps: Server) -> None:
    files = sorted(FOLDER.glob("*.bru"))
    assert len(files) >= 8
    for file in files:
        request = blocks(file)
        document, variables = request["body:graphql"], request["body:graphql:vars"]
        assert "{{baseUrl}}/graphql" in request["post"]
        assert validate(SCHEMA, parse(document)) == [], file.name

        answer = await pumps.post(document, orjson.loads(variables))

        assert "errors" not in answer, (file.name, answer["errors"])
