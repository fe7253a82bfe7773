"""`heddle generate` and `heddle trace` as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.generate_cli import register as register_generate
from api.trace_cli import register as register_trace
from api.transparency_cli import register as register_transparency
from domain.errors import Conflict, HeddleError, InvalidInput, NotFound


class Shell:
    """A person at a machine whose settings name the test's database."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self._environment = {"HEDDLE_DATABASE_URL": database_url, "HEDDLE_DATA_DIR": str(folder)}
        self._app = typer.Typer()
        for register in (register_generate, register_trace, register_transparency):
            register(self._app)

    def __call__(self, *arguments: str) -> Any:
        """Run a command and return the document it prints."""
        return json.loads(self.text(*arguments, "--json"))

    def text(self, *arguments: str) -> str:
        """Run a command and return the lines it prints."""
        result = CliRunner().invoke(self._app, list(arguments), env=self._environment)
        if isinstance(result.exception, HeddleError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def generate(self, parts: int = 30) -> Any:
        return self("generate", "--parts", str(parts), "--seed", "4", "--months", "3")


@pytest.fixture
def heddle(database_url: str, tmp_path: Path) -> Shell:
    return Shell(database_url, tmp_path)


def test_a_plant_is_generated_once_and_traced(heddle: Shell) -> None:
    made = heddle.generate()
    assert made["events"] == made["new"] == made["position"] > 1_000
    again = heddle.generate()
    assert again["complete_before"]
    assert (again["new"], again["position"]) == (0, made["position"])
    with pytest.raises(Conflict) as refused:
        heddle.generate(parts=31)
    assert refused.value.code == "history.other"

    bundle, report = heddle.folder / "sn.bundle", heddle.folder / "sn.html"
    files = ("--bundle", str(bundle), "--report", str(report))
    traced = heddle("trace", "part:SN-4-1", *files)
    assert traced["position"] == made["position"]
    assert traced["counts"]["PART"]
    assert traced["counts"]["LOT"]
    shown = heddle("verify-bundle", str(bundle), "--vkey", traced["vkey"])
    assert shown["clean"]
    assert shown["trusted"]
    assert shown["events"] == traced["events"]
    assert (shown["nodes"], shown["edges"]) == (traced["nodes"], traced["edges"])
    assert "part:SN-4-1" in report.read_text()

    lines = heddle.text("trace", "part:SN-4-1", *files)
    assert f"heddle verify-bundle {bundle} --vkey {traced['vkey']}" in lines
    told = heddle.text("verify-bundle", str(bundle), "--vkey", traced["vkey"])
    assert "all that the trace of part:SN-4-1 (both)" in told

    earlier = heddle("trace", "part:SN-4-1", "--summary", "--as-of", str(made["position"] // 2))
    assert earlier["position"] == made["position"] // 2
    assert earlier["events"] < traced["events"]
    forward = heddle("trace", "lot:LOT-4-1", "--summary", "--direction", "forward")
    assert forward["counts"]["PART"]
    assert "DOCUMENT" not in forward["counts"]

    with pytest.raises(NotFound) as unknown:
        heddle("trace", "part:nobody", "--summary")
    assert unknown.value.code == "thread.unknown_node"


def test_what_cannot_be_traced_is_refused_before_anything_is_opened(heddle: Shell) -> None:
    with pytest.raises(InvalidInput) as refused:
        heddle("trace", "part:SN-1", "--summary", "--direction", "sideways")
    assert refused.value.code == "trace.direction"
    with pytest.raises(InvalidInput) as no_output:
        heddle("trace", "part:SN-1", "--as-of", "7")
    assert no_output.value.code == "trace.no_output"
