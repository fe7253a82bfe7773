"""CloudEvents 1.0 over HTTP: a delivery as it goes over the wire, structured or binary.

References
----------
CloudEvents 1.0.2; its JSON event format 1.0.2; its HTTP protocol binding 1.0.2, sections 3.1
(binary), 3.1.3.2 (header values) and 3.2 (structured); extensions `distributed tracing`,
`partitioning` and `sequence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

import orjson

from domain.events import format_time
from domain.webhooks import ContentMode

STRUCTURED_TYPE: Final = "application/cloudevents+json; charset=utf-8"
JSON_TYPE: Final = "application/json"
TYPE_PREFIX: Final = "io.heddle."
_UNQUOTED: Final = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event.

    Parameters
    ----------
    body : the JSON of its data
    lane : deliveries of one lane come in order; the extension ``partitionkey``
    sequence : its place in the log
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    lane: str
    sequence: int
    traceparent: str | None
    body: bytes

    def attributes(self) -> dict[str, str]:
        """Return everything but the data."""
        told = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": format_time(self.time),
            "partitionkey": self.lane,
            "sequence": f"{self.sequence:020d}",  # sorts as a text
        }
        if self.traceparent is not None:
            told["traceparent"] = self.traceparent
        return {name: value for name, value in told.items() if value}


def on_the_wire(event: CloudEvent, mode: ContentMode) -> tuple[Mapping[str, str], bytes]:
    """Return the headers and the body that carry `event`."""
    told = event.attributes()
    if mode is ContentMode.BINARY:
        headers = {f"ce-{name}": quote(value, safe=_UNQUOTED) for name, value in told.items()}
        return {"content-type": JSON_TYPE, **headers}, event.body
    data = {"datacontenttype": JSON_TYPE, "data": orjson.Fragment(event.body)}
    return {"content-type": STRUCTURED_TYPE}, orjson.dumps(told | data)
