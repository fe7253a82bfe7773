"""The report of a bundle, for people, and the graph drawn in it."""

from __future__ import annotations

import hashlib
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from api.evidence_report import write_report
from api.graph_drawing import BOXES_PER_LAYER, LAYERS_EACH_WAY, lay_out
from eventlog.bundles.traces import BundleEdge, BundleNode
from tests.api.evidence.part_plant import (
    DRAWING,
    HOSTILE,
    PART,
    Plant,
    change_payload,
    changed,
    graph_of,
)


class Page(HTMLParser):
    """A page as a browser takes it: its elements, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.anyio
async def test_the_report_shows_hostile_names_as_text(plant: Plant) -> None:
    page = plant.folder / "part.html"
    assert write_report(await plant.bundle(), page, [plant.vkey]).clean
    text = page.read_text()
    read = Page(text)
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert not any(name.startswith("on") for name in read.attributes)
    assert any(HOSTILE in shown for shown in read.texts)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text


@pytest.mark.anyio
async def test_the_report_of_a_forged_graph_is_text_and_findings(plant: Plant) -> None:
    def forge(lines: list[dict[str, Any]]) -> None:
        graph_of(lines, "nodes").append([HOSTILE, HOSTILE, HOSTILE, 1, 1])
        when = graph_of(lines, "edges")[0][5]
        graph_of(lines, "edges").append(
            [HOSTILE, PART, HOSTILE, 1.5, HOSTILE, when, HOSTILE, 1, None]
        )

    page = plant.folder / "part.html"
    shown = write_report(changed(await plant.bundle(), forge), page, [plant.vkey])
    assert "bundle.edge" in {finding.code for finding in shown.findings}
    read = Page(page.read_text())
    assert read.tags.isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for name in read.attributes)


@pytest.mark.anyio
async def test_the_report_tells_what_was_known_when_who_signed_and_how_to_check(
    plant: Plant,
) -> None:
    page = plant.folder / "part.html"
    write_report(await plant.bundle(), page, [plant.vkey])
    text = " ".join(Page(page.read_text()).texts)
    assert "Corrections: what was known when" in text
    assert "20.5" in text
    assert "20.05" in text
    assert "approved" in text
    assert "holds" in text
    assert hashlib.sha256(DRAWING).hexdigest() in text
    assert f"--vkey {plant.vkey.vkey}" in text
    assert "part.bundle" in text
    assert "@media print" in page.read_text()


@pytest.mark.anyio
async def test_a_report_of_a_bundle_that_was_tampered_with_says_so(plant: Plant) -> None:
    page = plant.folder / "part.html"
    write_report(changed(await plant.bundle(), change_payload), page, [plant.vkey])
    text = " ".join(Page(page.read_text()).texts)
    assert "event.payload_mismatch" in text
    assert "Every event below was checked" not in text


# --- the drawing ----------------------------------------------------------------------------


def node(key: str, kind: str = "PART") -> BundleNode:
    return BundleNode(key, kind, "ACTIVE", 0, 1)


def link(cause: str, effect: str) -> BundleEdge:
    when = "2020-01-01T00:00:00.000000Z"
    return BundleEdge("PRODUCED", cause, effect, None, None, when, None, 1, None)


def test_causes_stand_on_the_left_and_effects_on_the_right() -> None:
    nodes = [node("part:b"), node("lot:a", "LOT"), node("part:c")]
    drawing = lay_out(nodes, [link("lot:a", "part:b"), link("part:b", "part:c")], ["part:b"])
    assert {box.key: box.layer for box in drawing.boxes} == {
        "lot:a": -1,
        "part:b": 0,
        "part:c": 1,
    }
    assert drawing.summarised == 0
    assert len(drawing.lines) == 2


def test_a_drawing_is_bounded_whatever_the_graph_s_size_and_shape() -> None:
    wide = [node(f"part:{n}") for n in range(500)]
    chain = [node(f"lot:{n}", "LOT") for n in range(100)]
    edges = [link("part:0", each.key) for each in wide[1:]]
    edges += [link(a.key, b.key) for a, b in pairwise(chain)]
    edges += [link(chain[-1].key, "part:0"), link("part:3", "part:0")]  # and a cycle
    drawing = lay_out([*wide, *chain], edges, ["part:0"])
    layers = 2 * LAYERS_EACH_WAY + 1
    assert len(drawing.boxes) <= layers * (BOXES_PER_LAYER + 2)
    drawn = sum(1 for box in drawing.boxes if not box.label.startswith("+"))
    assert drawn + drawing.summarised == len(wide) + len(chain)
    assert len({(box.layer, box.row) for box in drawing.boxes}) == len(drawing.boxes)


def test_the_same_graph_is_drawn_the_same() -> None:
    nodes = [node(f"part:{n}") for n in range(60)]
    edges = [link(f"part:{n // 2}", f"part:{n}") for n in range(1, 60)]
    assert lay_out(nodes, edges, ["part:0"]) == lay_out(nodes, edges, ["part:0"])
    assert lay_out([], [], []).boxes == []
