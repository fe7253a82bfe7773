"""Mutations of assets, and of what an agent reports of them."""

from __future__ import annotations

from typing import Final

import strawberry

from api.access.rights import Right
from api.graphql.assets.types import Asset
from api.graphql.commands import CommandSuccess
from api.graphql.context import OperationContext
from api.graphql.declared import Answer, Declared, TimedCommandInput, mutations
from domain.asset import (
    CommissionAsset,
    DeclineSetpoint,
    DesireSetpoint,
    PlaceAsset,
    RegisterAsset,
    ReportReadingsLost,
    ReportSetpoint,
    RetireAsset,
    asset_stream,
)
from domain.asset_decider import Unregistered, unknown_asset
from domain.asset_types import asset_type
from domain.identifiers import check_identifier
from domain.units import unit
from eventlog.commands import load_asset
from projections.alerts.projection import AlertProjection
from projections.twins.projection import TwinProjection

# --- inputs -------------------------------------------------------------------------------


@strawberry.input(description="Make an asset known.")
class RegisterAssetInput(TimedCommandInput):
    """Input of `registerAsset`."""

    asset_id: strawberry.ID = strawberry.field(
        description="Natural key: 1 to 64 letters, digits, '.', '-', '_', starting with a letter "
        "or digit. It never changes."
    )
    asset_type: str = strawberry.field(description="Name of one of `assetTypes`.")
    title: str | None = strawberry.field(
        default=None,
        description="What people call it, at most 200 characters; null takes the natural key.",
    )

    async def command(self, _context: OperationContext) -> RegisterAsset:
        """Return the command."""
        return RegisterAsset(self.asset_id, self.asset_type, self.title or "")


@strawberry.input(description="Ask for a set-point of an asset.")
class DesireSetpointInput(TimedCommandInput):
    """Input of `desireSetpoint`."""

    asset_id: strawberry.ID = strawberry.field(description="Natural key of the asset.")
    setpoint: str = strawberry.field(description="Name of a set-point of the asset's type.")
    value: float = strawberry.field(
        description="The value that is wanted, in `unit`; within the set-point's safe bounds."
    )
    unit: str | None = strawberry.field(
        default=None,
        description="Unit of `value`, such as `l/min`; null is the set-point's SI unit. The log "
        "keeps SI.",
    )

    async def command(self, context: OperationContext) -> DesireSetpoint:
        """Return the command, its value in SI."""
        value_si = self.value
        if self.unit is not None:
            quantity = await _setpoint_quantity(context, self.asset_id, self.setpoint)
            value_si = unit(self.unit, quantity=quantity).to_si(self.value)
        return DesireSetpoint(self.asset_id, self.setpoint, value_si)


async def _setpoint_quantity(context: OperationContext, asset_id: str, name: str) -> str:
    """Return the quantity of an asset's set-point, by the log and no projection of it.

    Raises
    ------
    InvalidInput, NotFound
        ``asset.malformed_name``, ``asset.unknown``, ``setpoint.unknown``
    """
    check_identifier("asset", asset_id)
    sight = await context.sight()
    if await sight.elsewhere({asset_stream(asset_id)}):
        raise unknown_asset(asset_id)
    asset, _ = await load_asset(context.ledger, asset_id)
    if isinstance(asset, Unregistered):
        raise unknown_asset(asset_id)
    return asset_type(asset.asset_type).setpoint(name).quantity


# --- mutations ----------------------------------------------------------------------------


async def _find_asset(context: OperationContext, success: CommandSuccess) -> Asset | None:
    row = await context.asset_by_asset_id.load(success.key)
    return None if row is None else Asset.of(row)


ASSET_AFTERWARDS: Final = Answer(
    "asset", Asset, _find_asset, (TwinProjection.name, AlertProjection.name)
)

AssetMutations = mutations(
    "AssetMutations",
    Declared(
        RegisterAsset,
        Right.ENGINEER,
        "Make an asset known.",
        "The asset is known.",
        RegisterAssetInput,
    ),
    Declared(
        CommissionAsset,
        Right.ENGINEER,
        "Put an asset into service.",
        "The asset is in service.",
    ),
    Declared(
        PlaceAsset,
        Right.ENGINEER,
        "Say that an asset stands in a location.",
        "The asset stands there.",
    ),
    Declared(
        RetireAsset,
        Right.ENGINEER,
        "Take an asset out of service for good; it accepts nothing afterwards.",
        "The asset is out of service for good.",
    ),
    Declared(
        DesireSetpoint,
        Right.OPERATE,
        "Ask for a set-point, within its safe bounds.",
        "The set-point is desired; the machine reports when it has it.",
        DesireSetpointInput,
    ),
    Declared(
        ReportSetpoint,
        Right.REPORT,
        "Say where a machine's set-point stands.",
        "It is known where the set-point stands.",
    ),
    Declared(
        DeclineSetpoint,
        Right.REPORT,
        "Say that a machine's agent did not set what was desired, and why.",
        "It is known that the set-point was not set.",
    ),
    Declared(
        ReportReadingsLost,
        Right.REPORT,
        "Say that readings of an asset are lost, between when, and why.",
        "The loss is recorded.",
    ),
    answer=ASSET_AFTERWARDS,
)
