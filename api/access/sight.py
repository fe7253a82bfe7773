"""What an identity sees: its locations and assets as ids, and which streams belong to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Sight:
    """The scope of an identity, resolved on the plant as it is now.

    Parameters
    ----------
    asset_ids : the assets it sees; None: all
    """

    asset_ids: frozenset[str] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it sees everything."""
        return self.asset_ids is None

    def sees_asset(self, asset_id: str) -> bool:
        """Return whether the asset is in sight."""
        return self.asset_ids is None or asset_id in self.asset_ids

    async def visible(self, streams: Iterable[str]) -> frozenset[str]:
        """Return those of `streams` that are in sight."""
        if self.is_whole:
            return frozenset(streams)
        raise NotImplementedError


EVERYTHING: Final = Sight()
