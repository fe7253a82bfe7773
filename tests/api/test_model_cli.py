"""`heddle model` as somebody types it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.model_cli import register
from domain.errors import CommandRejected, HeddleError, InvalidInput

CONTENT = b"a model" * 100


class Shell:
    """A person at a machine whose settings name the test's database."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.documents = folder / "documents"
        self._folder = folder
        self._environment = {"HEDDLE_DATABASE_URL": database_url, "HEDDLE_DATA_DIR": str(folder)}
        self._app = typer.Typer()
        register(self._app)

    def add(self, content: bytes, *options: str, **changes: object) -> Any:
        """Add what a training wrote: the file `content` and its manifest."""
        at = self._folder / "trained"
        at.mkdir(exist_ok=True)
        (at / "model.onnx").write_bytes(content)
        described = {
            "model": "wear",
            "version": "1",
            "purpose": "a test",
            "artefact": "model.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "code_version": "abc",
            "seed": 7,
            "metrics": {"f1": 0.8},
        }
        (at / "model.json").write_text(json.dumps(described | changes))
        arguments = ["model", "add", str(at), "--actor=user:mara", "--json", *options]
        result = CliRunner().invoke(self._app, arguments, env=self._environment)
        if isinstance(result.exception, HeddleError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def heddle(database_url: str, tmp_path: Path) -> Shell:
    return Shell(database_url, tmp_path)


def test_a_version_is_added_once_and_promoted(heddle: Shell) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    added = {"model": "wear@1", "sha256": sha256, "trained": True, "promoted": False}
    assert heddle.add(CONTENT) == added
    assert (heddle.documents / "sha256" / sha256[:2] / sha256).read_bytes() == CONTENT
    assert heddle.add(CONTENT, "--promote=better") == added | {"trained": False, "promoted": True}
    again = heddle.add(CONTENT, "--promote=better")
    assert again == added | {"trained": False}, "nothing was left to do"


def test_another_file_under_the_same_version_is_refused(heddle: Shell) -> None:
    heddle.add(CONTENT)
    with pytest.raises(CommandRejected) as refused:
        heddle.add(CONTENT + b"!")
    assert refused.value.code == "model.version_exists"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sha256": "0" * 64}, "documents.hash_mismatch"),
        ({"version": 1}, "model.manifest"),
        ({"metrics": "good"}, "model.manifest"),
        ({"seed": "many"}, "model.manifest"),
    ],
)
def test_what_does_not_describe_its_file_is_refused(
    heddle: Shell, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        heddle.add(CONTENT, **changes)
    assert refused.value.code == code
