"""The Merkle tree of a ledger: leaf and node hashes, and the frontier that grows the tree.

References
----------
RFC 6962 (2013), section 2.1; C2SP tlog-tiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf that holds `entry`."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above `left` and `right`."""
    return _sha256(b"\x01" + left + right).digest()


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
        self._hashes = [packed[i : i + HASH_BYTES] for i in range(0, len(packed), HASH_BYTES)]

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

    def root(self) -> bytes:
        """Return the Merkle tree hash of all leaves so far."""
        if not self._hashes:
            return EMPTY_ROOT
        *larger, node = self._hashes
        for subtree in reversed(larger):
            node = node_hash(subtree, node)
        return node

    def packed(self) -> bytes:
        """Return the subtree roots, 32 bytes each, largest subtree first."""
        return b"".join(self._hashes)
