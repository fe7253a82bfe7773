"""What docs/webhooks.md shows is valid, and its settings are those that there are."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from api.graphql.preparation import Documents
from api.graphql.schema import create_schema
from api.settings import ServerSettings

REPOSITORY = Path(__file__).resolve().parents[3]
TEXT = (REPOSITORY / "docs" / "webhooks.md").read_text()


def test_documents_are_valid() -> None:
    schema = create_schema().core
    documents = re.findall(r"```graphql\n(.*?)```", TEXT, re.DOTALL)
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
    stored = [example["input"]["document"] for example in examples]
    assert documents
    assert stored
    for document in (*documents, *stored):
        Documents(schema).prepare(document)


def test_every_setting_is_documented_and_every_mutation_named() -> None:
    settings = {f"HEDDLE_{f.name.upper()}" for f in fields(ServerSettings) if "webhook" in f.name}
    assert settings == set(re.findall(r"`(HEDDLE_WEBHOOK_[A-Z_]+)`", TEXT))
    mutation = create_schema().core.mutation_type
    assert mutation is not None
    for name in mutation.fields:
        assert (
            not name.endswith(("Webhook", "WebhookSecret"))
            or f"`{name}`" in TEXT
            or (f"{name}(" in TEXT)
        )
