"""The schema as an artefact: committed, described to the last argument, true to its examples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    is_specified_scalar_type,
)

from api.graphql import schema as schema_module
from api.graphql.preparation import Documents
from api.graphql.schema import SDL_FILE, create_schema, main, sdl

SCHEMA = create_schema().core
REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLES = REPOSITORY / "api" / "graphiql" / "examples.js"
DOCUMENTATION = REPOSITORY / "docs" / "api.md"


def test_committed_sdl_is_the_schema() -> None:
    assert SDL_FILE.read_text() == sdl(), "run: python -m api.graphql.schema --write"


def test_sdl_is_printed_checked_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == sdl()

    monkeypatch.setattr(schema_module, "SDL_FILE", tmp_path / "schema.graphql")
    assert main(["--check"]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["--write"]) == 0
    assert main(["--check"]) == 0


def test_every_type_field_and_argument_is_described() -> None:
    undescribed = []
    for name, found in SCHEMA.type_map.items():
        if name.startswith("__") or is_specified_scalar_type(found):
            continue
        parts: dict[str, str | None] = {name: found.description}
        match found:
            case GraphQLObjectType() | GraphQLInterfaceType():
                for field_name, field in found.fields.items():
                    parts[f"{name}.{field_name}"] = field.description
                    for argument, told in field.args.items():
                        parts[f"{name}.{field_name}({argument})"] = told.description
            case GraphQLInputObjectType():
                parts |= {f"{name}.{key}": told.description for key, told in found.fields.items()}
            case GraphQLEnumType():
                parts |= {f"{name}.{key}": told.description for key, told in found.values.items()}
        undescribed += [part for part, description in parts.items() if not description]

    assert undescribed == []


def test_every_list_of_the_log_or_a_projection_is_a_page() -> None:
    query = SCHEMA.query_type
    assert query is not None
    objects = ("lots", "parts", "documents", "inspections", "nonconformances", "instruments")
    opinions = ("models", "predictions", "scenarios", "setpointProposals", "spareParts")
    for name in ("assets", "alerts", "events", *objects, *opinions):
        assert str(query.fields[name].type).endswith("Connection!")
        assert str(query.fields[name].args["first"].type) == "Int!"


def test_every_mutation_takes_one_input_and_returns_a_union_with_every_failure() -> None:
    mutations = SCHEMA.mutation_type
    assert mutations is not None
    for name, field in mutations.fields.items():
        assert list(field.args) == ["input"]
        if name == "batch":
            continue  # each of its items has what follows
        title = name[0].upper() + name[1:]
        assert str(field.args["input"].type) == f"{title}Input!"
        input_type = SCHEMA.type_map[f"{title}Input"]
        assert isinstance(input_type, GraphQLInputObjectType)
        assert {"idempotencyKey", "expectedVersion", "dryRun"} <= set(input_type.fields)
        assert str(input_type.fields["idempotencyKey"].type) == "String!"
        union = SCHEMA.type_map[f"{title}Result"]
        assert isinstance(union, GraphQLUnionType)
        assert [member.name for member in union.types] == [
            f"{title}Success",
            "ValidationError",
            "ConflictError",
            "NotFoundError",
            "NotAllowedError",
            "RejectedError",
            "UnavailableError",
        ]


def test_examples_of_graphiql_are_valid() -> None:
    source = EXAMPLES.read_text()
    queries = re.findall(r"query: `(.*?)`", source, re.DOTALL)
    assert len(queries) == len(re.findall(r"title: ", source)) > 0
    for query in queries:
        Documents(SCHEMA).prepare(query)


def test_documents_in_the_documentation_are_valid() -> None:
    text = DOCUMENTATION.read_text()
    documents = re.findall(r"```graphql\n(.*?)```", text, re.DOTALL)
    bodies = [json.loads(body)["query"] for body in re.findall(r"-d '(\{.*?\})'", text, re.DOTALL)]
    assert documents
    assert bodies
    for document in (*documents, *bodies):
        Documents(SCHEMA).prepare(document)
