"""Directives: the same bytes for the same content, and nothing but what was meant read back."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.directives import (
    CONTEXT,
    Directive,
    ModelDirective,
    ModelRetirement,
    SetpointDirective,
    decode_directive,
    encode_directive,
    signed_text,
)
from domain.errors import InvalidInput

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SETPOINT = SetpointDirective(
    "plant-1",
    7,
    "edge-1",
    NOON,
    NOON + timedelta(minutes=5),
    "pump-7",
    "flow",
    0.0005,
    "sp-1",
    "user:jo",
    "user:mara",
)
TEXT = (
    '{"agent":"edge-1","approved_by":"user:mara","asset_id":"pump-7",'
    '"expires_at":"2026-01-05T12:05:00.000000Z","issued_at":"2026-01-05T12:00:00.000000Z",'
    '"kind":"setpoint","ledger":"plant-1","position":7,"proposal_id":"sp-1",'
    '"proposed_by":"user:jo","setpoint":"flow","value":0.0005}'
)

times = st.datetimes(timezones=st.just(UTC))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
positions = st.integers(0, 2**53)
directives = st.one_of(
    st.builds(
        SetpointDirective,
        texts,
        positions,
        texts,
        times,
        times,
        texts,
        texts,
        st.floats(allow_nan=False, allow_infinity=False),
        st.none() | texts,
        st.none() | texts,
        texts,
    ),
    st.builds(ModelDirective, texts, positions, texts, times, times, texts, texts, texts, texts),
    st.builds(ModelRetirement, texts, positions, texts, times, times, texts, texts, texts),
)


def test_directive_is_canonical_json() -> None:
    assert encode_directive(SETPOINT) == TEXT
    assert decode_directive(TEXT) == SETPOINT
    assert signed_text(TEXT) == f"heddle-agent-command-v1\n{TEXT}\n"


@given(directives)
def test_what_is_written_is_read_back(directive: Directive) -> None:
    assert decode_directive(encode_directive(directive)) == directive


@pytest.mark.parametrize(
    "change",
    [
        {"value": math.nan},
        {"value": True},
        {"value": "0.0005"},
        {"value": 10**400},
        {"position": 7.0},
        {"position": True},
        {"agent": 3},
        {"kind": "reboot"},
        {"kind": "model"},
        {"colour": "red"},
        {"issued_at": "noon"},
        {"issued_at": "2026-01-05T12:00:00"},
        {"proposed_by": 0},
    ],
)
def test_what_is_no_directive_is_refused(change: dict[str, Any]) -> None:
    text = json.dumps(json.loads(TEXT) | change, sort_keys=True, separators=(",", ":"))
    with pytest.raises(InvalidInput) as refused:
        decode_directive(text)
    assert refused.value.code == "directive.malformed"


@pytest.mark.parametrize(
    "text", [TEXT + " ", TEXT.replace(",", ", ", 1), "", "[]", "{}", "[" * 500]
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_directive(text)
    assert refused.value.code == "directive.malformed"


def test_context_is_of_nothing_else_that_the_key_signs() -> None:
    assert "\n" not in CONTEXT, "a checkpoint's second line is a number, a directive's is not"
    assert not signed_text(TEXT).split("\n")[1].isdigit()
