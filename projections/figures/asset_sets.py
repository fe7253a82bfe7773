"""Sets of assets that a figure is made of: named one by one, or as a level of the plant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from domain.errors import InvalidInput
from eventlog.ledger import Ledger
from projections.as_of import AsOf
from projections.plant.queries import ItemKind, tree_below

ASSETS_MAX: Final = 2_000
"""Assets of one question; each has a row in the answer."""


def distinct_assets(assets: Sequence[str]) -> list[str]:
    """Return `assets`, each once.

    Raises
    ------
    InvalidInput
        ``figure.assets``
    """
    names = list(dict.fromkeys(assets))
    if not 1 <= len(names) <= ASSETS_MAX:
        raise InvalidInput(
            "figure.assets",
            f"{len(names)} assets were named; it has to be 1 to {ASSETS_MAX}",
            hint="ask for one part of the plant after another",
            value=len(names),
            limit=ASSETS_MAX,
        )
    return names


async def assets_below(
    ledger: Ledger, location_id: str, *, at: datetime | None = None, as_of: int | None = None
) -> tuple[str, ...]:
    """Return the assets that stood anywhere in a location at a moment, sorted: a plant's level.

    Raises
    ------
    InvalidInput
        as `tree_below`
    """
    asked = AsOf(position=as_of, valid_at=at)
    items = await tree_below(ledger, location_id, asked, components=False)
    return tuple(sorted(item.item_id for item in items if item.kind is ItemKind.ASSET))
