"""Process runs: an asset carries out an operation, with its parameters and its operator.

Every event has `flags`: codes of what did not fit when it was recorded, and was recorded all the
same, because it had happened (`domain.material.objections`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never, get_args

from domain.asset import asset_stream
from domain.asset_decider import Registered, retired_asset, unknown_asset
from domain.asset_decider import Retired as RetiredAsset
from domain.deciders import Decider, Others
from domain.documents.document import check_revision_name
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.material.objections import Objections
from domain.texts import TITLE_LENGTH_MAX, check_text
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem
from domain.units import unit

PARAMETERS_MAX: Final = 256
UNKNOWN: Final = "process_run.unknown"


# --- events -------------------------------------------------------------------------------


def process_run_stream(run_id: str) -> str:
    """Return the stream of a process run."""
    return f"process-run:{run_id}"


@dataclass(frozen=True)
class SetParameter:
    """What a parameter was set to, in `unit`."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class ActualParameter:
    """What a parameter was, in `unit`, over the run: its mean and its extremes."""

    name: str
    mean: float
    minimum: float
    maximum: float
    unit: str


@event_type("process_run.started")
@dataclass(frozen=True)
class ProcessRunStarted:
    """An asset began an operation. The telemetry from here to the end is the run's.

    `recipe` and `design` name revisions of documents, ``RCP-3@C``, or are None.
    """

    run_id: str
    asset_id: str
    operation: str
    recipe: str | None
    design: str | None
    tool: str | None
    operator: str | None
    parameters: tuple[SetParameter, ...]
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return which asset performs it, and by which documents."""
        node = process_run_stream(self.run_id)
        specified = [name for name in (self.recipe, self.design) if name is not None]
        return (
            Standing(node, NodeState.IN_PROCESS),
            Link(LinkKind.PERFORMED, asset_stream(self.asset_id), node),
            *(Link(LinkKind.SPECIFIED, f"document:{name}", node) for name in specified),
        )


@event_type("process_run.completed")
@dataclass(frozen=True)
class ProcessRunCompleted:
    """A run came to its end; `energy_j` is what it took, where it was measured."""

    run_id: str
    parameters: tuple[ActualParameter, ...]
    energy_j: float | None
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(process_run_stream(self.run_id), NodeState.COMPLETED),)


@event_type("process_run.aborted")
@dataclass(frozen=True)
class ProcessRunAborted:
    """A run was given up."""

    run_id: str
    reason: str
    flags: tuple[str, ...] = ()

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(process_run_stream(self.run_id), NodeState.ABORTED),)


ProcessRunEvent = ProcessRunStarted | ProcessRunCompleted | ProcessRunAborted


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class StartProcessRun:
    """Begin an operation; see `ProcessRunStarted`."""

    run_id: str
    asset_id: str
    operation: str
    recipe: str | None = None
    design: str | None = None
    tool: str | None = None
    operator: str | None = None
    parameters: tuple[SetParameter, ...] = ()
    late: bool = False


@dataclass(frozen=True)
class CompleteProcessRun:
    """Bring a run to its end; see `ProcessRunCompleted`."""

    run_id: str
    parameters: tuple[ActualParameter, ...] = ()
    energy_j: float | None = None
    late: bool = False


@dataclass(frozen=True)
class AbortProcessRun:
    """Give a run up."""

    run_id: str
    reason: str
    late: bool = False


ProcessRunCommand = StartProcessRun | CompleteProcessRun | AbortProcessRun


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnknownRun:
    """Nobody has said that this run began; `ended` when its end was told before."""

    ended: bool = False


@dataclass(frozen=True)
class Running:
    """Begun, and not ended. `units` are those of the parameters that were set, by name."""

    run_id: str
    asset_id: str
    units: Mapping[str, str]


@dataclass(frozen=True)
class Ended:
    """Completed or aborted."""

    run_id: str
    asset_id: str


ProcessRun = UnknownRun | Running | Ended


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: ProcessRunCommand, run: ProcessRun, others: Others
) -> tuple[ProcessRunEvent, ...]:
    """Return the events `command` causes on `run`.

    Raises
    ------
    NotFound
        ``process_run.unknown``, ``asset.unknown``
    CommandRejected
        ``process_run.already_started``, ``process_run.ended``, ``asset.retired``
    InvalidInput
        ``process_run.parameter_not_finite``, ``process_run.parameter_repeated``,
        ``process_run.parameter_inconsistent``, ``process_run.too_many_parameters``,
        ``process_run.energy_out_of_range``, ``unit.unknown``, ``unit.quantity_mismatch``, names
        and texts
    """
    now: ProcessRun = others.get(process_run_stream(command.run_id), run)
    objections = Objections(late=command.late)
    match command:
        case StartProcessRun():
            return (_start(command, now, others, objections),)
        case CompleteProcessRun():
            _check_end(command.run_id, run, now, objections)
            units = now.units if isinstance(now, Running) else {}
            _check_actual(command.parameters, units)
            _check_energy(command.energy_j)
            return (
                ProcessRunCompleted(
                    command.run_id, command.parameters, command.energy_j, objections.flags
                ),
            )
        case AbortProcessRun():
            reason = check_text("reason", command.reason)
            _check_end(command.run_id, run, now, objections)
            return (ProcessRunAborted(command.run_id, reason, objections.flags),)
        case _:
            assert_never(command)


def unknown_run(run_id: str) -> NotFound:
    """Return the error for a run that nobody said began."""
    return NotFound(
        UNKNOWN,
        f"process run {run_id!r} has not begun",
        hint="start it first, or check the name",
        value=run_id,
    )


def looks_at_run(run_id: str) -> str:
    """Return the stream of the run `run_id`, whose name is checked.

    Raises
    ------
    InvalidInput
        ``process_run.malformed_name``
    """
    return process_run_stream(check_identifier("process_run", run_id))


def object_to_unknown_run(run_id: str, others: Others, objections: Objections) -> None:
    """Object unless somebody said that the run began; ended or not."""
    if isinstance(others[process_run_stream(run_id)], UnknownRun):
        objections.object(unknown_run(run_id))


def _start(
    command: StartProcessRun, now: ProcessRun, others: Others, objections: Objections
) -> ProcessRunStarted:
    if not isinstance(now, UnknownRun):
        raise CommandRejected(
            "process_run.already_started",
            f"process run {command.run_id!r} began on asset {now.asset_id!r}",
            hint="choose another name, or correct what was recorded",
            value=command.run_id,
        )
    for name in (command.recipe, command.design):
        if name is not None:
            check_revision_name(name)
    operation = check_text("operation", command.operation, TITLE_LENGTH_MAX)
    tool = _optional_text("tool", command.tool)
    operator = _optional_text("operator", command.operator)
    _check_names([p.name for p in command.parameters])
    for parameter in command.parameters:
        _check_finite(parameter.name, parameter.value)
        unit(parameter.unit)
    asset = others[asset_stream(command.asset_id)]
    if isinstance(asset, RetiredAsset):
        objections.object(retired_asset(command.asset_id))
    elif not isinstance(asset, Registered):
        objections.object(unknown_asset(command.asset_id))
    return ProcessRunStarted(
        command.run_id,
        command.asset_id,
        operation,
        command.recipe,
        command.design,
        tool,
        operator,
        command.parameters,
        objections.flags,
    )


def _optional_text(name: str, text: str | None) -> str | None:
    return None if text is None else check_text(name, text, TITLE_LENGTH_MAX)


def _check_end(run_id: str, run: ProcessRun, now: ProcessRun, objections: Objections) -> None:
    # Told late or not: of two ends one is wrong, and a wrong one is corrected.
    if isinstance(now, Ended) or (isinstance(now, UnknownRun) and now.ended):
        raise CommandRejected(
            "process_run.ended",
            f"process run {run_id!r} has ended already",
            hint="correct the end that was recorded if it was wrong",
            value=run_id,
        )
    if isinstance(run, UnknownRun):
        objections.object(unknown_run(run_id))


def _check_actual(parameters: Sequence[ActualParameter], units: Mapping[str, str]) -> None:
    _check_names([p.name for p in parameters])
    for parameter in parameters:
        for value in (parameter.mean, parameter.minimum, parameter.maximum):
            _check_finite(parameter.name, value)
        was_set = units.get(parameter.name)
        unit(parameter.unit, quantity=None if was_set is None else unit(was_set).quantity)
        if not parameter.minimum <= parameter.mean <= parameter.maximum:
            raise InvalidInput(
                "process_run.parameter_inconsistent",
                f"the mean of {parameter.name!r}, {parameter.mean}, is not between its extremes",
                value=parameter.mean,
                limit=[parameter.minimum, parameter.maximum],
            )


def _check_names(names: Sequence[str]) -> None:
    if len(names) > PARAMETERS_MAX:
        raise InvalidInput(
            "process_run.too_many_parameters",
            f"{len(names)} parameters are more than {PARAMETERS_MAX}",
            value=len(names),
            limit=PARAMETERS_MAX,
        )
    seen: set[str] = set()
    for name in names:
        if check_identifier("parameter", name) in seen:
            raise InvalidInput(
                "process_run.parameter_repeated", f"parameter {name!r} is given twice", value=name
            )
        seen.add(name)


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise InvalidInput(
            "process_run.parameter_not_finite",
            f"parameter {name!r} cannot be {value}",
            value=str(value),
        )


def _check_energy(energy_j: float | None) -> None:
    if energy_j is not None and not 0 <= energy_j < math.inf:
        raise InvalidInput(
            "process_run.energy_out_of_range",
            f"a run cannot take {energy_j} J",
            value=str(energy_j),
            limit=0,
        )


def _looks_at(command: ProcessRunCommand, _run: ProcessRun, _others: Others) -> tuple[str, ...]:
    own = (process_run_stream(command.run_id),) if command.late else ()
    if isinstance(command, StartProcessRun):
        return (*own, asset_stream(check_identifier("asset", command.asset_id)))
    return own


# --- fold ---------------------------------------------------------------------------------


def evolve(run: ProcessRun, event: ProcessRunEvent) -> ProcessRun:
    """Return what `event` makes of `run`; an end that was told late may stand before the start."""
    match event, run:
        case ProcessRunStarted(), UnknownRun(ended=False):
            units = {p.name: p.unit for p in event.parameters}
            return Running(event.run_id, event.asset_id, units)
        case ProcessRunStarted(), UnknownRun(ended=True):
            return Ended(event.run_id, event.asset_id)
        case ((ProcessRunCompleted() | ProcessRunAborted()), Running()):
            return Ended(run.run_id, run.asset_id)
        case ((ProcessRunCompleted() | ProcessRunAborted()), UnknownRun(ended=False)) if (
            UNKNOWN in event.flags
        ):
            return UnknownRun(ended=True)
        case _:
            raise ValueError(f"{type(event).__name__} cannot happen to {type(run).__name__}")


DECIDER: Final[Decider[ProcessRunCommand, ProcessRun, ProcessRunEvent]] = Decider(
    category="process-run",
    command_types=get_args(ProcessRunCommand),
    initial=UnknownRun(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: process_run_stream(command.run_id),
    stream_of=lambda event: process_run_stream(event.run_id),
    looks_at=_looks_at,
    by_valid_time=True,
)
