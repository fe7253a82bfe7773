"""Frames of a production machine, as they arrive: encoded by an agent, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from domain.asset_types import asset_type
from domain.frame_decoding import decode
from domain.frame_encoding import encode
from domain.frames import ChannelHeader, Column, Frame, FrameHeader, IntArray, build_frame
from domain.units import unit

MACHINE: Final = asset_type("production-machine")
DELIVERED: Final = {channel.name: unit(channel.input_unit) for channel in MACHINE.channels}
"""The unit in which a sensor delivers each channel."""


def machine_frame(
    asset: str, sequence: int, times_ns: IntArray, columns: Mapping[str, Column]
) -> Frame:
    """Return what arrives of a window: `columns` hold values as delivered, by channel."""
    header = FrameHeader(
        asset,
        f"agent-{asset}",
        tuple(
            ChannelHeader(
                name, DELIVERED[name].symbol, DELIVERED[name].factor, DELIVERED[name].offset
            )
            for name in columns
        ),
    )
    built = build_frame(header, sequence, [times_ns], list(columns.values()), [None] * len(columns))
    return decode(encode(built))
