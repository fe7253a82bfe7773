"""Mutations of assets: each a command of `domain.asset`, and a result that tells its failures."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.assets.types import Asset
from api.graphql.commands import CommandInput, CommandSuccess, carry_out
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.errors import Failure
from api.graphql.fields import field, mutation
from domain.asset import (
    CommissionAsset,
    DesireSetpoint,
    RegisterAsset,
    RetireAsset,
    Unregistered,
    unknown_asset,
)
from domain.asset_types import asset_type
from domain.identifiers import check_identifier
from domain.units import unit
from eventlog.commands import load_asset
from projections.alerts import AlertProjection
from projections.twins import TwinProjection

# --- inputs -------------------------------------------------------------------------------


@strawberry.input
class AssetCommandInput(CommandInput):
    """What every mutation of an asset takes."""

    asset_id: strawberry.ID = strawberry.field(description="Natural key of the asset.")


@strawberry.input(description="Make an asset known.")
class RegisterAssetInput(AssetCommandInput):
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


@strawberry.input(description="Put an asset into service.")
class CommissionAssetInput(AssetCommandInput):
    """Input of `commissionAsset`."""

    async def command(self, _context: OperationContext) -> CommissionAsset:
        """Return the command."""
        return CommissionAsset(self.asset_id)


@strawberry.input(description="Take an asset out of service for good.")
class RetireAssetInput(AssetCommandInput):
    """Input of `retireAsset`."""

    reason: str = strawberry.field(description="Why, at most 2,000 characters.")

    async def command(self, _context: OperationContext) -> RetireAsset:
        """Return the command."""
        return RetireAsset(self.asset_id, self.reason)


@strawberry.input(description="Ask for a set-point of an asset.")
class DesireSetpointInput(AssetCommandInput):
    """Input of `desireSetpoint`."""

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


# --- results ------------------------------------------------------------------------------


@strawberry.interface(description="What every mutation of an asset that succeeded says.")
class AssetCommandSuccess(CommandSuccess):
    """A success and its asset."""

    @field(
        description="The asset afterwards, or as it stands after a dry run. It waits until the "
        "command is reflected; should that take longer than 5 s it is null, with the error "
        "`projection.behind` beside it: the command was recorded all the same."
    )
    async def asset(self, info: OperationInfo) -> Asset | None:
        """Return the asset as the command left it."""
        if not self.dry_run:
            await info.context.wait_for(self.position, TwinProjection.name, AlertProjection.name)
        row = await info.context.asset_by_asset_id.load(self.given.asset_id)
        return None if row is None else Asset.of(row)


@strawberry.type(description="The asset is known.")
class RegisterAssetSuccess(AssetCommandSuccess):
    """Success of `registerAsset`."""


@strawberry.type(description="The asset is in service.")
class CommissionAssetSuccess(AssetCommandSuccess):
    """Success of `commissionAsset`."""


@strawberry.type(description="The asset is out of service for good.")
class RetireAssetSuccess(AssetCommandSuccess):
    """Success of `retireAsset`."""


@strawberry.type(description="The set-point is desired; the machine reports when it has it.")
class DesireSetpointSuccess(AssetCommandSuccess):
    """Success of `desireSetpoint`."""


RegisterAssetResult = Annotated[
    RegisterAssetSuccess | Failure,
    strawberry.union("RegisterAssetResult", description="What became of `registerAsset`."),
]
CommissionAssetResult = Annotated[
    CommissionAssetSuccess | Failure,
    strawberry.union("CommissionAssetResult", description="What became of `commissionAsset`."),
]
RetireAssetResult = Annotated[
    RetireAssetSuccess | Failure,
    strawberry.union("RetireAssetResult", description="What became of `retireAsset`."),
]
DesireSetpointResult = Annotated[
    DesireSetpointSuccess | Failure,
    strawberry.union("DesireSetpointResult", description="What became of `desireSetpoint`."),
]


# --- mutations ----------------------------------------------------------------------------


@strawberry.type
class AssetMutations:
    """Root fields."""

    @mutation(right=Right.ENGINEER, description="Make an asset known.")
    async def register_asset(
        self,
        info: OperationInfo,
        input: Annotated[
            RegisterAssetInput, strawberry.argument(description="What is to be registered.")
        ],
    ) -> RegisterAssetResult:
        """Handle `RegisterAsset`."""
        return await carry_out(info, input, RegisterAssetSuccess)

    @mutation(right=Right.ENGINEER, description="Put an asset into service.")
    async def commission_asset(
        self,
        info: OperationInfo,
        input: Annotated[
            CommissionAssetInput, strawberry.argument(description="What is to be commissioned.")
        ],
    ) -> CommissionAssetResult:
        """Handle `CommissionAsset`."""
        return await carry_out(info, input, CommissionAssetSuccess)

    @mutation(
        right=Right.ENGINEER,
        description="Take an asset out of service for good; it accepts nothing afterwards.",
    )
    async def retire_asset(
        self,
        info: OperationInfo,
        input: Annotated[
            RetireAssetInput, strawberry.argument(description="What is to be retired, and why.")
        ],
    ) -> RetireAssetResult:
        """Handle `RetireAsset`."""
        return await carry_out(info, input, RetireAssetSuccess)

    @mutation(right=Right.OPERATE, description="Ask for a set-point, within its safe bounds.")
    async def desire_setpoint(
        self,
        info: OperationInfo,
        input: Annotated[
            DesireSetpointInput, strawberry.argument(description="What is wanted of which asset.")
        ],
    ) -> DesireSetpointResult:
        """Handle `DesireSetpoint`."""
        return await carry_out(info, input, DesireSetpointSuccess)


async def _setpoint_quantity(context: OperationContext, asset_id: str, name: str) -> str:
    """Return the quantity of an asset's set-point, by the log and no projection of it.

    Raises
    ------
    InvalidInput, NotFound
        ``asset.malformed_name``, ``asset.unknown``, ``setpoint.unknown``
    """
    check_identifier("asset", asset_id)
    asset, _ = await load_asset(context.ledger, asset_id)
    if isinstance(asset, Unregistered):
        raise unknown_asset(asset_id)
    return asset_type(asset.asset_type).setpoint(name).quantity
