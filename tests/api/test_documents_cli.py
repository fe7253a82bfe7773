"""`heddle document` as somebody types it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.documents_cli import register
from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound, Unavailable

DRAWING = b"ISO-10303-21;\nHEADER;\n" * 500


class Shell:
    """A person at a machine whose settings name the test's database."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self.documents = folder / "files of documents"
        self._environment = {
            "HEDDLE_DATABASE_URL": database_url,
            "HEDDLE_DATA_DIR": str(folder),
            "HEDDLE_DOCUMENTS_URL": str(self.documents),
        }
        self._app = typer.Typer()
        register(self._app)

    def __call__(self, *arguments: str) -> Any:
        """Run a sub-command and return the document it prints."""
        return json.loads(self.text(*arguments, "--json"))

    def text(self, *arguments: str) -> str:
        """Run a sub-command and return the lines it prints."""
        result = CliRunner().invoke(self._app, ["document", *arguments], env=self._environment)
        if isinstance(result.exception, HeddleError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def add(self, content: bytes, revision: str, *options: str) -> Any:
        """Write `content` to a file and add it as a revision of DRW-7."""
        return self("add", *self.adding(content, revision), *options)

    def adding(self, content: bytes, revision: str) -> list[str]:
        file = self.folder / "housing.step"
        file.write_bytes(content)
        options = f"--id DRW-7 --revision {revision} --kind DESIGN --actor user:mara"
        return [str(file), *options.split(), "--title", "Bearing housing"]


@pytest.fixture
def heddle(database_url: str, tmp_path: Path) -> Shell:
    return Shell(database_url, tmp_path)


def test_a_file_is_added_and_got_back(heddle: Shell) -> None:
    told = heddle.add(DRAWING, "B", "--part-number", "HSG-100")
    sha256 = hashlib.sha256(DRAWING).hexdigest()
    assert told == {
        "revision": "DRW-7@B",
        "sha256": sha256,
        "size_bytes": len(DRAWING),
        "media_type": "model/step",
        "documents": f"file://{heddle.documents}",
        "released": True,
        "superseded": None,
        "position": 1,
    }
    output = heddle.folder / "got.step"
    told = heddle("get", "DRW-7@B", "-o", str(output))
    assert (told["sha256"], told["size_bytes"]) == (sha256, len(DRAWING))
    assert (told["superseded_by"], told["withdrawn"]) == (None, False)
    assert output.read_bytes() == DRAWING


def test_adding_again_changes_nothing(heddle: Shell) -> None:
    first = heddle.add(DRAWING, "B")
    assert heddle.add(DRAWING, "B") == {**first, "released": False}
    assert "it was released before" in heddle.text("add", *heddle.adding(DRAWING, "B"))


def test_a_revision_with_another_effectivity_is_refused(heddle: Shell) -> None:
    heddle.add(DRAWING, "B")
    with pytest.raises(CommandRejected) as refused:
        heddle.add(DRAWING, "B", "--effective-from", "2025-04-01T06:00:00Z")
    assert refused.value.code == "document.revision_exists"


def test_a_revision_with_other_content_is_refused(heddle: Shell) -> None:
    heddle.add(DRAWING, "B")
    with pytest.raises(CommandRejected) as refused:
        heddle.add(DRAWING + b"!", "B")
    assert refused.value.code == "document.revision_exists"


def test_a_revision_takes_the_place_of_another(heddle: Shell) -> None:
    heddle.add(DRAWING, "A")
    told = heddle.add(DRAWING + b"!", "B", "--supersedes", "A")
    assert (told["superseded"], told["position"]) == ("A", 3)
    output = heddle.folder / "got.step"
    assert heddle("get", "DRW-7@A", "-o", str(output))["superseded_by"] == "B"
    assert output.read_bytes() == DRAWING
    assert "superseded by B" in heddle.text("get", "DRW-7@A", "-o", str(output))


def test_what_is_not_released_is_not_got(heddle: Shell) -> None:
    heddle.add(DRAWING, "A")
    output = heddle.folder / "got.step"
    with pytest.raises(NotFound) as refused:
        heddle("get", "DRW-7@B", "-o", str(output))
    assert refused.value.code == "document.revision_unknown"
    with pytest.raises(InvalidInput) as malformed:
        heddle("get", "DRW-7", "-o", str(output))
    assert malformed.value.code == "document.malformed_revision_name"
    assert not output.exists()


def test_what_was_changed_in_the_store_is_not_given_out(heddle: Shell) -> None:
    sha256 = heddle.add(DRAWING, "A")["sha256"]
    (heddle.documents / "sha256" / sha256[:2] / sha256).write_bytes(DRAWING[:-1])
    output = heddle.folder / "got.step"
    with pytest.raises(Unavailable) as refused:
        heddle("get", "DRW-7@A", "-o", str(output))
    assert refused.value.code == "documents.corrupt"
    assert not output.exists()


@pytest.mark.parametrize("text", ["tomorrow", "2025-04-01T06:00:00", ""])
def test_a_time_has_a_zone(heddle: Shell, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        heddle.add(DRAWING, "A", "--effective-from", text)
    assert (refused.value.code, refused.value.value) == ("document.time", text)
    assert not heddle.documents.exists()


def test_effectivity_is_kept(heddle: Shell) -> None:
    with pytest.raises(InvalidInput) as refused:
        heddle.add(
            DRAWING,
            "A",
            *("--effective-from", "2025-04-01T06:00:00+02:00"),
            *("--effective-to", "2025-04-01T04:00:00Z"),
        )
    assert refused.value.code == "document.effectivity"
