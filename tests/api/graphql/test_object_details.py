"""What objects of the thread tell of themselves: times, units, corrections, signatures, gaps."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import pytest

from domain.documents.document import (
    DocumentKind,
    ReleaseDocument,
    SupersedeDocument,
    WithdrawDocument,
)
from domain.material.lot import LotReceived, QuarantineLot, ReceiveLot, ReleaseLot, SplitLot
from domain.material.part import CreatePart, StockPart
from domain.quality.inspection import Characteristic, Judge, RecordInspection, Verdict
from domain.quality.instrument import (
    CalibrateInstrument,
    InstrumentCalibrated,
    RegisterInstrument,
)
from domain.quality.nonconformance import (
    CloseNonconformance,
    Disposition,
    DispositionNonconformance,
    OpenNonconformance,
)
from domain.records import CorrectRecord, Meaning
from domain.signatures import Authentication, SignRecord
from eventlog.commands import Handled, handle
from eventlog.corrections import handle_correction
from eventlog.erasure import erase
from eventlog.signatures import KEY_BYTES_MIN, KeyedVerifier, sign_record, signatures_of
from projections.objects import ObjectProjection
from projections.quality.projection import QualityProjection
from projections.thread.projection import ThreadProjection
from tests.api.graphql.server import START, Server, serving

pytestmark = pytest.mark.anyio

HOUR: Final = timedelta(hours=1)
MARA: Final = "user:mara"
GATEWAY: Final = KeyedVerifier(bytes(range(KEY_BYTES_MIN)))


@pytest.fixture
async def shop(shared_database_url: str) -> AsyncIterator[Server]:
    folded = (ObjectProjection(), ThreadProjection(), QualityProjection())
    name = f"shop-{uuid.uuid4().hex[:12]}"
    async with serving(shared_database_url, projections=folded, ledger=name) as running:
        yield running


async def told(shop: Server, command: Any, hours: float = 0.0) -> Handled:
    """Record what happened so many hours after the start."""
    handled = await handle(
        shop.ledger,
        command,
        actor=MARA,
        occurred_at=START + hours * HOUR,
        event_id=lambda _: uuid.uuid4(),
    )
    await shop.settle()
    return handled


async def corrected(shop: Server, stream: str, position: int, replacement: Any) -> int:
    event_id = await shop.ledger.pool.fetchval(
        "select event_id from event where ledger_id = $1 and position = $2",
        shop.ledger.ledger_id,
        position,
    )
    handled = await handle_correction(
        shop.ledger,
        CorrectRecord(stream, uuid.UUID(str(event_id)), "misread", replacement),
        actor="user:otto",
        event_id=uuid.uuid4(),
    )
    await shop.settle()
    return handled.position


LOT: Final = """
query($asOf: AsOf) { lot(lotId: "L-1", asOf: $asOf) {
  state material version complete position
  quantity { value recorded recordedUnit siUnit tonnes: value(unit: "t") }
  left { value recordedUnit }
  bookings(first: 10) { nodes { kind quantity { recorded } otherLotId otherLot { material } } }
  quarantine { reason since }
  corrections { correctedPosition reason actor replacementType replacement }
  events(first: 10) { nodes { type } }
} }
"""


def received(quantity: float) -> LotReceived:
    return LotReceived("L-1", "steel", quantity, "t", "ACME", "S-1", None)


async def test_a_lot_is_told_as_it_was_known_and_as_it_was_true(shop: Server) -> None:
    await told(shop, ReceiveLot("L-1", "steel", 0.3, "t", "ACME", "S-1"))
    await told(shop, SplitLot("L-1", "L-2", 100.0, "kg"), 1)
    await told(shop, QuarantineLot("L-1", "rust"), 2)
    await told(shop, ReleaseLot("L-1", "wiped"), 3)
    await corrected(shop, "lot:L-1", 1, received(0.4))

    now = (await shop.ask(LOT))["lot"]
    assert (now["state"], now["material"], now["version"], now["complete"]) == (
        "IN_STOCK", "steel", 5, True,
    )  # fmt: skip
    assert now["quantity"] == {
        "value": pytest.approx(400.0),
        "recorded": 0.4,
        "recordedUnit": "t",
        "siUnit": "kg",
        "tonnes": 0.4,
    }
    assert now["left"] == {"value": pytest.approx(300.0), "recordedUnit": "t"}
    assert [(b["kind"], b["quantity"]["recorded"]) for b in now["bookings"]["nodes"]] == [
        ("RECEIVED", 0.4),
        ("SPLIT", 100.0),
    ]
    assert now["bookings"]["nodes"][1]["otherLot"] == {"material": "steel"}
    (correction,) = now["corrections"]
    assert correction["correctedPosition"] == 1
    assert (correction["reason"], correction["actor"]) == ("misread", "user:otto")
    assert correction["replacementType"] == "lot.received"
    assert correction["replacement"]["quantity"] == 0.4
    assert [e["type"] for e in now["events"]["nodes"]] == [
        "lot.received", "lot.split", "lot.quarantined", "lot.released", "record.corrected",
    ]  # fmt: skip

    known = (await shop.ask(LOT, asOf={"position": 4}))["lot"]
    assert (known["state"], known["version"], known["position"]) == ("QUARANTINED", 3, 4)
    assert known["quarantine"]["reason"] == "rust"
    assert known["left"]["value"] == pytest.approx(200.0)
    assert known["corrections"] == []
    assert (await shop.ask(LOT, asOf={"position": 0}))["lot"] is None

    true = (await shop.ask(LOT, asOf={"validAt": "2020-03-09T12:30:00Z"}))["lot"]
    assert (true["state"], true["left"]["value"]) == ("IN_STOCK", pytest.approx(400.0))
    both = {"position": 4, "validAt": "2020-03-09T12:30:00Z"}
    assert (await shop.ask(LOT, asOf=both))["lot"]["left"]["value"] == pytest.approx(300.0)
    assert (await shop.ask(LOT, asOf={"validAt": "2020-03-09T11:00:00Z"}))["lot"] is None


async def test_what_the_law_took_is_missing_and_takes_nothing_else_with_it(shop: Server) -> None:
    await told(shop, ReceiveLot("L-1", "steel", 1.0, "t", "ACME", "S-1"))
    await told(shop, QuarantineLot("L-1", "rust"), 1)
    await told(shop, ReceiveLot("L-2", "steel", 1.0, "t", "ACME", "S-2"))
    await erase(
        shop.ledger,
        [1],
        reason="a person asked",
        actor=MARA,
        now=START,
        new_event_id=uuid.uuid4,
    )
    document = "{ lots(first: 10, orderBy: KEY) { nodes { lotId state complete material } } }"
    lots = (await shop.ask(document))["lots"]["nodes"]
    assert [(lot["lotId"], lot["complete"], lot["material"]) for lot in lots] == [
        ("L-1", False, None),
        ("L-2", True, "steel"),
    ]
    assert lots[0]["state"] == "UNKNOWN"


SIGNED: Final = """
{ instrument(instrumentId: "CMM-2") {
    signatures { position signedPosition signer signerName meaning holds faults } } }
"""


async def test_a_signature_is_told_and_holds_until_its_record_is_corrected(shop: Server) -> None:
    await told(shop, RegisterInstrument("CMM-2", "Coordinate measuring machine"))
    calibration = CalibrateInstrument("CMM-2", START, START + 1000 * HOUR, "CERT-1@A")
    position = (await told(shop, calibration)).position
    proof = Authentication(MARA, ("password", "totp"), START)
    command = SignRecord("instrument:CMM-2", position, "Mara Oltner", Meaning.APPROVED, proof)
    await sign_record(
        shop.ledger, GATEWAY.vouch(command), GATEWAY, actor=MARA, now=START, event_id=uuid.uuid4
    )
    (signature,) = (await shop.ask(SIGNED))["instrument"]["signatures"]
    assert signature == {
        "position": 3,
        "signedPosition": 2,
        "signer": MARA,
        "signerName": "Mara Oltner",
        "meaning": "APPROVED",
        "holds": True,
        "faults": [],
    }
    fact = InstrumentCalibrated("CMM-2", START, START + 900 * HOUR, "CERT-1@A")
    await corrected(shop, "instrument:CMM-2", position, fact)
    (signature,) = (await shop.ask(SIGNED))["instrument"]["signatures"]
    (standing,) = await signatures_of(shop.ledger, "instrument:CMM-2")
    assert (signature["holds"], signature["faults"]) == (False, ["signature.record_corrected"])
    assert list(standing.faults) == signature["faults"]


async def test_quality_leads_from_the_finding_to_the_inspection_and_its_instrument(
    shop: Server,
) -> None:
    await told(shop, RegisterInstrument("CMM-2", "Measuring machine"))
    await told(shop, CalibrateInstrument("CMM-2", START, START + 24 * HOUR))
    await told(shop, CreatePart("SN-1", "PN-7"))
    bore = Characteristic("bore", 25.0, 24.98, 25.02, 25.04, "mm", "CMM-2")
    await told(
        shop,
        RecordInspection(
            "I-1", "part:SN-1", START + HOUR, Verdict.DEFECTIVE, Judge.PERSON,
            characteristics=(bore,), defect_codes=("oversize",),
        ),
        1,
    )  # fmt: skip
    await told(shop, OpenNonconformance("NC-1", "part:SN-1", "oversize", "too wide", "I-1"), 2)
    await told(shop, DispositionNonconformance("NC-1", Disposition.SCRAP, "cannot be mended"), 3)
    await told(shop, CloseNonconformance("NC-1", "done"), 4)
    found = await shop.ask(
        """
        { nonconformances(first: 5, filter: { defectCodes: ["oversize"], states: [CLOSED],
            dispositions: [SCRAP], subjects: ["part:SN-1"] }) { nodes {
              nonconformanceId state defectCode description closingNote openedBy
              decision { disposition reason decidedBy }
              part { partId partNumber } lot { lotId }
              inspection { inspectedBy verdict defectCodes characteristics {
                name conforms measured { value siUnit mm: value(unit: "mm") recorded }
                upperLimit { value } instrument { calibratedUntil
                  calibration(at: "2020-03-09T13:00:00Z") { validUntil }
                  expired: calibration(at: "2020-03-11T13:00:00Z") { validUntil } } } } } } }
        """
    )
    (node,) = found["nonconformances"]["nodes"]
    assert node["part"] == {"partId": "SN-1", "partNumber": "PN-7"}
    assert node["lot"] is None
    assert node["decision"] == {
        "disposition": "SCRAP",
        "reason": "cannot be mended",
        "decidedBy": MARA,
    }
    assert (node["state"], node["closingNote"], node["openedBy"]) == ("CLOSED", "done", MARA)
    (told_bore,) = node["inspection"]["characteristics"]
    assert told_bore["conforms"] is False
    assert told_bore["measured"] == {
        "value": pytest.approx(0.02504),
        "siUnit": "m",
        "mm": 25.04,
        "recorded": 25.04,
    }
    assert told_bore["upperLimit"]["value"] == pytest.approx(0.02502)
    assert told_bore["instrument"]["calibration"]["validUntil"].startswith("2020-03-10T12")
    assert told_bore["instrument"]["expired"] is None
    inspections = (
        '{ inspections(first: 5, filter: { verdicts: [%s], subjects: ["part:SN-1"], '
        'defectCodes: ["oversize"] }) { nodes { inspectionId } } }'
    )
    assert (await shop.ask(inspections % "DEFECTIVE"))["inspections"]["nodes"] == [
        {"inspectionId": "I-1"}
    ]
    assert (await shop.ask(inspections % "GOOD"))["inspections"]["nodes"] == []
    code = "unit.quantity_mismatch"
    document = (
        '{ inspection(inspectionId: "I-1") { characteristics { measured { value(unit: "kg") } } } }'
    )
    assert await shop.code(document) == code


async def test_the_revision_in_effect_follows_the_time_that_is_asked_for(shop: Server) -> None:
    def release(revision: str, hours: float) -> ReleaseDocument:
        return ReleaseDocument(
            "DRW-7", revision, DocumentKind.DESIGN, f"Shaft {revision}", "ab" * 32, 5,
            "application/pdf", "PN-7", START + hours * HOUR,
        )  # fmt: skip

    await told(shop, release("A", 0))
    await told(shop, release("B", 5), 1)
    await told(shop, SupersedeDocument("DRW-7", "A", "B"), 2)
    await told(shop, WithdrawDocument("DRW-7", "B", "wrong scale"), 8)
    document = """
        query($asOf: AsOf, $at: DateTime) { document(documentId: "DRW-7", asOf: $asOf) {
          state title revisionInEffect(at: $at) { name inEffect }
          revisions { revision supersededBy withdrawn withdrawalReason releasedBy inEffect } } }
    """
    now = (await shop.ask(document, at="2020-03-09T13:00:00Z"))["document"]
    assert now["revisionInEffect"]["name"] == "DRW-7@A"
    assert (now["state"], now["title"]) == ("RELEASED", "Shaft B")
    assert [(r["revision"], r["supersededBy"], r["withdrawn"]) for r in now["revisions"]] == [
        ("A", "B", False),
        ("B", None, True),
    ]
    assert now["revisions"][1]["withdrawalReason"] == "wrong scale"
    then = {"position": 3, "validAt": "2020-03-09T18:00:00Z"}
    before = (await shop.ask(document, asOf=then))["document"]
    assert before["revisionInEffect"] == {"name": "DRW-7@B", "inEffect": True}
    assert [r["inEffect"] for r in before["revisions"]] == [False, True]
    later = (await shop.ask(document, at="2020-03-09T21:00:00Z"))["document"]
    assert later["revisionInEffect"] is None


async def test_a_list_and_its_objects_are_of_one_position(shop: Server) -> None:
    """What was recorded since the index was folded shows in neither."""
    await told(shop, CreatePart("SN-1", "PN-7"))
    position = await shop.settle()
    await shop.services.runners[ObjectProjection.name].close()
    await handle(
        shop.ledger,
        StockPart("SN-1"),
        actor=MARA,
        occurred_at=START + HOUR,
        event_id=lambda _: uuid.uuid4(),
    )
    document = """
        { parts(first: 5, filter: { states: [IN_PROCESS] }) { position nodes { state position } }
          part(partId: "SN-1") { state position } }
    """
    found = await shop.ask(document)
    assert found["parts"] == {
        "position": position,
        "nodes": [{"state": "IN_PROCESS", "position": position}],
    }
    assert found["part"] == {"state": "IN_STOCK", "position": position + 1}
