"""Real events of three links and one state each, as machines and people would tell them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from benchmarks.thread_factory import part_key
from domain.material.part import PartCreated
from domain.material.process_run import ProcessRunStarted
from domain.quality.inspection import Characteristic, InspectionRecorded, Judge, Verdict
from eventlog.envelope import NewEvent, RecordedEvent, new_fact

NOW: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""When what is folded occurred."""


def three_links_each(label: str, part: Callable[[], int], begin: int = 0) -> Iterator[NewEvent]:
    """Yield runs begun, parts made, inspections: without end.

    Parameters
    ----------
    label : four letters that no other caller uses
    part : number of the part that is inspected
    begin : number of the first; beyond those that were told before
    """
    for n in itertools.count(begin):
        number = f"{label}{n:08d}"
        known = part_key(part()).partition(":")[2]
        fact: Any
        match n % 4:
            case 0:
                stream = f"process-run:{number}"
                fact = ProcessRunStarted(
                    number,
                    f"m{n % 50}______",
                    "milling",
                    f"{n % 40}____",
                    "DRW-7@B",
                    None,
                    None,
                    (),
                )
            case 1:
                stream = f"part:{number}"
                fact = PartCreated(number, "PN-1", "DRW-7@B", f"{number[:-1]}0", "l000000000")
            case _:
                stream = f"inspection:{number}"
                fact = InspectionRecorded(
                    number,
                    f"part:{known}",
                    None,
                    "PLAN-3@A",
                    (Characteristic("bore", 10.0, 9.9, 10.1, 10.02, "mm", f"CMM-{n % 20}"),),
                    (),
                    (),
                    Verdict.GOOD,
                    Judge.PERSON,
                    None,
                    (),
                )
        yield new_fact(
            stream,
            fact,
            event_id=uuid.uuid5(uuid.NAMESPACE_OID, number),
            occurred_at=NOW + timedelta(seconds=n),
            actor="user:mara",
        )


def moved(event: RecordedEvent, by: int) -> RecordedEvent:
    """Return `event` as it would stand `by` positions further on."""
    row = tuple(event._row)
    further: Any = (row[0] + by, *row[1:])
    return RecordedEvent(event.ledger, further)
