"""Generated functions answer byte for byte what the executor answers, or leave it to that."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import strawberry
from graphql import ExecutionResult, execute, parse, validate

from api.graphql.assets.types import Asset
from api.graphql.compiled import CompiledExecutor, Plan
from api.graphql.kept_text import KeptTexts
from api.graphql.schema import create_schema
from domain.asset import RetireAsset
from tests.api.graphql.random_documents import DocumentMaker
from tests.api.graphql.server import START, Server, frame_of, serving
from tests.database import new_database

pytestmark = pytest.mark.anyio

SCHEMA = create_schema().core
ROOT = Path(__file__).parents[3]
EXAMPLES: list[str] = re.findall(
    r"query: `(.*?)`", (ROOT / "api" / "graphiql" / "examples.js").read_text(), re.DOTALL
)
RECIPES: list[str] = re.findall(
    r"```graphql\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL
)
ASKED_OFTEN = [
    "{ __typename }",
    "{ assets(first: 5) { nodes { id assetId title lifecycle version registeredAt } position } }",
    "{ assets(first: 2) { edges { cursor node { assetId } } pageInfo { hasNextPage endCursor } } }",
    "{ assets(first: 2) { nodes { a: assetId b: assetId __typename type { name title } } } }",
    "{ assets(first: 2) { nodes { ...A ... on Asset { title } } } } fragment A on Asset { id }",
    "{ assets(first: 2) { nodes { ...N } } } fragment N on Node { id }",
    "query($on: Boolean = true) { assets(first: 2) { nodes { id title @include(if: $on) } } }",
    "{ assets(first: 2) { nodes { assetId assetId title } } }",
    "{ assets(first: 3) { nodes { assetId twin { connectivity lastReadingAt openAlertCount "
    "health { status index reasons { channel value limit } } "
    "readings { channel title value siUnit readAt status } setpoints { setpoint desired } } } } }",
    '{ assets(first: 3) { nodes { twin { readings { channel value(unit: "K") } } } } }',
    '{ bad: asset(assetId: "a b") { id } good: asset(assetId: "pump-1") { title twin { asOf } } }',
    '{ node(id: "bm9uc2Vuc2U") { id __typename ... on Asset { assetId } } }',
    "{ assetTypes { name title channels { name quantity siUnit } } }",
    "{ events(first: 20) { nodes { position stream type occurredAt actor } position } }",
    "{ log { ledger position start end } }",
    "query($n: Int!) { assets(first: $n) { position } }",
]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def compiled_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    with new_database(postgres_url, "heddle_compiled", template=template_database) as url:
        yield url


@pytest.fixture
async def server(compiled_database_url: str) -> AsyncIterator[Server]:
    async with serving(compiled_database_url, ledger=f"compiled-{next(_numbers)}") as running:
        await running.register("pump-1", "pump-2", "pump-3", commission=True)
        await running.record(
            frame_of("pump-1", {"flow": ("l/min", [32.0] * 30), "pressure": ("bar", [9.9] * 30)}),
            frame_of("pump-2", {"flow": ("l/min", [1.0] * 30)}, start=START - timedelta(days=1)),
        )
        yield running


async def test_answers_are_the_same_both_ways(server: Server) -> None:
    queries = [
        query
        for query in (*ASKED_OFTEN, *EXAMPLES, *RECIPES)
        if not re.search(r"^\s*(mutation|subscription)", query, re.MULTILINE)
    ]
    assert len(queries) > len(ASKED_OFTEN) + 4
    operations = server.application.graphql.operations
    for query in queries:
        answers = []
        for after in (10**9, 0):
            operations.compile_after = after
            for accept in ("application/json", "application/graphql-response+json"):
                response = await server.http.post(
                    "/graphql", json={"query": query}, headers={"Accept": accept}
                )
                answers.append((response.status_code, _comparable(response.content)))
        assert answers[:2] == answers[2:], query


# Where one item of a list fails, graphql-core leaves coroutines of the others unawaited.
@pytest.mark.filterwarnings("ignore:coroutine 'Executor:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(6))
async def test_any_document_is_answered_the_same_both_ways(server: Server, seed: int) -> None:
    operations = server.application.graphql.operations
    maker = DocumentMaker(seed)
    planned = 0
    for _ in range(40):
        request = maker.request()
        answers = []
        for after in (10**9, 0, 0):  # as it is walked, generated, and told from kept texts
            operations.compile_after = after
            response = await server.http.post("/graphql", json=request)
            answers.append(_comparable(response.content))
        assert answers[0] == answers[1] == answers[2], request
        document = operations.documents.find(request["query"])
        assert document is not None, (request, answers[0])
        plan = document.operation(None).plan
        planned += plan is not None and any(made is not None for made in plan._made.values())
    assert planned > 15


async def test_texts_are_kept_only_as_long_as_rows_stay_as_they_are(server: Server) -> None:
    query = "{ assets(first: 5) { nodes { assetId title lifecycle version } } }"
    operations = server.application.graphql.operations
    operations.compile_after = 0
    before = [await server.ask(query) for _ in range(3)]
    assert operations.texts.bytes_kept > 0

    await server.command(RetireAsset("pump-2", "worn out"))

    after = await server.ask(query)
    assert before[0] == before[1] == before[2] != after
    told = {node["assetId"]: node for node in after["assets"]["nodes"]}
    assert told["pump-2"]["lifecycle"] == "RETIRED"
    assert told["pump-1"] == before[0]["assets"]["nodes"][0]


def test_kept_texts_are_bounded() -> None:
    class Row(NamedTuple):
        key: str
        value: int

    kept = KeptTexts(orjson.dumps, bytes_max=20 * 600)
    selection, other = kept.selection(), kept.selection()
    made: list[str] = []

    def make(row: Row) -> object:
        made.append(row.key)
        return {"value": row.value}

    for n in range(100):
        (text,) = selection.of([Row(str(n), n)], "key", make)
        assert orjson.loads(orjson.dumps(text)) == {"value": n}
        assert kept.bytes_kept <= 20 * 600
    other.of([Row("0", 0)], "key", make)
    made.clear()
    selection.of([Row("99", 99), Row("99", 99), Row("0", 0), Row("99", 98)], "key", make)
    assert made == ["0", "99"]


def _comparable(answer: bytes) -> bytes:
    """Return `answer` without what differs from one time to the next."""
    answer = re.sub(rb'"traceId":"\w+"', b"", answer)
    if answer.endswith(b'"data":null}'):
        # Of several fields that may not be null and fail, whichever does so first is told.
        answer = re.sub(rb'"(locations|path)":\[.*?\],', b"", answer)
    return answer


async def test_what_is_asked_often_is_generated(server: Server) -> None:
    query = "{ assets(first: 3) { nodes { assetId title } } }"
    for _ in range(6):
        await server.ask(query)

    prepared = server.application.graphql.operations.documents.prepare(query).operation(None)
    assert prepared.plan is not None
    assert any(made is not None for made in prepared.plan._made.values())


# --- what is not plain --------------------------------------------------------------------


@strawberry.type
class Part:
    name: str
    size: float | None
    count: int
    tags: list[str]

    @strawberry.field
    def double(self) -> int:
        if self.count == 13:
            raise ValueError("unlucky")
        return self.count * 2

    @strawberry.field
    def scaled(self, by: int = 2) -> int:
        return self.count * by


class Derived(Part):
    """Of another class than the schema's."""


def _parts() -> list[Any]:
    sound = Part(name="a", size=1.5, count=1, tags=["x"])
    return [
        sound,
        replace(sound, size=None),
        replace(sound, name=None),  # type: ignore[arg-type]
        replace(sound, count=2**31),
        replace(sound, count=13),
        replace(sound, size=float("nan")),
        replace(sound, size=1),
        replace(sound, name=7),  # type: ignore[arg-type]
        replace(sound, tags=["x", None]),  # type: ignore[list-item]
        replace(sound, tags=("x", "y")),  # type: ignore[arg-type]
        replace(sound, tags="xy"),  # type: ignore[arg-type]
        replace(sound, tags=ValueError("no tags")),  # type: ignore[arg-type]
        Derived(name="b", size=2.0, count=2, tags=[]),
        ValueError("no part"),
        None,
    ]


@strawberry.type
class Query:
    @strawberry.field
    def parts(self) -> list[Part | None]:
        return self.given  # type: ignore[attr-defined, no-any-return]

    @strawberry.field
    def part(self) -> Part | None:
        return self.given[0]  # type: ignore[attr-defined, no-any-return]

    @strawberry.field
    def sound(self) -> list[Part]:
        return self.given  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("kind", range(len(_parts())))
@pytest.mark.parametrize(
    "selection",
    ["name size", "count double", "tags name", "scaled", "scaled(by: 3) name", "a: name b: tags"],
)
def test_what_is_not_plain_is_told_as_the_executor_tells_it(kind: int, selection: str) -> None:
    core = strawberry.Schema(Query)._schema
    odd = _parts()[kind]

    class Root:
        given = (
            [odd, _parts()[0]],
            [_parts()[0], odd],
        )[kind % 2]

    for field in ("parts", "part", "sound"):
        document = parse(f"{{ {field} {{ {selection} }} }}")
        assert validate(core, document) == []
        expected = execute(core, document, Root())
        executor = CompiledExecutor.build(core, document, Root(), plan=Plan(core, document))
        assert isinstance(executor, CompiledExecutor)
        found = executor.execute_operation()
        assert isinstance(expected, ExecutionResult)
        assert isinstance(found, ExecutionResult)
        assert found.formatted == expected.formatted


def test_generated_code_holds_nothing_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    compiled: list[str] = []
    real = builtins.compile

    def noted(source: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(source, str):
            compiled.append(source)
        return real(source, *arguments, **options)

    monkeypatch.setattr(builtins, "compile", noted)
    document = parse(
        '{ asset(assetId: "import os") { secretAlias: title type { name } '
        "... on Asset { registeredAt } } }"
    )
    field = document.definitions[0].selection_set.selections[0]  # type: ignore[attr-defined]
    asset = SCHEMA.get_type("Asset")
    assert asset is not None
    assert Plan(SCHEMA, document).completion(asset, field) is not None  # type: ignore[arg-type]

    text = "\n".join(compiled)
    assert "import os" not in text
    assert '"secretAlias": v0' in text
    assert re.fullmatch(r"[\w\s\"'{}:(),.=!<>\-]+", text)
    assert Asset.__name__ not in text
