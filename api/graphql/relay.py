"""Global ids, opaque cursors and keyset connections.

A cursor says where a list goes on: its ledger, its kind of list and the key of the last item.
It is opaque to clients and refused when it belongs to another list.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Generic, TypeVar

import orjson
import strawberry

from api.graphql.scalars import POSITION_MAX, Cursor, Position
from domain.errors import InvalidInput

PAGE_FIRST_MAX: Final = 500
IDS_KEPT_MAX: Final = 16_384
"""Ids of what is asked for again and again; each costs more to make than a row costs to answer."""

T = TypeVar("T")
R = TypeVar("R")

First = Annotated[int, strawberry.argument(description=f"How many at most, 1 to {PAGE_FIRST_MAX}.")]
After = Annotated[
    Cursor | None,
    strawberry.argument(description="Go on after the item with this cursor; null starts."),
]


@strawberry.interface(description="Anything that `node` finds by its global id.")
class Node:
    """What has a global id."""

    id: strawberry.ID = strawberry.field(
        description="Global id, opaque. Use the natural key beside it where there is one."
    )


@strawberry.type(description="Whether a list goes on, and where.")
class PageInfo:
    """Relay's page info, forwards only."""

    has_next_page: bool = strawberry.field(description="Whether there is more after this page.")
    end_cursor: Cursor | None = strawberry.field(
        description="Cursor of the last item of this page, for `after`; null on an empty page."
    )
    has_previous_page: bool = strawberry.field(
        description="Whether this page was asked for with `after`. Lists are read forwards only."
    )
    start_cursor: Cursor | None = strawberry.field(
        description="Cursor of the first item of this page; null on an empty page."
    )


@strawberry.type(description="An item of a page and its cursor.")
class Edge(Generic[T]):
    """An item and where it stands."""

    cursor: Cursor = strawberry.field(description="Where the list goes on after this item.")
    node: T = strawberry.field(description="The item.")


@strawberry.type(description="One page of a list.")
class Connection(Generic[T]):
    """A page by key: what is added or removed meanwhile shifts nothing."""

    edges: list[Edge[T]] = strawberry.field(description="The items, each with its cursor.")
    nodes: list[T] = strawberry.field(description="The items alone.")
    page_info: PageInfo = strawberry.field(description="Whether the list goes on, and where.")
    position: Position = strawberry.field(
        description="The page reflects at least everything in the log up to here."
    )

    def __getattr__(self, name: str) -> Any:
        """Make a part of a page that `connection` returned; most are never asked for."""
        page = self.__dict__.get("_page")
        if page is None:
            raise AttributeError(name)
        part = self.__dict__[name] = page.part(self, name)
        return part


def connection(
    rows: Sequence[R],
    *,
    first: int,
    after: Cursor | None,
    position: int,
    node: Callable[[R], T],
    cursor: Callable[[R], Cursor],
    goes_on_after: Cursor | None = None,
    kept_by: str | None = None,
) -> Connection[T]:
    """Return the page of `rows`, of which one more than `first` was asked for.

    Parameters
    ----------
    goes_on_after : where the list goes on, if there may be more although `rows` are not too many
    kept_by : attribute that tells one row from another, where `node` looks at nothing but the row
        and equal rows are told alike: their text is then kept (`api.graphql.kept_text`)
    """
    page: Connection[T] = Connection.__new__(Connection)
    page.position = Position(position)
    page.__dict__["_page"] = Page(rows, first, after, node, cursor, goes_on_after, kept_by)
    return page


@dataclass(frozen=True, slots=True)
class Page:
    """What a page is made of; its parts are made when they are asked for, and then once."""

    rows: Sequence[Any]
    first: int
    after: Cursor | None
    node: Callable[[Any], Any]
    cursor: Callable[[Any], Cursor]
    goes_on_after: Cursor | None
    kept_by: str | None = None

    @staticmethod
    def behind(connection: object) -> Page | None:
        """Return what a page that `connection` returned is made of."""
        return connection.__dict__.get("_page")

    def part(self, page: Connection[Any], name: str) -> Any:
        """Return the field `name` of `page`."""
        shown = self.rows[: self.first]
        match name:
            case "nodes":
                return [self.node(row) for row in shown]
            case "edges":
                return [
                    Edge(cursor=self.cursor(row), node=node)
                    for row, node in zip(shown, page.nodes, strict=True)
                ]
            case "page_info":
                return self._info(shown)
        raise AttributeError(name)

    def _info(self, shown: Sequence[Any]) -> PageInfo:
        more = len(self.rows) > self.first
        end = self.cursor(shown[-1]) if shown else None
        if self.goes_on_after is not None and not more:
            end = self.goes_on_after
        return PageInfo(
            has_next_page=more or self.goes_on_after is not None,
            end_cursor=end,
            has_previous_page=self.after is not None,
            start_cursor=self.cursor(shown[0]) if shown else None,
        )


def check_first(first: int) -> None:
    """Raise `InvalidInput` (``page.first``) unless a page may have `first` items."""
    if not 1 <= first <= PAGE_FIRST_MAX:
        raise InvalidInput(
            "page.first",
            f"a page has 1 to {PAGE_FIRST_MAX} items, not {first}",
            hint="go on with pageInfo.endCursor",
            value=first,
            limit=PAGE_FIRST_MAX,
        )


# --- cursors ------------------------------------------------------------------------------


def encode_cursor(kind: str, ledger: str, key: str | int) -> Cursor:
    """Return the cursor after the item `key` of a `kind` of list."""
    return Cursor(_sealed([kind, ledger, key]))


def decode_text_cursor(cursor: Cursor, kind: str, ledger: str) -> str:
    """Return the key of `cursor`, a text, or raise `InvalidInput` (``cursor.malformed``)."""
    key = _cursor_key(cursor, kind, ledger)
    if not isinstance(key, str) or not key.isprintable():
        raise _malformed(cursor)
    return key


def decode_position_cursor(cursor: Cursor, kind: str, ledger: str) -> int:
    """Return the key of `cursor`, a position, or raise `InvalidInput` (``cursor.malformed``)."""
    key = _cursor_key(cursor, kind, ledger)
    if type(key) is not int or not 0 <= key <= POSITION_MAX:
        raise _malformed(cursor)
    return key


def _cursor_key(cursor: Cursor, kind: str, ledger: str) -> Any:
    match _opened(cursor):
        case [found_kind, found_ledger, key] if (found_kind, found_ledger) == (kind, ledger):
            return key
        case [str(found_kind), str(found_ledger), _]:
            raise InvalidInput(
                "cursor.malformed",
                f"the cursor belongs to {found_kind!r:.40} of ledger {found_ledger!r:.80}, "
                f"not to {kind!r} of {ledger!r}",
                hint="give a cursor back to the list that it came from",
                value=cursor,
            )
    raise _malformed(cursor)


def _malformed(cursor: Cursor) -> InvalidInput:
    return InvalidInput(
        "cursor.malformed",
        f"{cursor!r:.80} is no cursor",
        hint="give back a cursor exactly as the API returned it",
        value=cursor[:80],
    )


# --- global ids ---------------------------------------------------------------------------


@lru_cache(maxsize=IDS_KEPT_MAX)
def encode_id(kind: str, key: str) -> strawberry.ID:
    """Return the global id of the `kind` of thing called `key`."""
    return strawberry.ID(_sealed([kind, key]))


def decode_id(identifier: str) -> tuple[str, str]:
    """Return (kind, key) of a global id, or raise `InvalidInput` (``id.malformed``)."""
    match _opened(identifier):
        case [str(kind), str(key)] if key.isprintable():
            return kind, key
    raise InvalidInput(
        "id.malformed",
        f"{identifier!r:.80} is no global id",
        hint="give back an id exactly as the API returned it",
        value=identifier[:80],
    )


def _sealed(parts: list[str | int]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


def _opened(text: str) -> Any:
    """Return what `_sealed` made `text` of, or None."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parts = orjson.loads(raw)
    except (binascii.Error, ValueError):
        return None
    return parts if isinstance(parts, list) and _sealed(parts) == text else None
