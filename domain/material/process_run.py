"""Process runs: an asset carries out an operation, with its parameters and its operator."""

from __future__ import annotations

from dataclasses import dataclass

from domain.asset import asset_stream
from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


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

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(process_run_stream(self.run_id), NodeState.COMPLETED),)


@event_type("process_run.aborted")
@dataclass(frozen=True)
class ProcessRunAborted:
    """A run was given up."""

    run_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(process_run_stream(self.run_id), NodeState.ABORTED),)


ProcessRunEvent = ProcessRunStarted | ProcessRunCompleted | ProcessRunAborted
