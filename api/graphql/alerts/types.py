"""Inputs and enums of alerts; the alert itself stands with its asset."""

from __future__ import annotations

import strawberry

from api.graphql.scalars import described_enum
from domain.asset_model import Severity
from projections.alerts.projection import AlertState

described_enum(
    Severity,
    "How urgent an alert or a health finding is.",
    {
        "WARNING": "Look at it in time.",
        "CRITICAL": "Look at it now.",
    },
)
described_enum(
    AlertState,
    "Where an alert stands.",
    {
        "RAISED": "Its condition holds and nobody has acknowledged it.",
        "ACKNOWLEDGED": "Its condition holds and somebody has acknowledged it.",
        "CLEARED": "Its condition has gone.",
    },
)


@strawberry.input(description="Which alerts are wanted; what is null or empty does not restrict.")
class AssetAlertFilter:
    """What restricts a list of one asset's alerts."""

    severities: list[Severity] | None = strawberry.field(
        default=None, description="Alerts of these severities."
    )
    states: list[AlertState] | None = strawberry.field(
        default=None, description="Alerts that stand so."
    )


@strawberry.input(description="Which alerts are wanted; what is null or empty does not restrict.")
class AlertFilter(AssetAlertFilter):
    """What restricts a list of alerts."""

    asset_ids: list[str] | None = strawberry.field(
        default=None, description="Alerts of these assets, at most 100."
    )
    locations: list[str] | None = strawberry.field(
        default=None,
        description="Alerts of assets that stand in these locations, or in what stands there.",
    )
