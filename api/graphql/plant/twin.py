"""The twin of a location: how it does, rolled up from what stands in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import strawberry

from api.graphql.assets import twin as _twin  # noqa: F401 (describes HealthStatus …)
from api.graphql.scalars import Position, described_enum
from domain.health import HealthStatus
from projections.plant import twins as plant_twins
from projections.plant.twins import TwinKind
from projections.twins.projection import Connectivity

described_enum(
    TwinKind,
    "The four kinds of twins.",
    {
        "COMPONENT": "Of what is installed in an asset.",
        "ASSET": "Of a machine.",
        "PROCESS": "Of a line or cell.",
        "SYSTEM": "Of an area, site or enterprise.",
    },
)


@strawberry.type(description="So many of each health.")
class HealthCounts:
    """Assets by health."""

    good: int = strawberry.field(description="Nothing was found.")
    warning: int = strawberry.field(description="To be looked at in time.")
    critical: int = strawberry.field(description="To be looked at now.")
    unknown: int = strawberry.field(description="Nothing was measured.")

    @classmethod
    def of(cls, counts: Mapping[HealthStatus, int]) -> HealthCounts:
        """Return `counts` as the schema tells them."""
        return cls(
            good=counts.get(HealthStatus.GOOD, 0),
            warning=counts.get(HealthStatus.WARNING, 0),
            critical=counts.get(HealthStatus.CRITICAL, 0),
            unknown=counts.get(HealthStatus.UNKNOWN, 0),
        )


@strawberry.type(description="So many of each connectivity.")
class ConnectivityCounts:
    """Assets by connectivity."""

    online: int = strawberry.field(description="Readings arrive.")
    stale: int = strawberry.field(description="Silent for longer than their type allows.")
    never_seen: int = strawberry.field(description="There has been no reading.")

    @classmethod
    def of(cls, counts: Mapping[Connectivity, int]) -> ConnectivityCounts:
        """Return `counts` as the schema tells them."""
        return cls(
            online=counts.get(Connectivity.ONLINE, 0),
            stale=counts.get(Connectivity.STALE, 0),
            never_seen=counts.get(Connectivity.NEVER_SEEN, 0),
        )


@strawberry.type(description="A member of a location that is not good.")
class Concern:
    """`projections.plant.twins.Member`."""

    key: str = strawberry.field(description="Its stream, such as `asset:press-07`.")
    title: str | None = strawberry.field(description="What a person calls it.")
    status: HealthStatus = strawberry.field(description="Its health.")
    index: float | None = strawberry.field(
        description="Its health from 0 to 1; null where it is unknown."
    )


@strawberry.type(
    description="The state of a location by what stands in it: of a line or cell the twin of a "
    "process, of what is above the twin of a system."
)
class LocationTwin:
    """`projections.plant.twins.LocationTwin`."""

    kind: TwinKind = strawberry.field(description="What kind of twin it is.")
    as_of: datetime = strawberry.field(description="When it was judged.")
    position: Position = strawberry.field(description="It reflects the log up to here.")
    status: HealthStatus = strawberry.field(
        description="Its health as its roll-up makes it of its members; UNKNOWN where nothing "
        "stands in it, or it cannot be known."
    )
    index: float | None = strawberry.field(
        description="The same from 0 to 1; null where it is unknown."
    )
    connectivity: Connectivity | None = strawberry.field(
        description="By the same roll-up; null where nothing stands in it or it cannot be known."
    )
    member_count: int = strawberry.field(
        description="Locations and assets that stand in it itself, and are not retired."
    )
    concerns: list[Concern] = strawberry.field(
        description="Those of its members that are not GOOD, the worst first, at most "
        f"{plant_twins.CONCERNS_MAX}."
    )
    assets_by_health: HealthCounts = strawberry.field(
        description="All assets below it, whatever lies between."
    )
    assets_by_connectivity: ConnectivityCounts = strawberry.field(
        description="All assets below it, whatever lies between."
    )
    open_alert_count: int = strawberry.field(
        description="Alerts of all assets below it that have not cleared."
    )

    @classmethod
    def of(
        cls,
        twin: plant_twins.LocationTwin,
        judged_at: datetime,
        position: int,
        visible: Collection[str],
    ) -> LocationTwin:
        """Return `twin` as the schema tells it, its concerns as far as they are `visible`."""
        return cls(
            kind=twin.kind,
            as_of=judged_at,
            position=Position(position),
            status=twin.health.status,
            index=twin.health.index,
            connectivity=twin.connectivity,
            member_count=twin.members,
            concerns=[
                Concern(
                    key=member.stream,
                    title=member.title,
                    status=member.health.status,
                    index=member.health.index,
                )
                for member in twin.concerns
                if member.stream in visible
            ],
            assets_by_health=HealthCounts.of(twin.assets),
            assets_by_connectivity=ConnectivityCounts.of(twin.connected),
            open_alert_count=twin.open_alert_count,
        )
