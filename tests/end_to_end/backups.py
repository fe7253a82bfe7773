"""PostgreSQL's own programs, and Heddle's command, as an operator runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from eventlog.embedded.cluster import Cluster
from eventlog.embedded.folders import Layout, server_account
from tests.recordings import REPOSITORY

PATIENCE_S = 120


def run_program(data_dir: Path, program: str, *arguments: str | Path) -> str:
    """Run one of the programs that serve `data_dir`; return what it said."""
    programs = Cluster.of(Layout.of(data_dir), server_account()).programs
    done = subprocess.run(
        [programs / program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def heddle(
    database_url: str, keys_dir: Path, *arguments: str, **settings: str
) -> tuple[int, dict[str, Any], str]:
    """Run `heddle` with `--json`; return its exit status, its document, and its complaints."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments, "--json"],
        cwd=REPOSITORY,
        env=os.environ
        | {"HEDDLE_DATABASE_URL": database_url, "HEDDLE_KEYS_DIR": str(keys_dir)}
        | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def give_to_server(path: Path) -> None:
    """Make `path` and all below it the server's own."""
    account = server_account()
    for found in (path, *path.rglob("*")):
        shutil.chown(found, account.uid, account.gid)
