"""The shape of a decider's test: given past events, when a command, then events or a rejection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from domain.asset import AssetEvent
from domain.asset_decider import DECIDER as ASSET_DECIDER
from domain.catalogue import decider_of_stream
from domain.deciders import Decider
from domain.errors import HeddleError


@dataclass(frozen=True)
class Given:
    """An object with a past, and other objects with theirs beside it, by stream."""

    decider: Decider[Any, Any, Any]
    past: tuple[Any, ...]
    others: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def beside(self, stream: str, *events: Any) -> Given:
        """Let `events` have happened to the other object of `stream`."""
        return replace(self, others={**self.others, stream: events})

    def when(self, command: Any) -> When:
        """Ask `command` of the object."""
        return When(self, command)


@dataclass(frozen=True)
class When:
    """A command asked of an object with a past."""

    given: Given
    command: Any

    def then(self, *events: Any) -> None:
        """Expect exactly `events`, and that each of the object's own can happen to it."""
        decider = self.given.decider
        assert isinstance(self.command, decider.command_types)
        subject = decider.subject(self.command)
        state = decider.fold(self.given.past)
        decided = self._decide()
        assert decided == events
        for event in decided:
            if decider.stream_of(event) == subject:
                state = decider.evolve(state, event)

    def then_rejected(self, error: type[HeddleError], code: str, value: Any = None) -> None:
        """Expect the rejection `code` and, where one is given, its offending `value`."""
        with pytest.raises(error) as rejected:
            self._decide()
        assert type(rejected.value) is error
        assert rejected.value.code == code
        assert rejected.value.message
        if value is not None:
            assert rejected.value.value == value

    def _decide(self) -> tuple[Any, ...]:
        """Decide as the log's commands do: only what is looked at is there to be seen."""
        decider = self.given.decider
        state = decider.fold(self.given.past)
        others: dict[str, Any] = {}
        while missing := [
            stream
            for stream in decider.looks_at(self.command, state, others)
            if stream not in others
        ]:
            others |= {stream: self._other(stream) for stream in missing}
        return decider.decide(self.command, state, others)

    def _other(self, stream: str) -> Any:
        decider = decider_of_stream(stream)
        return None if decider is None else decider.fold(self.given.others.get(stream, ()))


def given_of(decider: Decider[Any, Any, Any], *events: Any) -> Given:
    """Start from an object of `decider` to which `events` have happened."""
    return Given(decider, events)


def given(*events: AssetEvent) -> Given:
    """Start from an asset to which `events` have happened."""
    return Given(ASSET_DECIDER, events)
