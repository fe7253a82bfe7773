"""What every frame is held against: its asset type's channels, units and physical ranges.

Agent and server both ask here, so that a frame means the same on either side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from domain.asset_model import AssetType, Channel, ValueKind
from domain.errors import InvalidInput
from domain.frame_stacks import stacked
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
        declared factor and offset are not those of the declared unit;
        ``channel.wrong_type`` when text is sent where numbers belong, or numbers for text
    """
    for declared in header.channels:
        known = asset_type.channel(declared.name)
        _check_kind(declared, known)
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


def _check_kind(declared: ChannelHeader, known: Channel) -> None:
    """Raise where text stands for numbers or numbers for text; any numbers stand for numbers."""
    if declared.is_text != (known.kind is ValueKind.TEXT):
        raise InvalidInput(
            "channel.wrong_type",
            f"channel {declared.name!r} holds {known.kind.lower()} values, not those of type "
            f"{declared.value_type!r}",
            hint="text is sent as 'str'",
            value=declared.value_type,
            limit=known.kind,
        )


def mark_out_of_range(frame: Frame, asset_type: AssetType) -> Frame:
    """Return `frame` with every reading outside its channel's physical range marked BAD.

    The values stay as delivered. Marking twice equals marking once, so agent and server may
    both do it; the same frame object comes back when nothing is out of range.
    """
    (marked,) = mark_all_out_of_range([frame], asset_type)
    return marked


def mark_all_out_of_range(frames: Sequence[Frame], asset_type: AssetType) -> list[Frame]:
    """Return `mark_out_of_range` of each of `frames`; together they cost less."""
    marked = list(frames)
    for stack in stacked(frames):
        known = [asset_type.channel(channel.name) for channel in stack.channels]
        low = np.array([[channel.physical_min] for channel in known])
        high = np.array([[channel.physical_max] for channel in known])
        # A MISSING value is NaN and compares false on both sides.
        outside = (stack.si < low) | (stack.si > high)
        for n in np.flatnonzero(outside.any(axis=(1, 2))).tolist():
            place = stack.places[n]
            marked[place] = _marked(marked[place], stack.indexes, outside[n])
    return marked


def _marked(frame: Frame, indexes: Sequence[int], outside: npt.NDArray[np.bool_]) -> Frame:
    """Return `frame` with the readings `outside`, shape (n_channels, n), of `indexes` BAD."""
    qualities = list(frame.qualities)
    changed = False
    for index, of_channel in zip(indexes, outside, strict=True):
        bad = of_channel & (qualities[index] < Quality.BAD)
        if bad.any():
            qualities[index] = np.where(bad, np.uint8(Quality.BAD), qualities[index])
            changed = True
    return with_qualities(frame, qualities) if changed else frame


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
