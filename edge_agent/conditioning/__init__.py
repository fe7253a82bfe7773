"""Conditioning: what is done, as declared for each channel, before a reading counts.

One file a step, in this order: unit, calibration, range, spike, flat line, drift, redundancy,
resampling, dead-band. `configure` reads the declaration; `docs/conditioning.md` is its reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from domain.asset_model import AssetType
from edge_agent.conditioning.configuration import read_conditioning
from edge_agent.conditioning.stage import ConditioningStage
from edge_agent.live import DeliveredChannel
from edge_agent.yaml_section import Section

__all__ = ["ConditioningStage", "Counted", "configure"]


class Counted(Protocol):
    """A stage that counts what it found."""

    def take_counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often it found something since last asked, by (channel, code)."""


def configure(
    section: Section, channels: Sequence[DeliveredChannel], asset_type: AssetType
) -> tuple[ConditioningStage | None, tuple[DeliveredChannel, ...]]:
    """Return the stage that a source's ``conditioning`` declares, and the channels after it.

    None after noting what is wrong, or where nothing is declared; the channels are then the
    delivered ones.
    """
    delivered = tuple(channels)
    # A source whose channels are at fault has told so; nothing can be said of them here.
    if not section.has("conditioning") or not delivered:
        return None, delivered
    conditioning = section.section("conditioning")
    if conditioning is None:
        return None, delivered
    declared = read_conditioning(conditioning, delivered, asset_type)
    conditioning.finish()
    if not declared:
        return None, delivered
    after = {channel.name: channel for channel in delivered}
    for one in declared:
        after[one.channel.name] = one.channel
    return ConditioningStage(declared), tuple(after.values())
