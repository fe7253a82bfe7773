"""The configurations that the documentation of the protocols shows are ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_agent.configuration import read_configuration
from tests.recordings import REPOSITORY, data_folder

DOCUMENT = REPOSITORY / "docs" / "edge-protocols.md"
KINDS = ("mqtt", "sparkplug", "bacnet", "serial-line", "csv")


def example(kind: str) -> str:
    """Return the example whose first source is of `kind`."""
    for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        if re.search(rf"sources:\n\s+- {{?kind: {kind}\b", block):
            return str(block)
    raise AssertionError(f"no example of {kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_a_configuration(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_BROKER_PASSWORD", "not a secret")
    file = tmp_path / "agent.yaml"
    file.write_text("agent: example\n" + example(kind))
    folder = data_folder() if kind == "csv" else tmp_path
    configuration = read_configuration(file, folder)
    assert configuration.sources or configuration.live
