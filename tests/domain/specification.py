"""The shape of a decider's test: given past events, when a command, then events or a rejection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from domain.asset import AssetCommand, AssetEvent, decide, evolve, fold
from domain.errors import HeddleError


@dataclass(frozen=True)
class Given:
    """An asset with a past."""

    past: tuple[AssetEvent, ...]

    def when(self, command: AssetCommand) -> When:
        """Ask `command` of the asset."""
        return When(self.past, command)


@dataclass(frozen=True)
class When:
    """A command asked of an asset with a past."""

    past: tuple[AssetEvent, ...]
    command: AssetCommand

    def then(self, *events: AssetEvent) -> None:
        """Expect exactly `events`, and that each of them can happen to the asset."""
        asset = fold(self.past)
        decided = decide(self.command, asset)
        assert decided == events
        for event in decided:
            asset = evolve(asset, event)

    def then_rejected(self, error: type[HeddleError], code: str, value: Any = None) -> None:
        """Expect the rejection `code` and, where one is given, its offending `value`."""
        with pytest.raises(error) as rejected:
            decide(self.command, fold(self.past))
        assert type(rejected.value) is error
        assert rejected.value.code == code
        assert rejected.value.message
        if value is not None:
            assert rejected.value.value == value


def given(*events: AssetEvent) -> Given:
    """Start from an asset to which `events` have happened."""
    return Given(events)
