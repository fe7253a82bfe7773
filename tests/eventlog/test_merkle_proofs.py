"""Proofs against an independent slow implementation of RFC 6962, and tiles against the spec."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from eventlog.transparency.merkle import (
    EMPTY_ROOT,
    Frontier,
    Level,
    Part,
    TileId,
    Tiles,
    TileTree,
    check_consistency,
    check_inclusion,
    consistency_plan,
    inclusion_plan,
    leaf_hash,
    parse_tile_path,
    root_plan,
    subtree_root,
    tile_path,
    tiles_of,
    width_in,
)
from tests.eventlog.test_merkle import CT_ENTRIES, CT_ROOTS

SIZE_MAX = 2_000
LARGE = 66_000
LEAVES = [hashlib.sha256(b"\x00" + n.to_bytes(4, "big")).digest() for n in range(LARGE)]
AROUND = sorted(
    size + offset
    for size in (*(2**n for n in range(12)), *(256 * n for n in range(1, 9)), 65_536)
    for offset in (-1, 0, 1)
    if size + offset > 0
)

# --- the slow twin: RFC 6962, section 2.1, word by word -------------------------------------

_known: dict[tuple[int, int], bytes] = {}


def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end])."""
    if end == start:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return LEAVES[start]
    if (start, end) not in _known:
        k = split(end - start)
        _known[start, end] = hashlib.sha256(
            b"\x01" + mth(start, start + k) + mth(start + k, end)
        ).digest()
    return _known[start, end]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def path(m: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[start:end])."""
    if end - start == 1:
        return []
    k = split(end - start)
    if m < k:
        return [*path(m, start, start + k), mth(start + k, end)]
    return [*path(m - k, start + k, end), mth(start, start + k)]


def proof(m: int, n: int) -> list[bytes]:
    """PROOF(m, D[n]), and nothing where the RFC defines none."""
    return subproof(m, 0, n, True) if 0 < m < n else []


def subproof(m: int, start: int, end: int, whole: bool) -> list[bytes]:
    if m == end - start:
        return [] if whole else [mth(start, end)]
    k = split(end - start)
    if m <= k:
        return [*subproof(m, start, start + k, whole), mth(start + k, end)]
    return [*subproof(m - k, start + k, end, False), mth(start, start + k)]


# --- ours, as it runs: planned, fetched by tile, computed -----------------------------------


def tile(wanted: TileId) -> bytes:
    """A tile as the specification defines it, from the slow twin."""
    span = 256**wanted.level
    first = wanted.number * 256
    return b"".join(mth((first + i) * span, (first + i + 1) * span) for i in range(wanted.width))


def answer(plan: list[Part], size: int) -> list[bytes]:
    wanted = tiles_of(plan, size)
    return Tiles({t: tile(t) for t in wanted}).proof(plan)


def inclusion(index: int, size: int) -> list[bytes]:
    return answer(inclusion_plan(index, size), size)


def consistency(old: int, size: int) -> list[bytes]:
    return answer(consistency_plan(old, size), size)


def root(size: int) -> bytes:
    return answer(root_plan(size), size)[0]


def test_every_inclusion_and_consistency_proof_of_small_trees_is_the_rfc_s() -> None:
    for size in range(1, 40):
        assert root(size) == mth(0, size)
        for m in range(size):
            assert inclusion(m, size) == path(m, 0, size)
            check_inclusion(LEAVES[m], m, size, mth(0, size), path(m, 0, size))
        for m in range(size + 1):
            assert consistency(m, size) == proof(m, size)
            check_consistency(m, mth(0, m), size, mth(0, size), proof(m, size))


@pytest.mark.parametrize("size", AROUND)
def test_proofs_around_powers_of_two_and_of_256(size: int) -> None:
    assert root(size) == mth(0, size)
    for m in {0, size // 3, size // 2, split(size) - 1 if size > 1 else 0, size - 1}:
        assert inclusion(m, size) == path(m, 0, size)
        check_inclusion(LEAVES[m], m, size, mth(0, size), inclusion(m, size))
        assert consistency(m, size) == proof(m, size)
        check_consistency(m, mth(0, m), size, mth(0, size), consistency(m, size))


@given(st.integers(1, SIZE_MAX), st.data())
def test_any_proof_verifies_and_nothing_else_does(size: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(0, size - 1))
    found, wanted = inclusion(m, size), mth(0, size)
    assert found == path(m, 0, size)
    check_inclusion(LEAVES[m], m, size, wanted, found)
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != m)) if size > 1 else None
    broken = [
        (LEAVES[m + 1], m, size, wanted, found),
        (LEAVES[m], m, size, mth(0, size + 1), found),
        (LEAVES[m], m, size, wanted, [*found, bytes(32)]),
        (LEAVES[m], size, size, wanted, found),
        (LEAVES[m], -1, size, wanted, found),
    ]
    if other is not None:
        broken.append((LEAVES[m], other, size, wanted, found))
        broken.append((LEAVES[m], m, size, wanted, found[:-1]))
        at = data.draw(st.integers(0, len(found) - 1))
        broken.append((LEAVES[m], m, size, wanted, [*found[:at], bytes(32), *found[at + 1 :]]))
    for attempt in broken:
        with pytest.raises(InvalidInput) as refused:
            check_inclusion(*attempt)
        assert refused.value.code in ("proof.inclusion_failed", "proof.malformed")


@given(st.integers(0, SIZE_MAX), st.data())
def test_any_two_sizes_are_consistent_and_no_other_roots_are(
    size: int, data: st.DataObject
) -> None:
    old = data.draw(st.integers(0, size))
    found, wanted = consistency(old, size), mth(0, size)
    assert found == proof(old, size)
    check_consistency(old, mth(0, old), size, wanted, found)
    broken = [
        (old, mth(0, old + 1), size, wanted, found),
        (old, mth(0, old), size, wanted, [*found, bytes(32)]),
        (size + 1, mth(0, size + 1), size, wanted, found),
    ]
    if old:
        broken.append((old, mth(0, old), size, mth(0, size + 1), found))
    if found:
        at = data.draw(st.integers(0, len(found) - 1))
        broken.append((old, mth(0, old), size, wanted, found[:at] + found[at + 1 :]))
        broken.append((old, mth(0, old), size, wanted, [*found[:at], bytes(32), *found[at + 1 :]]))
    for attempt in broken:
        with pytest.raises(InvalidInput) as refused:
            check_consistency(*attempt)
        assert refused.value.code in ("proof.consistency_failed", "proof.malformed")


def test_the_published_roots_of_certificate_transparency_s_test_tree() -> None:
    tree = TileTree()
    for entry, published in zip(CT_ENTRIES, CT_ROOTS, strict=True):
        assert list(tree.append([leaf_hash(entry)])) == []
        assert tree.root().hex() == published


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_a_leaf_outside_the_tree_has_no_path(index: int, size: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        inclusion_plan(index, size)
    assert (refused.value.code, refused.value.value) == ("proof.index_out_of_range", index)


@pytest.mark.parametrize(("old", "size"), [(-1, 5), (6, 5)])
def test_a_longer_tree_is_not_the_beginning_of_a_shorter_one(old: int, size: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        consistency_plan(old, size)
    assert refused.value.code == "proof.size_out_of_range"


def test_a_proof_at_ten_million_leaves_needs_a_handful_of_tiles() -> None:
    size = 10_000_000
    for index in (0, 5_000_000, 9_999_999):
        assert len(tiles_of(inclusion_plan(index, size), size)) <= 6
    assert len(tiles_of(consistency_plan(9_000_001, size), size)) <= 7


def test_a_tile_shorter_than_it_should_be_is_refused() -> None:
    plan = inclusion_plan(0, 200)
    with pytest.raises(InvalidInput) as refused:
        Tiles({TileId(0, 0, 10): tile(TileId(0, 0, 10))}).proof(plan)
    assert refused.value.code == "tile.too_short"


# --- tiles --------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 700), max_size=6))
def test_a_tree_grown_in_any_steps_gives_every_full_tile_once(steps: list[int]) -> None:
    tree, size, filled = TileTree(), 0, []
    for step in steps:
        filled += list(tree.append(LEAVES[size : size + step]))
        size += step
        frontier = Frontier()
        frontier.append(LEAVES[:size])
        assert tree.root() == frontier.root() == mth(0, size)
        assert b"".join(tree.frontier()) == frontier.packed()
    assert tree.size == size
    assert [(t.level, t.number) for t in filled] == [(0, n) for n in range(size // 256)]
    for t in filled:
        assert t.root == mth(t.number * 256, t.number * 256 + 256)


def test_full_tiles_of_higher_levels_follow_from_full_tiles_below() -> None:
    tree = TileTree()
    filled = list(tree.append(LEAVES))
    assert tree.root() == mth(0, LARGE)
    assert [t for t in filled if t.level == 1] == [type(filled[0])(1, 0, mth(0, 65_536))]
    assert tree.frontier()[0] == mth(0, 65_536)


def test_a_tree_of_seventy_thousand_leaves_has_the_tiles_the_specification_counts() -> None:
    size = 70_000
    assert [width_in(0, n, size) for n in (272, 273, 274)] == [256, 112, 0]
    assert [width_in(1, n, size) for n in (0, 1, 2)] == [256, 17, 0]
    assert [width_in(2, n, size) for n in (0, 1)] == [1, 0]
    assert (width_in(0, 0, 256), width_in(0, 1, 256), width_in(1, 0, 256)) == (256, 0, 1)


def test_paths_are_written_as_the_specification_writes_them() -> None:
    assert TileId(0, 1_234_067).path == "tile/0/x001/x234/067"
    assert TileId(1, 7, 12).path == "tile/1/007.p/12"
    assert tile_path("entries", 1_000, 255) == "tile/entries/x001/000.p/255"
    assert tile_path(63, 999) == "tile/63/999"


@given(st.sampled_from(["entries", 0, 1, 63]), st.integers(0, 10**20), st.integers(1, 256))
def test_a_path_is_read_back(level: Level, number: int, width: int) -> None:
    assert parse_tile_path(tile_path(level, number, width)) == (level, number, width)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/1",
        "tile/0/0001",
        "tile/00/001",
        "tile/64/001",
        "tile/-1/001",
        "tile/0/x001",
        "tile/0/x000/001",
        "tile/0/001/001",
        "tile/0/001.p/0",
        "tile/0/001.p/01",
        "tile/0/001.p/256",
        "tile/0/001.p/257",
        "tile/0/001.p/",
        "tile/0/001/",
        "tile/0/x001/x1234/067",
        "tile/entry/001",
        "/tile/0/001",
        "tile/0/٠٠١",
        "tile/0/x001/x001/x001/x001/x001/x001/x001/001",
    ],
)
def test_any_other_way_of_writing_a_path_is_none(path: str) -> None:
    assert parse_tile_path(path) is None


@pytest.mark.parametrize("count", [0, 3, 255])
def test_only_a_power_of_two_is_a_perfect_subtree(count: int) -> None:
    with pytest.raises(ValueError, match="no perfect subtree"):
        subtree_root(LEAVES[:count])


def test_the_empty_tree_has_its_root_and_no_tile() -> None:
    assert root(0) == EMPTY_ROOT
    assert tiles_of(root_plan(0), 0) == []
