"""The key's files: one key whoever starts first, closed to others, of one origin."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from domain.errors import InvalidInput
from eventlog.transparency.notes import SigningKey
from eventlog.transparency.signing_keys import SigningKeys
from tests.eventlog.signing import ORIGIN
from tests.recordings import REPOSITORY


def test_a_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path / "keys", "plant-1", ORIGIN)
    assert keys.verifier() is None
    first = keys.current()
    assert keys.current() == first
    assert keys.verifier() == first.verifier
    mode = (tmp_path / "keys" / "plant-1.key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == [
        "plant-1.key",
        "plant-1.vkey",
    ]


@pytest.mark.slow
def test_processes_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from eventlog.transparency.signing_keys import SigningKeys\n"
        f"keys = SigningKeys(pathlib.Path(sys.argv[1]), 'plant-1', '{ORIGIN}')\n"
        "print(keys.current().verifier.vkey)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path, "plant-1", ORIGIN)
    keys.current()
    (tmp_path / "plant-1.key").chmod(0o640)
    with pytest.raises(InvalidInput) as refused:
        keys.current()
    assert (refused.value.code, refused.value.value) == ("key.open_to_others", "0640")


def test_a_key_belongs_to_one_origin(tmp_path: Path) -> None:
    SigningKeys(tmp_path, "plant-1", ORIGIN).current()
    with pytest.raises(InvalidInput) as refused:
        SigningKeys(tmp_path, "plant-1", "elsewhere.example/plant-1").current()
    assert (refused.value.code, refused.value.value) == ("key.other_origin", ORIGIN)


def test_a_given_key_needs_no_file(tmp_path: Path) -> None:
    given = SigningKey.generate(ORIGIN)
    keys = SigningKeys(tmp_path / "keys", "plant-1", ORIGIN, given)
    assert keys.current() == given
    assert keys.verifier() == given.verifier
    assert not (tmp_path / "keys").exists()
