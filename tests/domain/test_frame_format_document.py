"""docs/frame-format.md says what the codec does: its limits, codes, units and worked example."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from domain import frame_batches, frames
from domain.frame_batches import BATCH_BYTES_MAX, BATCH_FRAMES_MAX, BATCH_MEDIA_TYPE
from domain.frames import CHANNELS_MAX, FRAME_BYTES_MAX, HEADER_BYTES_MAX, READINGS_MAX, STATISTICS
from domain.units import UNITS
from tests.domain.frame_samples import body_of
from tests.recordings import REPOSITORY

TEXT = (REPOSITORY / "docs" / "frame-format.md").read_text()
TINY = json.loads((Path(__file__).parent / "vectors" / "tiny.json").read_text())


def hexdump_lines(text: str) -> dict[int, bytes]:
    """Return the bytes of each line of a hexdump in `text`, by their offset."""
    line = re.compile(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})  ", re.MULTILINE)
    return {int(at, 16): bytes.fromhex(shown) for at, shown in line.findall(text)}


def test_the_worked_example_is_the_vector() -> None:
    canonical = bytes.fromhex(TINY["canonical"])
    encoded = bytes.fromhex(TINY["encoded"])
    prelude, body = body_of(encoded)
    before, _, after = TEXT.partition("and its body is")
    shown = hexdump_lines(before)
    assert len(shown) == 6
    for at, line in shown.items():
        assert canonical[at : at + len(line)] == line
    shown = hexdump_lines(after)
    assert len(shown) == 4
    for at, line in shown.items():
        assert body[at : at + len(line)] == line
    assert re.sub(r" +", "", re.findall(r"^48 44 46.*$", TEXT, re.MULTILINE)[0]).startswith(
        prelude.hex()
    )
    assert f"canonical form is {len(canonical)} bytes" in TEXT
    assert f"of it is {len(encoded)} bytes" in TEXT
    assert TINY["sha256"] in TEXT


@pytest.mark.parametrize("source", [frames.__file__, frame_batches.__file__])
def test_every_code_is_explained(source: str) -> None:
    codes = set(re.findall(r'"((?:frame|batch)\.[a-z_0-9]+)"', Path(source).read_text()))
    assert codes
    assert {code for code in codes if f"`{code}`" not in TEXT} == set()


def test_every_limit_is_stated() -> None:
    assert f"| encoded frame | {FRAME_BYTES_MAX // 1024**2} MiB |" in TEXT
    assert f"| batch | {BATCH_BYTES_MAX // 1024**2} MiB |" in TEXT
    assert f"times of all clocks together | {READINGS_MAX:,} |" in TEXT
    assert f"| channels | {CHANNELS_MAX} |" in TEXT
    assert f"| header | {HEADER_BYTES_MAX:,} bytes |" in TEXT
    assert f"| frames in a batch | {BATCH_FRAMES_MAX:,} |" in TEXT
    assert BATCH_MEDIA_TYPE in TEXT
    assert f"for each channel, {STATISTICS.itemsize} bytes" in TEXT


def test_every_unit_is_listed_as_the_header_writes_it() -> None:
    listed = re.findall(r"^\| `(.+?)` \| (.+?) \| `(.+?)` \| `(.+?)` \|$", TEXT, re.MULTILINE)
    assert sorted(listed) == sorted(
        (u.symbol, u.quantity.replace("_", " "), repr(u.factor), repr(u.offset))
        for u in UNITS.values()
    )


def test_every_vector_is_listed() -> None:
    vectors = {path.stem for path in (Path(__file__).parent / "vectors").glob("*.json")}
    assert {name for name in vectors if f"| `{name}` |" not in TEXT} == set()
