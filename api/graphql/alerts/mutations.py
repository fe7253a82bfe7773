"""Mutations of alerts."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import strawberry

from api.access.rights import Right
from api.graphql.assets.types import Alert
from api.graphql.commands import CommandSuccess
from api.graphql.context import OperationContext
from api.graphql.declared import Answer, Declared, TimedCommandInput, mutations
from domain.asset import AcknowledgeAlert, ClearAlert, EscalateAlert, RaiseAlert
from domain.errors import NotFound
from projections.alerts.projection import AlertProjection, find_alert


@strawberry.input(description="Say that an alert was seen.")
class AcknowledgeAlertInput(TimedCommandInput):
    """Input of `acknowledgeAlert`."""

    alert_id: UUID = strawberry.field(description="Natural key of the alert.")
    note: str | None = strawberry.field(
        default=None, description="What is worth noting, at most 2,000 characters."
    )

    async def command(self, context: OperationContext) -> AcknowledgeAlert:
        """Return the command on the alert's asset."""
        row = await find_alert(context.ledger, self.alert_id)
        if row is None or not (await context.sight()).sees_asset(row.asset_id):
            raise NotFound(
                "alert.unknown",
                f"there is no alert {self.alert_id}",
                hint="`alerts` lists them",
                value=str(self.alert_id),
            )
        return AcknowledgeAlert(row.asset_id, self.alert_id, self.note or "")


async def _find_alert(context: OperationContext, success: CommandSuccess) -> Alert | None:
    row = await find_alert(context.ledger, success.given.alert_id)
    return None if row is None else Alert.of(row)


ALERT_AFTERWARDS: Final = Answer("alert", Alert, _find_alert, (AlertProjection.name,))

AlertMutations = mutations(
    "AlertMutations",
    Declared(
        AcknowledgeAlert,
        Right.OPERATE,
        "Say that an alert was seen; who did is the event's actor.",
        "The alert is acknowledged; it was already, where nothing changed.",
        AcknowledgeAlertInput,
    ),
    Declared(
        EscalateAlert,
        Right.OPERATE,
        "Pass an alert on to somebody, at a higher level than before.",
        "The alert is passed on.",
    ),
    Declared(
        RaiseAlert,
        Right.REPORT,
        "Raise an alert on an asset.",
        "The alert is raised.",
    ),
    Declared(
        ClearAlert,
        Right.REPORT,
        "Say that the condition of an alert has gone.",
        "The alert is cleared.",
    ),
    answer=ALERT_AFTERWARDS,
)
