"""Scenarios: what-if runs on a twin, recorded with their assumptions and what came out."""

from __future__ import annotations

from dataclasses import dataclass

from domain.asset import asset_stream
from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def scenario_stream(scenario_id: str) -> str:
    """Return the stream of a scenario."""
    return f"scenario:{scenario_id}"


@dataclass(frozen=True)
class Assumption:
    """What a scenario takes as given; `value` in the SI unit `unit`."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Delta:
    """By how much an indicator changes against doing nothing, with an interval; in `unit`."""

    indicator: str
    mean: float
    lower: float
    upper: float
    confidence: float
    unit: str


@event_type("scenario.run")
@dataclass(frozen=True)
class ScenarioRun:
    """A twin was forked at a position of the log and simulated under assumptions."""

    scenario_id: str
    asset_id: str
    title: str
    from_position: int
    futures: int
    seed: int
    assumptions: tuple[Assumption, ...]
    deltas: tuple[Delta, ...]

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return what it is about."""
        node = scenario_stream(self.scenario_id)
        return (
            Standing(node, NodeState.COMPLETED),
            Link(LinkKind.ABOUT, asset_stream(self.asset_id), node),
        )


ScenarioEvent = ScenarioRun
