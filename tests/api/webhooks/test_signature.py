"""Signatures after Standard Webhooks, held against its published example."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import orjson
import pytest

from api.webhooks.cloudevents import CloudEvent, on_the_wire
from api.webhooks.signature import new_secret, signature, signed_headers, spelled
from domain.webhooks import ContentMode

SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'


def test_signature_is_the_one_that_the_specification_publishes() -> None:
    """Standard Webhooks 1.0.0, the example of its libraries' tests."""
    assert (
        signature(SECRET, MESSAGE, 1614265330, BODY)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_message_is_signed_with_every_secret() -> None:
    other = new_secret()
    headers = signed_headers([other, SECRET], MESSAGE, 1614265330, BODY)
    assert headers["webhook-signature"].split(" ") == [
        signature(other, MESSAGE, 1614265330, BODY),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ]
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (MESSAGE, "1614265330")


def test_a_secret_is_spelled_with_its_prefix_and_has_32_bytes() -> None:
    secret = new_secret()
    assert base64.b64decode(spelled(secret).removeprefix("whsec_"), validate=True) == secret
    assert len(secret) == 32
    assert secret != new_secret()


def event(**changes: object) -> CloudEvent:
    given: dict[str, object] = {
        "id": "wh-1_2",
        "source": "/ledgers/p/webhooks/wh-1",
        "type": "io.heddle.asset.registered",
        "subject": "asset:press-07",
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "lane": "asset:press-07",
        "sequence": 17,
        "traceparent": None,
        "body": b'{"data":{}}',
    }
    return CloudEvent(**(given | changes))  # type: ignore[arg-type]


def test_structured_mode_holds_the_data_as_it_was_made() -> None:
    headers, body = on_the_wire(event(body=b'{"data":{"a":1.50}}'), ContentMode.STRUCTURED)
    assert headers == {"content-type": "application/cloudevents+json; charset=utf-8"}
    assert b'"data":{"data":{"a":1.50}}' in body
    assert orjson.loads(body)["subject"] == "asset:press-07"


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("asset:press-07", "asset:press-07"),
        ('a "quoted" % thing', "a%20%22quoted%22%20%25%20thing"),
        ("Prüfstand €", "Pr%C3%BCfstand%20%E2%82%AC"),
        ("a\r\nx-evil: 1", "a%0D%0Ax-evil:%201"),
    ],
)
def test_binary_mode_spells_attributes_as_header_values(value: str, header: str) -> None:
    """CloudEvents HTTP protocol binding 1.0.2, section 3.1.3.2."""
    headers, body = on_the_wire(event(subject=value), ContentMode.BINARY)
    assert headers["ce-subject"] == header
    assert headers["content-type"] == "application/json"
    assert body == b'{"data":{}}'


def test_attributes_without_a_value_are_left_out() -> None:
    headers, _ = on_the_wire(event(subject="", traceparent=None), ContentMode.BINARY)
    assert "ce-subject" not in headers
    assert "ce-traceparent" not in headers
