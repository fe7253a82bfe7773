"""A table that may be exported: its parameters, and how its record batches are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import pyarrow as pa

from api.access.sight import Sight
from api.exports.parameters import Parameters
from domain.errors import InvalidInput
from eventlog.ledger import Ledger
from projections.twins.projection import list_assets

ASSETS_PAGE = 500


@dataclass(frozen=True)
class Asked:
    """What one export is made of.

    Parameters
    ----------
    sight : what of the plant whoever asks sees: nothing else may be in it
    position : the log as it was known there
    """

    ledger: Ledger
    sight: Sight
    parameters: Parameters
    position: int


@dataclass(frozen=True)
class Export:
    """A schema, and the record batches of it in the order of the table's key."""

    schema: pa.Schema
    batches: AsyncGenerator[pa.RecordBatch, None]


@dataclass(frozen=True)
class Table:
    """A table, the names of the parameters that it takes, and who makes its export."""

    name: str
    parameters: frozenset[str]
    open: Callable[[Asked], Awaitable[Export]]


async def assets_asked(asked: Asked) -> list[str]:
    """Return the ids of the assets that ``assets`` lists and that are in sight, sorted; all of them
    where it lists none.
    """
    wanted = asked.parameters.names("assets")
    if wanted:
        return sorted({asset_id for asset_id in wanted if asked.sight.sees_asset(asset_id)})
    found: list[str] = []
    while True:
        page = await list_assets(
            asked.ledger,
            after=found[-1] if found else "",
            first=ASSETS_PAGE,
            seen=asked.sight.asset_ids,
        )
        found += [row.asset_id for row in page]
        if len(page) < ASSETS_PAGE:
            return found


def key_after(asked: Asked, parts: int) -> tuple[str, ...] | None:
    """Return the key of the row after which the export goes on: ``after`` with its parts.

    Raises
    ------
    InvalidInput
        ``export.malformed_parameter``
    """
    text = asked.parameters.text("after")
    if text is None:
        return None
    key = tuple(text.split(","))
    if len(key) != parts or not all(key):
        raise malformed_after(text, f"{parts} values with commas between them")
    return key


def malformed_after(text: str, wanted: str) -> InvalidInput:
    """Return the refusal of an ``after`` that is no key."""
    return InvalidInput(
        "export.malformed_parameter",
        f"after={text!r:.80} is not the key of a row: {wanted}",
        hint="take it from the last row that you are sure of",
        value=text[:80],
    )
