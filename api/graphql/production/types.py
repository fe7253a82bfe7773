"""Types of production: process runs, what went through them, parameters set against actual."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import strawberry

from api.graphql.as_of import Asked, asked_now
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.fields import field
from api.graphql.references import ASSET, asset_named
from api.graphql.relay import (
    After,
    Connection,
    First,
    Node,
    check_first,
    connection,
    decode_position_cursor,
    encode_cursor,
    encode_id,
)
from api.graphql.scalars import Position, described_enum
from api.graphql.telemetry.queries import resolve_readings
from api.graphql.telemetry.types import ChannelUnit, ReadingColumn
from api.graphql.versions import VERSION, version_of
from domain.asset_types import asset_type
from domain.errors import NotFound
from domain.material.process_run import ActualParameter, SetParameter, process_run_stream
from domain.units import unit as unit_of
from projections.production.process_runs import ProcessRun as Standing
from projections.production.process_runs import (
    RunParameters,
    RunState,
    RunUnit,
    find_runs,
    parameters_of_runs,
    units_of_runs,
)
from projections.production.projection import How, ProductionProjection
from projections.telemetry.readings import POINTS_MAX

PROCESS_RUN: Final = "ProcessRun"
UNITS_CURSOR: Final = "units of a run"

described_enum(
    RunState,
    "How far a process run is.",
    {
        "RUNNING": "It has begun, and is not known to have ended.",
        "COMPLETED": "It came to its end.",
        "ABORTED": "It was given up.",
    },
    name="ProcessRunState",
)
described_enum(
    How,
    "What a run did to a part or lot.",
    {
        "PRODUCED": "The run made it.",
        "PROCESSED": "It went through the run.",
        "REWORKED": "It was mended in the run.",
    },
    name="RunUnitHow",
)

InParameterUnit = Annotated[
    str | None,
    strawberry.argument(
        description="Convert to this unit, such as `bar` or `degC`; null is `unit`, as it was "
        "recorded. A unit of another quantity is refused with `unit.quantity_mismatch`."
    ),
]


@strawberry.type(description="A parameter of a run: what it was set to, and what it was.")
class RunParameter:
    """A parameter of `projections.production.process_runs.RunParameters`."""

    was_set: strawberry.Private[SetParameter | None]
    was: strawberry.Private[ActualParameter | None]
    name: str = strawberry.field(description="Its name.")
    unit: str = strawberry.field(
        description="Unit of its values, as it was recorded: of what it was set to, or else of "
        "what it was."
    )

    @classmethod
    def all_of(cls, parameters: RunParameters) -> list[RunParameter]:
        """Return the parameters of a run by name."""
        was_set = {parameter.name: parameter for parameter in parameters.set}
        was = {parameter.name: parameter for parameter in parameters.actual}
        return [
            cls(
                was_set=was_set.get(name),
                was=was.get(name),
                name=name,
                unit=(was_set.get(name) or was[name]).unit,
            )
            for name in sorted(was_set.keys() | was.keys())
        ]

    @field(description="What it was set to; null where it was not.")
    def set_to(self, unit: InParameterUnit = None) -> float | None:
        """Return the set value in `unit`."""
        parameter = self.was_set
        return None if parameter is None else self._told(parameter.value, parameter.unit, unit)

    @field(description="What it was over the run, on average; null where nobody said.")
    def mean(self, unit: InParameterUnit = None) -> float | None:
        """Return the mean in `unit`."""
        return None if self.was is None else self._told(self.was.mean, self.was.unit, unit)

    @field(description="The least that it was over the run; null where nobody said.")
    def minimum(self, unit: InParameterUnit = None) -> float | None:
        """Return the minimum in `unit`."""
        return None if self.was is None else self._told(self.was.minimum, self.was.unit, unit)

    @field(description="The most that it was over the run; null where nobody said.")
    def maximum(self, unit: InParameterUnit = None) -> float | None:
        """Return the maximum in `unit`."""
        return None if self.was is None else self._told(self.was.maximum, self.was.unit, unit)

    def _told(self, value: float, recorded: str, wanted: str | None) -> float:
        symbol = wanted or self.unit
        if symbol == recorded:
            return value
        of_value = unit_of(recorded)
        return unit_of(symbol, quantity=of_value.quantity).from_si(of_value.to_si(value))


@strawberry.type(description="A part or lot that went through a run.")
class ProcessRunUnit:
    """`projections.production.process_runs.RunUnit`."""

    key: str = strawberry.field(description="Its stream, such as `part:SN-1042`.")
    how: How = strawberry.field(description="What the run did to it.")
    quantity: float = strawberry.field(description="How much of it, in `unit`.")
    unit: str = strawberry.field(description="Unit of the quantity; parts are counted in `part`.")
    occurred_at: datetime = strawberry.field(description="When it went through.")
    position: Position = strawberry.field(description="Position of the event that says so.")

    @classmethod
    def of(cls, unit: RunUnit) -> ProcessRunUnit:
        """Return `unit` as the schema tells it."""
        return cls(
            key=unit.unit_id,
            how=unit.how,
            quantity=unit.quantity,
            unit=unit.unit,
            occurred_at=unit.occurred_at,
            position=Position(unit.origin),
        )


@strawberry.type(description="An operation that an asset carried out once.")
class ProcessRun(Node):
    """`projections.production.process_runs.ProcessRun`."""

    run: strawberry.Private[Standing]
    asked: strawberry.Private[Asked]
    run_id: strawberry.ID = strawberry.field(description="Natural key.")
    key: str = strawberry.field(
        description="Its stream, `process-run:<runId>`, for `events`, `trace` and the audit trail."
    )
    asset_id: strawberry.ID = strawberry.field(description="Natural key of its asset.")
    operation: str = strawberry.field(description="What was done, such as `turning`.")
    state: RunState = strawberry.field(description="How far it is.")
    recipe: str | None = strawberry.field(
        description="Revision that says how, such as `RCP-3@C`; null where none was named."
    )
    design: str | None = strawberry.field(
        description="Revision that says what, such as `DRW-7@B`; null where none was named."
    )
    tool: str | None = strawberry.field(description="With which tool.")
    operator: str | None = strawberry.field(description="By whom.")
    started_at: datetime = strawberry.field(description="When it began.")
    ended_at: datetime | None = strawberry.field(
        description="When it was completed or given up; null before."
    )
    energy_j: float | None = strawberry.field(
        description="Energy that it took, J; null where it was not measured."
    )
    reason: str | None = strawberry.field(description="Why it was given up; null otherwise.")
    position: Position = strawberry.field(
        description="Position of the last event that made it what it is."
    )

    @classmethod
    def of(cls, run: Standing, asked: Asked) -> ProcessRun:
        """Return `run`, as it was `asked` for, as the schema tells it."""
        return cls(
            id=encode_id(PROCESS_RUN, run.run_id),
            run=run,
            asked=asked,
            run_id=strawberry.ID(run.run_id),
            key=process_run_stream(run.run_id),
            asset_id=strawberry.ID(run.asset_id),
            operation=run.operation,
            state=run.state,
            recipe=run.recipe,
            design=run.design,
            tool=run.tool,
            operator=run.operator,
            started_at=run.started_at,
            ended_at=run.ended_at,
            energy_j=run.energy_j,
            reason=run.reason,
            position=Position(run.position),
        )

    @field(description=VERSION)
    async def version(self, info: OperationInfo) -> Position:
        """Return the version of its stream."""
        return await version_of(info.context, self.key, self.asked.position)

    @field(description="Its asset.", type=ASSET | None)
    async def asset(self, info: OperationInfo) -> Any:
        """Return the asset."""
        return await asset_named(info.context, self.asset_id, self.asked)

    @field(description="Its parameters by name: what was set, and what was.")
    async def parameters(self, info: OperationInfo) -> list[RunParameter]:
        """Return the parameters of the run."""
        return RunParameter.all_of(await _parameters(info.context, self))

    @field(
        description="Codes of what did not fit when it was recorded, and was recorded all the same."
    )
    async def flags(self, info: OperationInfo) -> list[str]:
        """Return the flags of the run."""
        return list((await _parameters(info.context, self)).flags)

    @field(description="Parts and lots that went through it, in the order of the log.")
    async def units(
        self, info: OperationInfo, first: First, after: After = None
    ) -> Connection[ProcessRunUnit]:
        """Return a page of what went through the run."""
        check_first(first)
        context, asked = info.context, self.asked
        ledger = context.ledger
        beyond = 0
        if after is not None:
            beyond = decode_position_cursor(after, UNITS_CURSOR, ledger.name)

        async def load(run_ids: list[str]) -> list[list[RunUnit]]:
            async with context.reads:
                found = await units_of_runs(
                    ledger,
                    run_ids,
                    first=first + 1,
                    after=beyond,
                    as_of=asked.known_at,
                    valid_at=asked.valid_at,
                )
            named = {unit.unit_id for units in found.values() for unit in units}
            visible = await (await context.sight()).visible(named)
            return [[unit for unit in found[name] if unit.unit_id in visible] for name in run_ids]

        name = ("units of runs", asked, first, beyond)
        rows = await context.loader(name, load).load(self.run.run_id)
        return connection(
            rows,
            first=first,
            after=after,
            position=asked.position,
            node=ProcessRunUnit.of,
            cursor=lambda unit: encode_cursor(UNITS_CURSOR, ledger.name, unit.origin),
        )

    @field(
        description="Readings of its asset from its start to its end, or to now; as `Asset."
        "readings`."
    )
    async def readings(
        self,
        info: OperationInfo,
        channels: Annotated[
            list[str] | None,
            strawberry.argument(description="Names of the channels wanted; null is all."),
        ] = None,
        max_points: Annotated[
            int,
            strawberry.argument(
                description=f"At most so many values a channel, 2 to {POINTS_MAX}."
            ),
        ] = 1000,
        units: Annotated[
            list[ChannelUnit] | None,
            strawberry.argument(description="Channels wanted in another unit than SI."),
        ] = None,
    ) -> list[ReadingColumn]:
        """Return the readings of the run's window."""
        context = info.context
        row = await context.asset_by_asset_id.load(self.run.asset_id)
        if row is None:
            raise NotFound(
                "asset.unknown",
                f"asset {self.run.asset_id!r} is not registered",
                hint="register it, so that its channels are known",
                value=self.run.asset_id,
            )
        return await resolve_readings(
            context,
            row.asset_id,
            asset_type(row.asset_type),
            channels=channels,
            start=self.run.started_at,
            end=self.run.ended_at or self.asked.valid_at or context.now,
            points_max=max_points,
            with_bad=False,
            units=units,
            known_at=self.asked.known_at,
        )


async def _parameters(context: OperationContext, run: ProcessRun) -> RunParameters:
    asked = run.asked

    async def load(run_ids: list[str]) -> list[RunParameters]:
        async with context.reads:
            found = await parameters_of_runs(
                context.ledger, run_ids, as_of=asked.known_at, valid_at=asked.valid_at
            )
        return [found[name] for name in run_ids]

    return await context.loader(("parameters of runs", asked), load).load(run.run_id)


async def find_process_run(
    context: OperationContext, key: str, asked: Asked | None = None
) -> ProcessRun | None:
    """Return the run called `key`; None where there is none, or none in sight.

    As it is now where `asked` is None.
    """
    asked = asked or await asked_now(context, ProductionProjection.name)

    async def load(names: list[str]) -> list[Standing | None]:
        sight = await context.sight()
        async with context.reads:
            found = await find_runs(
                context.ledger, names, as_of=asked.known_at, valid_at=asked.valid_at
            )
        seen = {name: run for name, run in found.items() if sight.sees_asset(run.asset_id)}
        return [seen.get(name) for name in names]

    run = await context.loader(("process run", asked), load).load(key)
    return None if run is None else ProcessRun.of(run, asked)
