"""How `pytest -n` shares the tests out among its processes.

A file's tests stay together and in order: what they share is made once, and whoever looks into a
failure knows what ran before. Tests of whole processes follow each other on one worker, because
two of them at once leave the machine to neither; that worker begins with them, since they take the
longest.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadFileScheduling

PROCESSES: Final = "tests/end_to_end/"
"""The folder whose tests start servers and agents, kill them and wait for them."""

TOLD: Final = "told"
"""Name of a test's property whose value is shown when all have run: a worker's output is not."""


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist ships no types
    """One unit of work for each file, and one for all of `PROCESSES`."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # by number of tests: it says nothing of how long
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return PROCESSES if nodeid.startswith(PROCESSES) else nodeid.partition("::")[0]


def processes_first(items: list[pytest.Item]) -> None:
    """Move the tests of `PROCESSES` to the front; all others keep their order."""
    items.sort(key=lambda item: not item.nodeid.startswith(PROCESSES))
