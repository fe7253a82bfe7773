"""Secrets are found where they belong, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import HeddleError
from edge_agent.secrets import read_secret, secret, text_or_secret
from edge_agent.yaml_section import read_document


def kept(folder: Path, name: str, text: str, mode: int = 0o600) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(mode)


def test_environment_goes_before_files(tmp_path: Path) -> None:
    kept(tmp_path, "plc-1.password", "from a file\n")
    environment = {"HEDDLE_SECRETS_DIR": str(tmp_path)}
    assert read_secret("plc-1.password", environment) == "from a file"
    environment["HEDDLE_SECRET_PLC_1_PASSWORD"] = "from the environment"
    assert read_secret("plc-1.password", environment) == "from the environment"


def test_credentials_of_systemd_are_found(tmp_path: Path) -> None:
    kept(tmp_path, "broker", "s3cret", 0o400)
    assert read_secret("broker", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "s3cret"


@pytest.mark.parametrize(
    ("name", "text", "mode", "code"),
    [
        ("open", "x", 0o644, "secret.open_to_others"),
        ("empty", "\n", 0o600, "secret.empty"),
        ("large", "x" * 65_537, 0o600, "secret.too_large"),
    ],
)
def test_unsound_secret_is_refused_without_its_text(
    tmp_path: Path, name: str, text: str, mode: int, code: str
) -> None:
    kept(tmp_path, name, text, mode)
    with pytest.raises(HeddleError) as refused:
        read_secret(name, {"HEDDLE_SECRETS_DIR": str(tmp_path)})
    assert refused.value.code == code
    assert text.strip() == "" or text not in str(refused.value)


@pytest.mark.parametrize("name", ["../etc/passwd", "", ".hidden", "a/b", "x" * 101])
def test_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(HeddleError) as refused:
        read_secret(name, {"HEDDLE_SECRETS_DIR": str(tmp_path)})
    assert refused.value.code == "secret.malformed_name"


def test_missing_secret_says_where_it_may_be_told() -> None:
    with pytest.raises(HeddleError) as missing:
        read_secret("plc-1", {})
    assert missing.value.code == "secret.missing"
    assert "HEDDLE_SECRET_PLC_1" in missing.value.hint


def test_secret_in_the_configuration_is_a_fault_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("user: jane\npassword: hunter2\nother: {secret: gone}\ngood: {secret: there}\n")
    monkeypatch.setenv("HEDDLE_SECRET_THERE", "well kept")
    section = read_document(file)
    assert text_or_secret(section, "user") == "jane"
    assert secret(section, "password") is None
    assert secret(section, "other") is None
    assert secret(section, "good") == "well kept"
    section.finish()
    assert [(fault.line, fault.code) for fault in section.faults] == [
        (2, "secret.in_configuration"),
        (3, "secret.missing"),
    ]
    assert "hunter2" not in str(section.faults)
