"""The Merkle tree of a ledger: hashes, the frontier that grows the tree, tiles, and proofs.

Everything here is pure. A proof is first planned as perfect subtrees (`Node`), the tiles that
hold them are named (`tiles_of`), whoever stores tiles fetches them, and `Tiles` makes the proof
of them: at ten million leaves that is a handful of tiles.

References
----------
RFC 6962 (2013), section 2.1; RFC 9162 (2021), sections 2.1.3.2 and 2.1.4.2 (verification);
C2SP tlog-tiles.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from domain.errors import InvalidInput

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
LEVEL_MAX: Final = 63
PROOF_HASHES_MAX: Final = 64

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf that holds `entry`."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above `left` and `right`."""
    return _sha256(b"\x01" + left + right).digest()


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root above `hashes`, of which there are a power of two."""
    if len(hashes) & (len(hashes) - 1) or not hashes:
        raise ValueError(f"{len(hashes)} hashes are no perfect subtree")
    while len(hashes) > 1:
        pairs = zip(hashes[::2], hashes[1::2], strict=True)
        hashes = [_sha256(b"\x01" + left + right).digest() for left, right in pairs]
    return hashes[0]


def split_hashes(packed: bytes) -> list[bytes]:
    """Return the 32-byte hashes that stand one after the other in `packed`."""
    return [packed[i : i + HASH_BYTES] for i in range(0, len(packed), HASH_BYTES)]


class Frontier:
    """The roots of the perfect subtrees that make up a tree, largest first.

    A tree of n leaves has one for each bit set in n. They are all that is needed to append
    leaves and to know the root; 20 hashes stand for a million leaves.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, packed: bytes = b"") -> None:
        if len(packed) != HASH_BYTES * size.bit_count():
            raise ValueError(f"{len(packed)} bytes cannot be the frontier of {size} leaves")
        self.size = size
        self._hashes = split_hashes(packed)

    def append(self, leaves: Iterable[bytes]) -> None:
        """Grow the tree by `leaves`, given as leaf hashes."""
        hashes = self._hashes
        size = self.size
        for leaf in leaves:
            node = leaf
            carry = size
            while carry & 1:
                node = node_hash(hashes.pop(), node)
                carry >>= 1
            hashes.append(node)
            size += 1
        self.size = size

    def add(self, leaf: bytes) -> None:
        """Grow the tree by one leaf hash."""
        hashes, carry = self._hashes, self.size
        while carry & 1:
            leaf = node_hash(hashes.pop(), leaf)
            carry >>= 1
        hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the Merkle tree hash of all leaves so far."""
        return _joined(self._hashes) if self._hashes else EMPTY_ROOT

    def packed(self) -> bytes:
        """Return the subtree roots, 32 bytes each, largest subtree first."""
        return b"".join(self._hashes)


def _joined(subtrees: Sequence[bytes]) -> bytes:
    """Return the root above perfect subtrees that follow one another, largest first."""
    *larger, node = subtrees
    for subtree in reversed(larger):
        node = node_hash(subtree, node)
    return node


# --- tiles --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class TileId:
    """A tile by its coordinates; `width` is below 256 for a partial one."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """The tile's path below the log's prefix."""
        return tile_path(self.level, self.number, self.width)


Level = int | Literal["entries"]

_TILE_PATH = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?",
    re.ASCII,
)


def tile_path(level: Level, number: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile, or of a bundle of entries, below the log's prefix."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03d}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def parse_tile_path(path: str) -> tuple[Level, int, int] | None:
    """Return (level, number, width) of `path`, or None unless it is written the one right way."""
    matched = _TILE_PATH.fullmatch(path)
    if matched is None:
        return None
    level: Level = "entries" if matched[1] == "entries" else int(matched[1])
    number = int(matched[2].replace("x", "").replace("/", ""))
    width = TILE_WIDTH if matched[3] is None else int(matched[3])
    written_so = tile_path(level, number, width) == path
    if not written_so or width > TILE_WIDTH or (level != "entries" and level > LEVEL_MAX):
        return None
    return level, number, width


def width_in(level: int, number: int, size: int) -> int:
    """Return how many hashes tile `number` of `level` has in a tree of `size` leaves."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - number * TILE_WIDTH))


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A perfect subtree: 2**height leaves, the `number`-th of that height from the left."""

    height: int
    number: int


Part = tuple[Node, ...]
"""A run of leaves as perfect subtrees, largest first: one hash of a proof."""


def _part(start: int, end: int) -> Part:
    nodes = []
    while start < end:
        height = (end - start).bit_length() - 1
        nodes.append(Node(height, start >> height))
        start += 1 << height
    return tuple(nodes)


def _split(length: int) -> int:
    """Return the largest power of two below `length`."""
    return 1 << (length - 1).bit_length() - 1


def root_plan(size: int) -> list[Part]:
    """Return the one part whose hash is the root of the first `size` leaves."""
    return [_part(0, size)]


def inclusion_plan(index: int, size: int) -> list[Part]:
    """Return the audit path of leaf `index` in a tree of `size` leaves (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise InvalidInput(
            "proof.index_out_of_range",
            f"a tree of {size} leaves has no leaf {index}",
            value=index,
            limit=size,
        )
    parts, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            parts.append(_part(middle, end))
            end = middle
        else:
            parts.append(_part(start, middle))
            start = middle
    return parts[::-1]


def consistency_plan(old_size: int, size: int) -> list[Part]:
    """Return the proof that `size` leaves begin with `old_size` leaves (RFC 6962, 2.1.2)."""
    if not 0 <= old_size <= size:
        raise InvalidInput(
            "proof.size_out_of_range",
            f"a tree of {size} leaves does not begin with {old_size} leaves",
            value=old_size,
            limit=size,
        )
    if old_size == 0:
        return []
    parts, start, end = [], 0, size
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            parts.append(_part(middle, end))
            end = middle
        else:
            parts.append(_part(start, middle))
            start = middle
    if start:
        parts.append(_part(start, end))
    return parts[::-1]


def tiles_of(plan: Iterable[Part], size: int) -> list[TileId]:
    """Return the tiles, as wide as a tree of `size` leaves has them, that hold `plan`."""
    found = set()
    for part in plan:
        for node in part:
            level, number, _ = _place(node)
            found.add(TileId(level, number, width_in(level, number, size)))
    return sorted(found)


def _place(node: Node) -> tuple[int, int, int]:
    """Return level, number and offset of the first tile hash below `node`."""
    level, height_in_tile = divmod(node.height, TILE_HEIGHT)
    number, offset = divmod(node.number << height_in_tile, TILE_WIDTH)
    return level, number, offset


class Tiles:
    """Tiles that were fetched, by their coordinates, and the hashes that follow from them."""

    def __init__(self, tiles: Mapping[TileId, bytes]) -> None:
        self._packed = {(tile.level, tile.number): packed for tile, packed in tiles.items()}
        self._nodes: dict[Node, bytes] = {}

    def proof(self, plan: Iterable[Part]) -> list[bytes]:
        """Return the hashes that `plan` asks for."""
        return [
            _joined([self._node(node) for node in part]) if part else EMPTY_ROOT for part in plan
        ]

    def _node(self, node: Node) -> bytes:
        known = self._nodes.get(node)
        if known is None:
            known = self._nodes[node] = self._computed(node)
        return known

    def _computed(self, node: Node) -> bytes:
        level, number, offset = _place(node)
        width = 1 << node.height % TILE_HEIGHT
        packed = self._packed[level, number]
        cut = packed[offset * HASH_BYTES : (offset + width) * HASH_BYTES]
        if len(cut) != width * HASH_BYTES:
            raise InvalidInput(
                "tile.too_short",
                f"tile {number} of level {level} has {len(packed) // HASH_BYTES} hashes, "
                f"at least {offset + width} are needed",
                value=len(packed) // HASH_BYTES,
                limit=offset + width,
            )
        return subtree_root(split_hashes(cut))


@dataclass(frozen=True, slots=True, order=True)
class TileRoot:
    """The root of a full tile: the hash that stands for it in the level above."""

    level: int
    number: int
    root: bytes


class TileTree:
    """A tree that grows leaf by leaf in bounded memory, giving the root of each full tile."""

    __slots__ = ("_levels", "size")

    def __init__(self) -> None:
        self.size = 0
        self._levels: list[list[bytes]] = [[]]

    def append(self, leaves: Sequence[bytes]) -> Iterator[TileRoot]:
        """Grow the tree by `leaves`; yield every tile that they filled. Exhaust it."""
        start = 0
        while start < len(leaves):
            lowest = self._levels[0]
            taken = leaves[start : start + TILE_WIDTH - len(lowest)]
            lowest.extend(taken)
            start += len(taken)
            self.size += len(taken)
            if len(lowest) == TILE_WIDTH:
                yield from self._carry()

    def _carry(self) -> Iterator[TileRoot]:
        level = 0
        while len(self._levels[level]) == TILE_WIDTH:
            root = subtree_root(self._levels[level])
            self._levels[level] = []
            if level + 1 == len(self._levels):
                self._levels.append([])
            self._levels[level + 1].append(root)
            number = (self.size >> (TILE_HEIGHT * (level + 1))) - 1
            yield TileRoot(level, number, root)
            level += 1

    def frontier(self) -> list[bytes]:
        """Return the roots of the perfect subtrees, largest first, as `Frontier` packs them."""
        subtrees = []
        for hashes in reversed(self._levels):
            start = 0
            while start < len(hashes):
                width = 1 << (len(hashes) - start).bit_length() - 1
                subtrees.append(subtree_root(hashes[start : start + width]))
                start += width
        return subtrees

    def root(self) -> bytes:
        """Return the Merkle tree hash of all leaves so far."""
        subtrees = self.frontier()
        return _joined(subtrees) if subtrees else EMPTY_ROOT


# --- verification -------------------------------------------------------------------------


def root_of_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root that `proof` leads to from `leaf` at `index` of `size` leaves.

    Raises
    ------
    InvalidInput
        ``proof.malformed``: such a proof would have another length
    """
    if not 0 <= index < size or len(proof) > PROOF_HASHES_MAX:
        raise _malformed(f"leaf {index} of {size} with {len(proof)} hashes")
    at, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _malformed(f"{len(proof)} hashes are too many for leaf {index} of {size}")
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise _malformed(f"{len(proof)} hashes are too few for leaf {index} of {size}")
    return node


def check_inclusion(
    leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise `InvalidInput` unless `proof` shows `leaf` at `index` in the tree of `root`.

    Raises
    ------
    InvalidInput
        ``proof.malformed``, ``proof.inclusion_failed``
    """
    reached = root_of_inclusion(leaf, index, size, proof)
    if reached != root:
        raise InvalidInput(
            "proof.inclusion_failed",
            f"leaf {index} leads to root {reached.hex()}, the tree of {size} leaves has "
            f"{root.hex()}",
            value=reached.hex(),
            limit=root.hex(),
        )


def check_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise `InvalidInput` unless `proof` shows that the tree of `root` begins with the old one.

    Raises
    ------
    InvalidInput
        ``proof.malformed``, ``proof.consistency_failed``
    """
    if not 0 <= old_size <= size or len(proof) > 2 * PROOF_HASHES_MAX:
        raise _malformed(f"sizes {old_size} and {size} with {len(proof)} hashes")
    if old_size in (0, size):
        if proof:
            raise _malformed(f"sizes {old_size} and {size} need no hashes, not {len(proof)}")
        old_reached, reached = (EMPTY_ROOT, root) if old_size == 0 else (root, root)
    else:
        old_reached, reached = _roots_of_consistency(old_size, old_root, size, proof)
    if (old_reached, reached) != (old_root, root):
        raise InvalidInput(
            "proof.consistency_failed",
            f"the tree of {size} leaves does not begin with the tree of {old_size} leaves "
            f"whose root is {old_root.hex()}",
            value=root.hex(),
            limit=old_root.hex(),
        )


def _roots_of_consistency(
    old_size: int, old_root: bytes, size: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    hashes = list(proof)
    if old_size & (old_size - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        raise _malformed(f"no hashes for sizes {old_size} and {size}")
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_node = node = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise _malformed(f"{len(proof)} hashes are too many for {old_size} and {size}")
        if at & 1 or at == last:
            old_node, node = node_hash(sibling, old_node), node_hash(sibling, node)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise _malformed(f"{len(proof)} hashes are too few for {old_size} and {size}")
    return old_node, node


def _malformed(message: str) -> InvalidInput:
    return InvalidInput("proof.malformed", f"no proof can look like this: {message}")
