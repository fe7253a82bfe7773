"""The Merkle tree against RFC 6962: published roots, a slow twin, and any split into batches."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog.transparency.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash

# The test tree of the Certificate Transparency project (its C++ and Go Merkle tree tests).
CT_ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

LEAVES = [leaf_hash(n.to_bytes(4, "big")) for n in range(600)]


def slow_root(leaves: list[bytes]) -> bytes:
    """Return MTH as RFC 6962 section 2.1 writes it, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    left, right = slow_root(leaves[:split]), slow_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()
    assert Frontier().packed() == b""


def test_leaves_and_nodes_are_told_apart_by_their_first_byte() -> None:
    assert leaf_hash(b"").hex() == CT_ROOTS[0]
    assert leaf_hash(b"\x01" * 64) != node_hash(b"\x01" * 32, b"\x01" * 32)


@pytest.mark.parametrize(("size", "root"), list(enumerate(CT_ROOTS, start=1)))
def test_the_roots_of_certificate_transparency_s_test_tree(size: int, root: str) -> None:
    tree = Frontier()
    tree.append(leaf_hash(entry) for entry in CT_ENTRIES[:size])
    assert tree.root().hex() == root


def test_every_size_up_to_six_hundred_has_the_root_of_the_definition() -> None:
    tree = Frontier()
    for size in range(len(LEAVES) + 1):
        assert tree.size == size
        assert len(tree.packed()) == 32 * size.bit_count()
        if size < 130 or size % 17 == 0 or size.bit_count() in (1, 9):
            assert tree.root() == slow_root(LEAVES[:size])
        tree.append(LEAVES[size : size + 1])


@given(st.lists(st.integers(0, 80), max_size=8), st.booleans())
def test_any_split_into_batches_gives_the_same_tree(batches: list[int], reload: bool) -> None:
    tree, size = Frontier(), 0
    for batch in batches:
        tree.append(LEAVES[size : size + batch])
        size = min(size + batch, len(LEAVES))
        if reload:
            tree = Frontier(tree.size, tree.packed())
    assert tree.size == size
    assert tree.root() == slow_root(LEAVES[:size])


def test_the_frontier_holds_the_perfect_subtrees_largest_first() -> None:
    tree = Frontier()
    tree.append(LEAVES[:13])
    expected = [slow_root(LEAVES[:8]), slow_root(LEAVES[8:12]), LEAVES[12]]
    assert tree.packed() == b"".join(expected)


@pytest.mark.parametrize(("size", "packed"), [(0, bytes(32)), (1, b""), (3, bytes(32)), (4, b"x")])
def test_bytes_that_cannot_be_a_frontier_of_that_size_are_refused(size: int, packed: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be the frontier"):
        Frontier(size, packed)
