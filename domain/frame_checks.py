"""What every frame is held against: its asset type's channels, units and physical ranges.

Agent and server both ask here, so that a frame means the same on either side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domain.asset_model import AssetType
from domain.errors import InvalidInput
from domain.frames import (
    ChannelHeader,
    Frame,
    FrameHeader,
    Quality,
    with_qualities,
)
from domain.units import unit


def check_units(header: FrameHeader, asset_type: AssetType) -> None:
    """Raise unless every channel of `header` belongs to `asset_type` and declares its unit right.

    Raises
    ------
    NotFound
        ``channel.unknown``
    InvalidInput
        ``unit.unknown``, ``unit.quantity_mismatch``, or ``unit.conversion_mismatch`` when the
        declared factor and offset are not those of the declared unit.
    """
    for declared in header.channels:
        known = asset_type.channel(declared.name)
        found = unit(declared.unit, quantity=known.quantity)
        if (declared.factor, declared.offset) != (found.factor, found.offset):
            raise InvalidInput(
                "unit.conversion_mismatch",
                f"channel {declared.name!r} maps {declared.unit!r} to SI by factor "
                f"{declared.factor!r} and offset {declared.offset!r}; the unit's are "
                f"{found.factor!r} and {found.offset!r}",
                value=[declared.factor, declared.offset],
                limit=[found.factor, found.offset],
            )


def mark_out_of_range(frame: Frame, asset_type: AssetType) -> Frame:
    """Return `frame` with every reading outside its channel's physical range marked BAD.

    The values stay as delivered. Marking twice equals marking once, so agent and server may
    both do it; the same frame object comes back when nothing is out of range.
    """
    marked = list(frame.qualities)
    changed = False
    for group in frame.clock_groups:
        known = [asset_type.channel(frame.header.channels[n].name) for n in group.indexes]
        low = np.array([[channel.physical_min] for channel in known])
        high = np.array([[channel.physical_max] for channel in known])
        # A MISSING value is NaN and compares false on both sides.
        outside = (group.si < low) | (group.si > high)
        if not outside.any():
            continue
        outside &= group.quality < Quality.BAD
        for row, index in enumerate(group.indexes):
            if outside[row].any():
                marked[index] = np.where(outside[row], np.uint8(Quality.BAD), marked[index])
                changed = True
    return with_qualities(frame, marked) if changed else frame


def header_for(
    asset_type: AssetType,
    asset: str,
    agent: str,
    channels: Sequence[tuple[str, str]],
    value_type: str = "f8",
) -> FrameHeader:
    """Return the header of frames that carry `channels`, each a (channel name, unit symbol).

    Raises
    ------
    NotFound, InvalidInput
        as `check_units`
    """
    headers = []
    for name, symbol in channels:
        found = unit(symbol, quantity=asset_type.channel(name).quantity)
        headers.append(ChannelHeader(name, symbol, found.factor, found.offset, value_type))
    return FrameHeader(asset=asset, agent=agent, channels=tuple(headers))
