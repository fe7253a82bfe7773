"""The thread of a factory, by a story: what an auditor and a quality engineer ask, answered.

`thread_story` tells it. Here it is asked: where did the broken shaft come from, what else did the
bad lot reach, what was known when it was shipped, who signed for it, and can that be proved
elsewhere.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.evidence import gather, write_bundle
from domain.documents.document import Document
from domain.errors import HeddleError
from domain.opinions.prediction import Outcome
from domain.quality.nonconformance import Disposition, Dispositioned
from domain.thread import LinkKind, NodeKind, NodeState
from domain.units import unit
from eventlog.bundles.streams import verify_bundle
from eventlog.commands import load
from eventlog.database import create_pool
from eventlog.ledger import Ledger
from eventlog.reading import read_event
from eventlog.signatures import signatures_of
from eventlog.transparency.notes import VerifierKey
from eventlog.transparency.signing import CheckpointSigner
from projections.as_of import NOW, AsOf
from projections.telemetry.readings import read_raw
from projections.thread.trace import recall, trace
from projections.thread.traced import Direction, Recall, Trace, TraceEdge
from tests.database import new_database
from tests.end_to_end.altered_bundles import LINES, variants
from tests.end_to_end.processes import REPOSITORY
from tests.end_to_end.thread_story import (
    FILES,
    LOOKS,
    MARA,
    NONCONFORMANCE,
    Story,
    at,
    told_story,
)
from tests.eventlog.signing import signer_for
from tests.projections.all_projections import running_all

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def story_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database for the story."""
    with new_database(postgres_url, "heddle_thread_story", template=template_database) as url:
        yield url


@pytest.fixture(scope="module")
async def story(story_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """The story, told once; nobody changes anything afterwards."""
    pool = await create_pool(story_url)
    ledger = await Ledger.open(pool, "plant-1")
    try:
        async with running_all(ledger, story_url) as runners:
            yield await told_story(ledger, runners, tmp_path_factory.mktemp("story"))
    finally:
        await ledger.close()
        await pool.close()


def keys(traced: Trace) -> set[str]:
    return {node.key for node in traced.nodes}


def edge(traced: Trace, kind: LinkKind, cause: str, effect: str) -> TraceEdge:
    (only,) = [
        one for one in traced.edges if (one.kind, one.cause, one.effect) == (kind, cause, effect)
    ]
    return only


async def back(story: Story, root: str, as_of: AsOf = NOW) -> Trace:
    return await trace(story.ledger, [root], direction=Direction.BACK, as_of=as_of)


async def recalled(story: Story, as_of: AsOf = NOW) -> Recall:
    return await recall(story.ledger, ["lot:LOT-S"], as_of=as_of, nodes=True)


def reached(recall: Recall) -> set[str]:
    assert recall.trace is not None
    return keys(recall.trace)


# --- where it came from ---------------------------------------------------------------------

ORIGIN_OF_SN_5 = {
    "part:SN-5",
    "process-run:RUN-3",
    "asset:lathe-1",
    "lot:LOT-S",
    "document:CERT-S@1",
    "document:DRW-SHAFT@B",
    "document:RCP-TURN@3",
    "nonconformance:NC-1",
    "inspection:INS-5",
    "instrument:CMM-2",
    "document:CAL-CMM@7",
}


async def test_the_broken_shaft_leads_back_to_its_drawing_s_revision_and_its_steel_s_certificate(
    story: Story,
) -> None:
    traced = await back(story, "part:SN-5")
    assert keys(traced) == ORIGIN_OF_SN_5
    assert (traced.cut, traced.unknown_roots) == (None, ())
    consumed = edge(traced, LinkKind.CONSUMED_BY, "lot:LOT-S", "process-run:RUN-3")
    assert (consumed.quantity, consumed.unit, consumed.valid_from) == (8.0, "kg", at(15))
    stands = {node.key: node.state for node in traced.nodes}
    assert stands["part:SN-5"] is NodeState.FAILED
    assert stands["process-run:RUN-3"] is NodeState.COMPLETED
    assert stands["inspection:INS-5"] is NodeState.DEFECTIVE
    assert stands["document:DRW-SHAFT@B"] is NodeState.ACTIVE


async def test_the_field_failure_leads_back_to_the_same(story: Story) -> None:
    traced = await back(story, "failure:FAIL-1")
    assert keys(traced) == {"failure:FAIL-1", *ORIGIN_OF_SN_5}


@pytest.mark.parametrize("name", ["DRW-SHAFT@B", "CERT-S@1"])
async def test_drawing_and_certificate_can_be_had_as_they_were_released(
    story: Story, name: str
) -> None:
    document_id, _, revision = name.partition("@")
    document: Document
    document, _ = await load(story.ledger, f"document:{document_id}")
    file = io.BytesIO()
    content = story.contents.get(document.revisions[revision].released.sha256, file)
    assert (file.getvalue(), content.size_bytes) == (FILES[name], len(FILES[name]))


async def test_what_the_terminal_told_late_and_backwards_stands_where_it_was_true(
    story: Story,
) -> None:
    told = story.positions
    order = ["CompleteProcessRun", "CreatePart", "ConsumeLot", "StartProcessRun"]
    assert [told[name] for name in order] == sorted(told[name] for name in order)
    created = await read_event(story.ledger, told["CreatePart"])
    assert created is not None
    assert created.fact.flags == ("process_run.unknown",)
    both = [await back(story, f"part:SN-{number}") for number in (1, 5)]
    shapes = [
        sorted((one.kind.name, one.cause.partition(":")[0]) for one in traced.edges)
        for traced in both
    ]
    # The part of a run that was told in its order has the same thread, but for the defect.
    assert [shape for shape in shapes[1] if shape not in shapes[0]] == [
        ("CONCERNS", "nonconformance"),
        ("FOUND", "inspection"),
    ]
    run = "process-run:RUN-3"
    begun = edge(both[1], LinkKind.PERFORMED, "asset:lathe-1", run)
    made = edge(both[1], LinkKind.PRODUCED, run, "part:SN-5")
    assert (begun.valid_from, made.valid_from) == (at(14), at(18))
    assert made.position < begun.position


# --- the machine it was made on -------------------------------------------------------------


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000_000


async def vibration(story: Story, begin: float, end: float) -> Any:
    (vertical,) = await read_raw(
        story.ledger,
        "lathe-1",
        ["vibration_vertical"],
        start_ns=ns(at(begin)),
        end_ns=ns(at(end)) - 1,
    )
    return vertical.values


async def test_the_lathe_s_bearing_was_worn_while_the_shaft_was_turned(story: Story) -> None:
    """The run's window of telemetry holds the recording's own values, in SI."""
    g = unit("g_n")
    healthy, worn = await vibration(story, 0, 6), await vibration(story, 14, 20)
    recorded = story.life.vertical_g[-LOOKS:] * g.factor
    np.testing.assert_array_equal(healthy, recorded[:36])
    np.testing.assert_array_equal(worn, recorded[84:])
    assert healthy.max() < 1.5 * g.factor < worn.min()


async def test_the_wear_was_told_and_foretold_and_the_repair_confirmed_it(story: Story) -> None:
    traced = await trace(story.ledger, ["asset:lathe-1"], direction=Direction.FORWARD)
    stands = {node.key: node.state for node in traced.nodes}
    raised = [one.valid_from for one in traced.edges if one.kind is LinkKind.RAISED]
    assert at(13) < min(raised) <= max(raised) < at(20)
    (order,) = [node.key for node in traced.nodes if node.kind is NodeKind.WORK_ORDER]
    edge(traced, LinkKind.LED_TO, "prediction:P-1", order)
    confirmed = edge(traced, LinkKind.CONFIRMED_BY, order, "prediction:P-1")
    assert stands[order] is NodeState.COMPLETED
    outcome = await read_event(story.ledger, confirmed.position)
    assert outcome is not None
    assert outcome.fact.outcome is Outcome.CONFIRMED
    assert outcome.actor == "policy:work-orders"
    assert {f"part:SN-{number}" for number in range(1, 7)} < keys(traced)
    bearings = await trace(
        story.ledger,
        ["asset:lathe-1"],
        direction=Direction.BACK,
        link_kinds=[LinkKind.INSTALLED_IN],
        as_of=AsOf(valid_at=at(18)),
    )
    assert keys(bearings) == {"asset:lathe-1", "component:BRG-1"}


# --- what the lot reached -------------------------------------------------------------------

BEFORE = {
    NodeState.FAILED: 1,  # SN-5
    NodeState.ASSEMBLED: 1,  # SN-1
    NodeState.IN_STOCK: 1,  # SN-2
    NodeState.IN_PROCESS: 1,  # SN-6
    NodeState.SHIPPED: 2,  # PUMP-A, PUMP-B
}
AFTER = BEFORE | {
    NodeState.ASSEMBLED: 2,  # SN-3 too
    NodeState.IN_STOCK: 3,  # SN-4 and PUMP-C too
}


async def test_a_recall_of_the_lot_counts_what_was_shipped_what_is_in_stock_and_in_process(
    story: Story,
) -> None:
    found = await recalled(story)
    assert found.parts == AFTER
    assert found.lots == {NodeState.IN_STOCK: 1}
    assert {key for key in reached(found) if key.startswith("shipment:")} == {"shipment:SHIP-1"}
    counted = await recall(story.ledger, ["lot:LOT-S"])
    assert (counted.counts, counted.total) == (found.counts, found.total)


# --- what was known, and when ---------------------------------------------------------------


async def test_the_correction_adds_to_the_recall_what_it_says_and_nothing_else(
    story: Story,
) -> None:
    before = await recalled(story, AsOf(position=story.failed))
    after = await recalled(story, AsOf(position=story.rebooked))
    assert before.parts == BEFORE
    assert after.parts == AFTER
    assert reached(after) - reached(before) == {
        "process-run:RUN-2",
        "part:SN-3",
        "part:SN-4",
        "part:PUMP-C",
    }
    assert reached(before) < reached(after)


async def test_the_correction_moves_a_shaft_from_one_lot_to_the_other(story: Story) -> None:
    before = await back(story, "part:SN-3", AsOf(position=story.failed))
    after = await back(story, "part:SN-3", AsOf(position=story.rebooked))
    assert keys(before) - keys(after) == {"lot:LOT-T", "document:CERT-T@1"}
    assert keys(after) - keys(before) == {"lot:LOT-S", "document:CERT-S@1"}
    wrong = edge(before, LinkKind.CONSUMED_BY, "lot:LOT-T", "process-run:RUN-2")
    right = edge(after, LinkKind.CONSUMED_BY, "lot:LOT-S", "process-run:RUN-2")
    assert wrong.valid_from == right.valid_from == at(8)
    assert (wrong.position, right.position) == (story.positions["RUN-2 consumed"], story.rebooked)
    assert await recall_of_lot_t(story) == {NodeState.IN_STOCK: 1}


async def recall_of_lot_t(story: Story) -> dict[NodeState, int]:
    """Return the lots that LOT-T reaches now, which is itself alone."""
    found = await recall(story.ledger, ["lot:LOT-T"])
    assert found.total == 1
    return found.lots


async def test_when_it_was_shipped_nobody_knew_of_a_failure(story: Story) -> None:
    """As known then, and as true then: two questions with two answers."""
    known_then = await recalled(story, AsOf(position=story.shipped))
    assert known_then.parts == {
        NodeState.ASSEMBLED: 2,  # SN-1, SN-5
        NodeState.IN_STOCK: 1,
        NodeState.IN_PROCESS: 1,
        NodeState.SHIPPED: 2,
    }
    assert not {key for key in reached(known_then) if key.startswith("failure:")}
    true_then = await recalled(story, AsOf(valid_at=at(24 * 60)))
    assert true_then.parts == {
        NodeState.ASSEMBLED: 3,  # SN-3 too, as is known now
        NodeState.IN_STOCK: 3,
        NodeState.IN_PROCESS: 1,
        NodeState.SHIPPED: 2,
    }


# --- who answers for it ---------------------------------------------------------------------


async def test_the_signature_on_the_disposition_holds_until_the_disposition_is_corrected(
    story: Story,
) -> None:
    (then,) = await signatures_of(story.ledger, NONCONFORMANCE, as_of=story.failed)
    assert then.holds
    assert (then.position, then.signed_at) == (story.signed, at(70))
    signature = then.signature
    assert (signature.signer, signature.signer_name) == (MARA, "Mara Lindqvist")
    decided = await read_event(story.ledger, story.decided)
    assert decided is not None
    assert signature.signed_sha256 == decided.leaf_hash.hex()
    assert decided.fact.disposition is Disposition.USE_AS_IS
    (now,) = await signatures_of(story.ledger, NONCONFORMANCE)
    assert (now.holds, now.faults) == (False, ("signature.record_corrected",))
    assert now.signature == signature
    nonconformance, _ = await load(story.ledger, NONCONFORMANCE)
    assert isinstance(nonconformance, Dispositioned)
    assert nonconformance.disposition is Disposition.SCRAP


# --- and proved elsewhere -------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A bundle as it was sent to an auditor, and the key that he was told by other means."""

    path: Path
    vkey: str


@pytest.fixture(scope="module")
def signer(story: Story, tmp_path_factory: pytest.TempPathFactory) -> CheckpointSigner:
    """Who signs the log's checkpoints."""
    return signer_for(story.ledger, tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
async def sent(
    anyio_backend: str,
    story: Story,
    signer: CheckpointSigner,
    tmp_path_factory: pytest.TempPathFactory,
) -> Sent:
    """All about the broken shaft, with the files, in a folder that holds nothing else."""
    folder = tmp_path_factory.mktemp("auditor")
    evidence = await gather(story.ledger, ["part:SN-5"])
    path = folder / "SN-5.bundle"
    exported = await write_bundle(signer, evidence, path, contents=story.contents)
    assert exported.documents_missing == []
    return Sent(path, signer.keys.current().verifier.vkey)


def verified_elsewhere(path: Path, vkey: str) -> tuple[int, dict[str, Any], str]:
    """Verify the bundle at `path` in another process, which has no database to ask.

    Its environment names one where nobody listens, and a data folder that cannot be made.
    """
    finished = subprocess.run(
        [sys.executable, "-m", "api.cli", "verify-bundle", str(path), "--vkey", vkey, "--json"],
        cwd=path.parent,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(path.parent),
            "HEDDLE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
            "HEDDLE_DATA_DIR": "/dev/null/nothing",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    document = json.loads(finished.stdout) if finished.stdout.startswith("{") else {}
    return finished.returncode, document, finished.stderr


def test_the_bundle_is_verified_in_another_process_without_a_database(sent: Sent) -> None:
    status, document, said = verified_elsewhere(sent.path, sent.vkey)
    assert (status, document.get("clean"), document.get("findings")) == (0, True, []), said
    assert document["trusted"]
    assert document["vkey"] == sent.vkey
    assert document["selection"]["roots"] == ["part:SN-5"]
    assert document["selection"]["complete"]
    assert document["signatures"] == 1
    assert document["payloads_absent"] == document["edges_unshown"] == 0
    assert document["documents"] >= 4  # drawing, recipe, both certificates
    assert os.listdir(sent.path.parent) == [sent.path.name]


async def test_the_bundle_holds_the_whole_thread_of_the_shaft(story: Story, sent: Sent) -> None:
    whole = await trace(story.ledger, ["part:SN-5"], direction=Direction.BOTH)
    assert keys(whole) == ORIGIN_OF_SN_5 | {"part:PUMP-A", "shipment:SHIP-1", "failure:FAIL-1"}
    report = verify_bundle(sent.path, [VerifierKey.parse(sent.vkey)])
    assert (report.nodes, report.edges) == (len(whole.nodes), len(whole.edges))


def altered(sent: Sent, offset: int, path: Path) -> Path:
    """Write the bundle to `path` with one byte at `offset` changed, a letter to its neighbour."""
    content = bytearray(sent.path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    return path


def test_a_bundle_with_one_altered_byte_is_refused_elsewhere(sent: Sent, tmp_path: Path) -> None:
    content = sent.path.read_bytes()
    offset = content.index(b'"payload":"') + len(b'"payload":"') + 40
    status, document, said = verified_elsewhere(
        altered(sent, offset, tmp_path / "altered.bundle"), sent.vkey
    )
    assert status == 1, said
    assert not document.get("clean", False)


def unseen(sent: Sent, folder: Path, kind: str, *, names: bool) -> list[tuple[Any, ...]]:
    """Return where lines of `kind` can be altered so that the bundle still verifies."""
    path = folder / "altered.bundle"
    trusted = [VerifierKey.parse(sent.vkey)]
    tried, found = 0, []
    for place, content in variants(sent.path, kind, names=names):
        path.write_bytes(content)
        tried += 1
        if clean(path, trusted):
            found.append(place)
    assert tried
    return found


@pytest.mark.parametrize("kind", LINES)
def test_no_value_of_the_bundle_can_be_altered_unseen(
    sent: Sent, tmp_path: Path, kind: str
) -> None:
    assert unseen(sent, tmp_path, kind, names=False) == []


@pytest.mark.parametrize("kind", LINES)
def test_what_a_bundle_says_under_an_unknown_name_is_not_passed_over(
    sent: Sent, tmp_path: Path, kind: str
) -> None:
    assert unseen(sent, tmp_path, kind, names=True) == []


@pytest.mark.parametrize(
    ("kind", "place", "names"),
    [
        ("header", ("trace", "direction"), False),
        ("header", ("trace", "complete"), False),
        ("things", ("nodes", 0, 2), False),
        ("links", ("edges", 0, 3), False),
        ("signature", ("signature",), False),
        ("events", ("payload",), True),
        ("files", ("end",), True),
        ("signature", ("signature",), True),
    ],
)
def test_what_no_event_proves_is_bound_elsewhere_too(
    sent: Sent, tmp_path: Path, kind: str, place: tuple[Any, ...], names: bool
) -> None:
    content = next(
        content
        for (_, *where), content in variants(sent.path, kind, names=names)
        if tuple(where) == place
    )
    path = tmp_path / "altered.bundle"
    path.write_bytes(content)
    status, document, said = verified_elsewhere(path, sent.vkey)
    assert (status, document.get("clean")) == (1, False), said
    codes = {finding["code"] for finding in document["findings"]}
    assert "bundle.signature" in codes


def clean(path: Path, trusted: list[VerifierKey]) -> bool:
    try:
        return verify_bundle(path, trusted).clean
    except HeddleError:
        return False


@pytest.mark.parametrize("root", ["lot:LOT-S", "part:SN-3", "asset:lathe-1"])
async def test_what_was_corrected_removed_and_confirmed_verifies(
    story: Story, signer: CheckpointSigner, tmp_path: Path, root: str
) -> None:
    evidence = await gather(story.ledger, [root])
    path = tmp_path / "whole.bundle"
    await write_bundle(signer, evidence, path, contents=story.contents)
    report = verify_bundle(path, [signer.keys.current().verifier])
    assert report.findings == []
    assert (report.edges, report.edges_unshown) == (len(evidence.edges), 0)


async def test_a_bundle_as_of_the_shipment_proves_what_was_known_then(
    story: Story, signer: CheckpointSigner, tmp_path: Path
) -> None:
    evidence = await gather(story.ledger, ["part:SN-5"], as_of=AsOf(position=story.shipped))
    path = tmp_path / "then.bundle"
    await write_bundle(signer, evidence, path, contents=story.contents)
    assert max(evidence.positions) <= story.shipped
    assert "failure:FAIL-1" not in {node.key for node in evidence.nodes}
    report = verify_bundle(path, [signer.keys.current().verifier])
    assert report.clean
    assert report.signatures == 1
