"""Evidence of a trace: a bundle that is verified from the file alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from api.evidence import gather, write_bundle
from api.evidence_report import write_report
from domain.errors import NotFound
from domain.records import RecordCorrected
from eventlog.bundles.streams import verify_bundle
from eventlog.bundles.trace_reading import read_trace_bundle
from projections.as_of import AsOf
from projections.thread.traced import Direction
from tests.api.evidence.part_plant import (
    CERTIFICATE,
    PART,
    Plant,
    changed,
)
from tests.recordings import REPOSITORY


@pytest.mark.anyio
async def test_a_part_s_evidence_is_verified_from_the_file_alone(plant: Plant) -> None:
    report = verify_bundle(await plant.bundle(files=True), [plant.vkey])
    assert report.findings == []
    assert report.trusted
    assert report.events == plant.events - 1  # one part has nothing to do with it
    assert report.signatures == 1
    assert (report.documents, report.documents_named) == (2, 2)
    assert report.edges_unshown == 0
    assert report.edges >= 7


@pytest.mark.anyio
async def test_a_second_process_verifies_it_without_database_keys_or_settings(
    plant: Plant,
) -> None:
    path = await plant.bundle(files=True)
    elsewhere = plant.folder / "elsewhere"
    elsewhere.mkdir()
    ran = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-m", "api.cli", "verify-bundle", str(path)),
            *("--json", "--vkey", plant.vkey.vkey),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(elsewhere), "HEDDLE_DATA_DIR": "/nowhere"},
    )
    shown = json.loads(ran.stdout)
    assert shown["clean"]
    assert shown["trusted"]
    assert shown["selection"]["roots"] == [PART]
    assert shown["documents"] == 2


@pytest.mark.anyio
async def test_as_of_a_position_it_holds_what_was_known_there_and_nothing_later(
    plant: Plant,
) -> None:
    before = await plant.evidence(as_of=AsOf(position=plant.corrected_at - 1))
    after = await plant.evidence()
    assert max(before.positions) < plant.corrected_at
    assert plant.corrected_at in after.positions
    path = await plant.bundle(as_of=AsOf(position=plant.corrected_at - 1))
    report, evidence, events = read_trace_bundle(path, [plant.vkey])
    assert report.clean
    assert evidence.selection.position == plant.corrected_at - 1
    assert not any(isinstance(event.fact, RecordCorrected) for event in events)


@pytest.mark.anyio
async def test_a_direction_bounds_what_is_gathered(plant: Plant) -> None:
    back = await plant.evidence(direction=Direction.BACK)
    forward = await plant.evidence(direction=Direction.FORWARD)
    assert "lot:L-1" in {node.key for node in back.nodes}
    assert "part:SN-2" not in {node.key for node in back.nodes}
    assert "shipment:SHIP-1" in {node.key for node in forward.nodes}
    assert "lot:L-1" not in {node.key for node in forward.nodes}


@pytest.mark.anyio
async def test_a_trace_that_was_cut_says_so(plant: Plant) -> None:
    report = verify_bundle(await plant.bundle(nodes_max=3), [plant.vkey])
    assert report.clean
    assert not report.selection.document["complete"]


@pytest.mark.anyio
async def test_what_nobody_has_heard_of_has_no_evidence(plant: Plant) -> None:
    with pytest.raises(NotFound) as refused:
        await gather(plant.ledger, ["part:nobody"])
    assert refused.value.code == "thread.unknown_node"


@pytest.mark.anyio
async def test_a_file_that_is_not_in_the_store_is_named_and_left_out(plant: Plant) -> None:
    for stored in (plant.folder / "documents").rglob("*"):
        if stored.is_file() and stored.read_bytes() == CERTIFICATE:
            stored.unlink()
    path = plant.folder / "b"
    exported = await write_bundle(
        plant.signer, await plant.evidence(), path, contents=plant.contents
    )
    assert exported.documents == 1
    assert exported.documents_missing == [hashlib.sha256(CERTIFICATE).hexdigest()]
    report = verify_bundle(path, [plant.vkey])
    assert report.clean
    assert (report.documents, report.documents_named) == (1, 2)


def _leave_as_it_is(lines: list[dict[str, Any]]) -> None:
    assert lines


@pytest.mark.anyio
async def test_a_bundle_signed_as_documented_is_one_whoever_wrote_it(plant: Plant) -> None:
    path = await plant.bundle(files=True)
    again = changed(path, _leave_as_it_is, plant.signer.keys.current())
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.anyio
async def test_a_link_whose_event_was_erased_stands_and_is_counted_as_not_shown(
    plant: Plant,
) -> None:
    path = await plant.bundle()
    shown = verify_bundle(path, [plant.vkey])
    erased = next(e.position for e in (await plant.evidence()).edges if e.kind == "CONSUMED_BY")
    await plant.ledger.pool.execute(
        "update event set payload = null, payload_tier = 2 where position = $1", erased
    )
    report = verify_bundle(await plant.bundle(), [plant.vkey])
    assert report.clean
    assert (report.edges, report.edges_unshown) == (shown.edges, 1)
    assert report.payloads_absent == 1
    assert write_report(path, plant.folder / "part.html", [plant.vkey]).clean
