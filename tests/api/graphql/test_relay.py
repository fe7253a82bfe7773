"""Global ids and cursors: opaque, and good for nothing but what they were made for."""

from __future__ import annotations

import base64

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.graphql.relay import (
    decode_id,
    decode_position_cursor,
    decode_text_cursor,
    encode_cursor,
    encode_id,
)
from api.graphql.scalars import POSITION_MAX, Cursor
from domain.errors import InvalidInput
from tests.api.graphql.server import PUMP_TYPE, Server, frame_of
from tests.api.graphql.test_alerts import raise_alert

NODE = """
query Node($id: ID!) {
  node(id: $id) {
    __typename id
    ... on Asset { assetId }
    ... on AssetType { name }
    ... on Alert { alertId }
    ... on Event { position frame { sequence } }
  }
}
"""


@given(st.integers(0, POSITION_MAX))
def test_position_cursor_comes_back(position: int) -> None:
    cursor = encode_cursor("events", "plant-1", position)

    assert decode_position_cursor(cursor, "events", "plant-1") == position


@given(st.text("abcXYZ019._-", min_size=1, max_size=64))
def test_text_cursor_and_id_come_back(key: str) -> None:
    assert decode_text_cursor(encode_cursor("assets", "plant-1", key), "assets", "plant-1") == key
    assert decode_id(encode_id("Asset", key)) == ("Asset", key)


@given(st.text(max_size=80))
def test_rubbish_is_no_cursor_and_no_id(text: str) -> None:
    for decode in (decode_position_cursor, decode_text_cursor):
        with pytest.raises(InvalidInput) as caught:
            decode(Cursor(text), "events", "plant-1")
        assert caught.value.code == "cursor.malformed"
    with pytest.raises(InvalidInput) as caught:
        decode_id(text)
    assert caught.value.code == "id.malformed"


def sealed(parts: object) -> Cursor:
    return Cursor(base64.urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode())


@pytest.mark.parametrize(
    "parts",
    [
        None,
        [],
        {},
        ["events"],
        ["events", "plant-1"],
        ["events", "plant-1", None],
        ["events", "plant-1", True],
        ["events", "plant-1", 1.0],
        ["events", "plant-1", "1"],
        ["events", "plant-1", -1],
        ["events", "plant-1", 2**53],
        ["events", "plant-1", 1, 1],
        ["events", ["plant-1"], 1],
    ],
)
def test_cursor_with_other_parts_is_refused(parts: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_position_cursor(sealed(parts), "events", "plant-1")

    assert caught.value.code == "cursor.malformed"


def test_cursor_of_another_ledger_says_so() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_position_cursor(encode_cursor("events", "plant-2", 1), "events", "plant-1")

    assert "plant-2" in caught.value.message


def test_cursor_has_one_spelling() -> None:
    cursor = encode_cursor("events", "plant-1", 1)

    for other in (cursor + "=", cursor + "==", cursor.replace("_", "/"), " " + cursor):
        if other != cursor:
            with pytest.raises(InvalidInput):
                decode_position_cursor(Cursor(other), "events", "plant-1")


@pytest.mark.anyio
async def test_everything_with_a_global_id_is_found_by_it(server: Server) -> None:
    await server.register("pump-1")
    alert_id = await raise_alert(server, "pump-1")
    frame = frame_of("pump-1", {"flow": ("l/min", [30.0])})
    await server.record(frame)
    data = await server.ask(
        """
        {
          asset(assetId: "pump-1") { id type { id } }
          alerts(first: 1) { nodes { id } }
          events(first: 3) { nodes { id } }
        }
        """
    )

    async def node(identifier: str) -> object:
        found = (await server.ask(NODE, id=identifier))["node"]
        assert found.pop("id") == identifier
        return found

    assert await node(data["asset"]["id"]) == {"__typename": "Asset", "assetId": "pump-1"}
    assert await node(data["asset"]["type"]["id"]) == {
        "__typename": "AssetType",
        "name": PUMP_TYPE,
    }
    assert await node(data["alerts"]["nodes"][0]["id"]) == {
        "__typename": "Alert",
        "alertId": str(alert_id),
    }
    assert await node(data["events"]["nodes"][0]["id"]) == {
        "__typename": "Event",
        "position": 1,
        "frame": None,
    }
    assert await node(data["events"]["nodes"][2]["id"]) == {
        "__typename": "Event",
        "position": 3,
        "frame": {"sequence": frame.sequence},
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("Asset", "nobody"),
        ("AssetType", "toaster"),
        ("Alert", "4b6ae0c4-1b7c-4d5e-9d2a-6f0c0a3f5e11"),
        ("Alert", "red"),
        ("Event", "1"),
        ("Event", "0"),
        ("Event", "-1"),
        ("Event", "one"),
        ("Event", "9" * 16),
        ("Event", "9" * 40),
        ("Event", "²"),
    ],
)
async def test_node_that_is_not_there_is_null(empty_server: Server, kind: str, key: str) -> None:
    assert await empty_server.ask(NODE, id=encode_id(kind, key)) == {"node": None}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "identifier", ["", "x", encode_id("Toaster", "1"), encode_id("Asset", "\0")]
)
async def test_id_of_no_kind_is_refused(empty_server: Server, identifier: str) -> None:
    assert await empty_server.code(NODE, id=identifier) == "id.malformed"
