"""Mutations of alerts: acknowledgement."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from api.access.rights import Right
from api.graphql.assets.types import Alert
from api.graphql.commands import CommandInput, CommandSuccess, carry_out
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.errors import Failure
from api.graphql.fields import field, mutation
from domain.asset import AcknowledgeAlert
from domain.errors import NotFound
from projections.alerts import AlertProjection, find_alert


@strawberry.input(description="Say that an alert was seen.")
class AcknowledgeAlertInput(CommandInput):
    """Input of `acknowledgeAlert`."""

    alert_id: UUID = strawberry.field(description="Natural key of the alert.")
    note: str | None = strawberry.field(
        default=None, description="What is worth noting, at most 2,000 characters."
    )

    async def command(self, context: OperationContext) -> AcknowledgeAlert:
        """Return the command on the alert's asset."""
        row = await find_alert(context.ledger, self.alert_id)
        if row is None:
            raise NotFound(
                "alert.unknown",
                f"there is no alert {self.alert_id}",
                hint="`alerts` lists them",
                value=str(self.alert_id),
            )
        return AcknowledgeAlert(row.asset_id, self.alert_id, self.note or "")


@strawberry.type(description="The alert is acknowledged; it was already, where nothing changed.")
class AcknowledgeAlertSuccess(CommandSuccess):
    """Success of `acknowledgeAlert`."""

    @field(
        description="The alert afterwards, or as it stands after a dry run. It waits until the "
        "command is reflected; should that take longer than 5 s it is null, with the error "
        "`projection.behind` beside it: the command was recorded all the same."
    )
    async def alert(self, info: OperationInfo) -> Alert | None:
        """Return the alert as the command left it."""
        if not self.dry_run:
            await info.context.wait_for(self.position, AlertProjection.name)
        row = await find_alert(info.context.ledger, self.given.alert_id)
        return None if row is None else Alert.of(row)


AcknowledgeAlertResult = Annotated[
    AcknowledgeAlertSuccess | Failure,
    strawberry.union("AcknowledgeAlertResult", description="What became of `acknowledgeAlert`."),
]


@strawberry.type
class AlertMutations:
    """Root fields."""

    @mutation(
        right=Right.OPERATE, description="Say that an alert was seen; who did is the event's actor."
    )
    async def acknowledge_alert(
        self,
        info: OperationInfo,
        input: Annotated[
            AcknowledgeAlertInput, strawberry.argument(description="Which alert, and a note.")
        ],
    ) -> AcknowledgeAlertResult:
        """Handle `AcknowledgeAlert`."""
        return await carry_out(info, input, AcknowledgeAlertSuccess)
