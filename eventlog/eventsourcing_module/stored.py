"""How an event of an `eventsourcing` application stands in the log: stream, identity, payload.

Everything the library hands over is kept to the last byte. This file knows the log's rules and
not the library.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final
from uuid import UUID

import orjson

from domain.errors import InvalidInput
from domain.events import FACT_BYTES_MAX
from domain.identifiers import derived_uuid7
from eventlog.envelope import SOURCE_LENGTH_MAX, STREAM_LENGTH_MAX

CATEGORY: Final = "aggregate"
CATEGORY_LENGTH_MAX: Final = 48
NO_TIME_MS: Final = 0
"""An identifier that follows from a name has no time of its own."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9.-]")


def encode_event(originator_id: UUID | str, version: int, topic: str, state: bytes) -> bytes:
    """Return the payload of an event: what `encode_fact` makes of `EventRecorded`, sooner.

    Raises
    ------
    InvalidInput
        ``event.text_malformed``, ``event.too_large``
    """
    text, encoding = _text_of(state)
    name = str(originator_id)
    document = {
        "originator_id": name,
        "originator_id_type": "uuid" if isinstance(originator_id, UUID) else "text",
        "originator_version": version,
        "state": text,
        "state_encoding": encoding,
        "topic": topic,
    }
    try:
        payload = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # a lone surrogate, or an integer beyond 64 bits
        raise _malformed(topic, originator_id) from error
    if "\x00" in topic or "\x00" in name:
        raise _malformed(topic, originator_id)
    if len(payload) > FACT_BYTES_MAX:
        raise InvalidInput(
            "event.too_large",
            f"the payload takes {len(payload)} bytes, more than {FACT_BYTES_MAX}",
            hint="store large content elsewhere and its hash in the event",
            value=len(payload),
            limit=FACT_BYTES_MAX,
        )
    return payload


def decode_event(payload: bytes) -> tuple[UUID | str, int, str, bytes]:
    """Return originator id, originator version, topic and state of a stored payload."""
    document = orjson.loads(payload)
    originator_id, state = document["originator_id"], document["state"]
    return (
        UUID(originator_id) if document["originator_id_type"] == "uuid" else originator_id,
        document["originator_version"],
        document["topic"],
        base64.b64decode(state) if document["state_encoding"] == "base64" else state.encode(),
    )


def category_of(application: str) -> str:
    """Return the stream category of an application: its own, whatever its name consists of."""
    if not application:
        return CATEGORY
    name = "".join(
        c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in application.lower()
    )
    category = f"{CATEGORY}-{name}"
    if len(category) > CATEGORY_LENGTH_MAX:
        raise InvalidInput(
            "application.name_too_long",
            f"application name {application!r:.80} makes a category of {len(category)} characters",
            hint=f"at most {CATEGORY_LENGTH_MAX}; a letter or digit takes one",
            value=application[:80],
            limit=CATEGORY_LENGTH_MAX,
        )
    return category


def stream_of(category: str, originator_id: UUID | str) -> str:
    """Return the stream of an aggregate; two ids never share one.

    A UUID stands as it is. In a text, what a stream name cannot hold is written as `_` and two
    hexadecimal digits a byte; a text that gets too long is named by its hash.
    """
    if isinstance(originator_id, UUID):
        return f"{category}:{originator_id}"
    name = "".join(
        c
        if _PLAIN_NAME.fullmatch(c)
        else "".join(f"_{byte:02x}" for byte in c.encode("utf-8", "surrogatepass"))
        for c in originator_id
    )
    if not name or len(category) + 1 + len(name) > STREAM_LENGTH_MAX:
        digest = hashlib.sha256(originator_id.encode("utf-8", "surrogatepass"))
        name = f"_sha256-{digest.hexdigest()}"
    return f"{category}:{name}"


def event_id_of(ledger: str, stream: str, version: int) -> UUID:
    """Return the identifier that belongs to an originator's version: always the same one."""
    return derived_uuid7(NO_TIME_MS, ledger, stream, str(version))


def source_of(recorder: str, application: str) -> str:
    """Return the source under which `recorder` numbers what it made of upstream `application`."""
    source = f"eventsourcing:{recorder}:{application}"
    if len(source) > SOURCE_LENGTH_MAX or not source.isprintable():
        source = f"eventsourcing:sha256-{hashlib.sha256(source.encode()).hexdigest()}"
    return source


def _text_of(state: bytes) -> tuple[str, str]:
    if b"\x00" not in state:
        try:
            return state.decode(), "utf-8"
        except UnicodeDecodeError:
            pass
    return base64.b64encode(state).decode(), "base64"


def _malformed(topic: str, originator_id: UUID | str) -> InvalidInput:
    return InvalidInput(
        "event.text_malformed",
        f"topic {topic!r:.80} or originator {originator_id!r:.80} cannot be recorded",
        hint="text without NUL and half characters, and a version of at most 64 bits",
        value=ascii(topic)[:80],
    )
