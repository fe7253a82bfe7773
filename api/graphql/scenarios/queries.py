"""Queries of scenarios and set-point proposals, one by its natural key or in pages."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.fields import field
from api.graphql.object_lists import OrderBy, object_page
from api.graphql.objects import asked_object
from api.graphql.relay import After, Connection, First
from api.graphql.scenarios.types import (
    Scenario,
    ScenarioFilter,
    SetpointProposal,
    SetpointProposalFilter,
)
from domain.identifiers import check_identifier
from domain.opinions.scenario import scenario_stream
from domain.opinions.setpoint_proposal import setpoint_proposal_stream
from projections.objects import ObjectOrder


@strawberry.type
class ScenarioQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The scenario with this natural key; null where nothing is known of it.",
    )
    async def scenario(
        self,
        info: OperationInfo,
        scenario_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the scenario.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Scenario | None:
        """Return one scenario."""
        check_identifier("scenario", scenario_id)
        found = await asked_object(info.context, scenario_stream(scenario_id), as_of, min_position)
        return None if found is None else Scenario.of(found)

    @field(right=Right.READ, description="Scenarios.")
    async def scenarios(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            ScenarioFilter | None,
            strawberry.argument(description="Which scenarios are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.NEWEST,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Scenario]:
        """Return a page of scenarios."""
        given = filter or ScenarioFilter()
        return await object_page(
            info.context,
            "scenario",
            name="scenarios",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "asset": given.asset_ids,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=Scenario.of,
        )

    @field(
        right=Right.READ,
        description="The set-point proposal with this natural key; null where nothing is known of "
        "it.",
    )
    async def setpoint_proposal(
        self,
        info: OperationInfo,
        proposal_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the proposal.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> SetpointProposal | None:
        """Return one set-point proposal."""
        check_identifier("setpoint_proposal", proposal_id)
        found = await asked_object(
            info.context, setpoint_proposal_stream(proposal_id), as_of, min_position
        )
        return None if found is None else SetpointProposal.of(found)

    @field(right=Right.READ, description="Set-point proposals.")
    async def setpoint_proposals(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            SetpointProposalFilter | None,
            strawberry.argument(description="Which proposals are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.NEWEST,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[SetpointProposal]:
        """Return a page of set-point proposals."""
        given = filter or SetpointProposalFilter()
        return await object_page(
            info.context,
            "setpoint-proposal",
            name="setpoint_proposals",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "asset": given.asset_ids,
                    "setpoint": given.setpoints,
                    "scenario": given.scenario_ids,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=SetpointProposal.of,
        )
