"""Scenarios: what-if runs on a twin, recorded with their assumptions and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from domain.asset import asset_stream
from domain.asset_decider import registered_asset
from domain.deciders import Decider, Others
from domain.errors import CommandRejected, InvalidInput
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.opinions.figures import (
    check_ascending,
    check_between,
    check_count,
    check_finite,
    check_positions,
)
from domain.texts import NAME_LENGTH_MAX, TITLE_LENGTH_MAX, check_note, check_text
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem

FUTURES_MAX: Final = 100_000_000
SEED_MAX: Final = 2**53 - 1


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


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class RunScenario:
    """Record a what-if and what came out; see `ScenarioRun`."""

    scenario_id: str
    asset_id: str
    title: str
    from_position: int
    futures: int
    seed: int
    assumptions: tuple[Assumption, ...]
    deltas: tuple[Delta, ...]


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class NotRun:
    """Nobody has run it."""


@dataclass(frozen=True)
class Run:
    """It was run, on an asset."""

    scenario_id: str
    asset_id: str


Scenario = NotRun | Run


# --- decisions ----------------------------------------------------------------------------


def decide(command: RunScenario, scenario: Scenario, others: Others) -> tuple[ScenarioEvent, ...]:
    """Return the event `command` causes on `scenario`.

    Parameters
    ----------
    others : the asset that `looks_at` names

    Raises
    ------
    CommandRejected
        ``scenario.already_run``, ``asset.retired``
    NotFound
        ``asset.unknown``
    InvalidInput
        ``scenario.malformed_name``, ``figure.not_finite``, ``figure.out_of_range``,
        ``figure.out_of_order``, ``figure.too_many``, ``position.out_of_range``,
        ``scenario.without_deltas``, ``text.empty``, ``text.too_long``
    """
    check_identifier("scenario", command.scenario_id)
    check_text("title", command.title, TITLE_LENGTH_MAX)
    check_positions(command.from_position, command.from_position)
    check_between("futures", command.futures, 1, FUTURES_MAX)
    check_between("seed", command.seed, -SEED_MAX, SEED_MAX)
    _check_assumptions(command.assumptions)
    _check_deltas(command)
    if not isinstance(scenario, NotRun):
        raise CommandRejected(
            "scenario.already_run",
            f"scenario {command.scenario_id!r} was run already",
            hint="choose another name; a scenario is recorded once",
            value=command.scenario_id,
        )
    registered_asset(command.asset_id, others)
    return (ScenarioRun(**vars(command)),)


def _check_assumptions(assumptions: tuple[Assumption, ...]) -> None:
    check_count("assumptions", len(assumptions))
    for assumption in assumptions:
        name = check_text("assumption", assumption.name, TITLE_LENGTH_MAX)
        check_note("unit", assumption.unit, NAME_LENGTH_MAX)
        check_finite(name, assumption.value)


def _check_deltas(command: RunScenario) -> None:
    check_count("deltas", len(command.deltas))
    if not command.deltas:
        raise InvalidInput(
            "scenario.without_deltas",
            f"scenario {command.scenario_id!r} says nothing of what changes",
            hint="give at least one indicator with its interval",
            value=command.scenario_id,
        )
    for delta in command.deltas:
        name = check_text("indicator", delta.indicator, TITLE_LENGTH_MAX)
        check_note("unit", delta.unit, NAME_LENGTH_MAX)
        check_finite(name, delta.mean)
        # The mean of a skewed distribution may lie outside an interval of its quantiles.
        check_ascending(f"interval of {name!r}", (delta.lower, delta.upper))
        check_between("confidence", delta.confidence, 0, 1)


def looks_at(command: RunScenario, _scenario: Scenario, _others: Others) -> tuple[str, ...]:
    """Return the stream of the asset whose twin was forked."""
    return (asset_stream(command.asset_id),)


# --- fold ---------------------------------------------------------------------------------


def evolve(scenario: Scenario, event: ScenarioEvent) -> Scenario:
    """Return what `event` makes of `scenario`.

    Raises
    ------
    ValueError
        it was run already
    """
    if isinstance(scenario, Run):
        raise ValueError(f"scenario {event.scenario_id!r} was run already")
    return Run(event.scenario_id, event.asset_id)


DECIDER: Final[Decider[RunScenario, Scenario, ScenarioEvent]] = Decider(
    category="scenario",
    command_types=(RunScenario,),
    initial=NotRun(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: scenario_stream(command.scenario_id),
    stream_of=lambda event: scenario_stream(event.scenario_id),
    looks_at=looks_at,
)
