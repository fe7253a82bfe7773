"""docs/frame-format.md says what the codec does: its limits, codes, units and worked example."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from domain import (
    frame_batches,
    frame_decoding,
    frame_decoding_1,
    frame_encoding,
    frame_header,
    frame_layout,
    frame_outline,
    frame_statistics,
    frame_statistics_layout,
    frames,
    integer_columns,
    time_quality,
)
from domain.frame_batches import BATCH_BYTES_MAX, BATCH_FRAMES_MAX, BATCH_MEDIA_TYPE
from domain.frame_dictionary import HEADER_DICTIONARY, TIMED_HEADER_DICTIONARY
from domain.frame_header import RATE_HZ_MAX, RATE_HZ_MIN, VALUE_TYPES
from domain.frame_statistics import STATISTICS, TEXT_BYTES_KEPT
from domain.frames import (
    CHANNELS_MAX,
    FRAME_BYTES_MAX,
    HEADER_BYTES_MAX,
    READINGS_MAX,
    TEXT_BYTES_MAX,
    TEXT_LENGTH_MAX,
)
from domain.integer_columns import TABLE_ENTRIES_MAX, WIDTH_MAX
from domain.time_quality import TIME_SOURCES
from domain.units import UNITS
from tests.recordings import REPOSITORY

MODULES = (
    frame_batches,
    frame_decoding,
    frame_decoding_1,
    frame_encoding,
    frame_header,
    frame_layout,
    frame_outline,
    frame_statistics,
    frame_statistics_layout,
    frames,
    integer_columns,
    time_quality,
)
TEXT = (REPOSITORY / "docs" / "frame-format.md").read_text()
TINY = json.loads((Path(__file__).parent / "vectors" / "tiny.json").read_text())


def hexdump_lines(text: str) -> dict[int, bytes]:
    """Return the bytes of each line of a hexdump in `text`, by their offset."""
    line = re.compile(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})  ", re.MULTILINE)
    return {int(at, 16): bytes.fromhex(shown) for at, shown in line.findall(text)}


def test_the_worked_example_is_the_vector() -> None:
    canonical = bytes.fromhex(TINY["canonical"])
    encoded = bytes.fromhex(TINY["encoded_2"])
    before, _, after = TEXT.partition("all of which are:")
    shown = hexdump_lines(before)
    assert len(shown) == 6
    for at, line in shown.items():
        assert canonical[at : at + len(line)] == line
    shown = hexdump_lines(after)
    assert b"".join(shown.values()) == encoded
    assert f"canonical form is {len(canonical)} bytes" in TEXT
    assert f"of it is {len(encoded)} bytes" in TEXT
    assert TINY["sha256"] in TEXT


@pytest.mark.parametrize(
    ("name", "dictionary"),
    [
        ("header_dictionary", HEADER_DICTIONARY),
        ("timed_header_dictionary", TIMED_HEADER_DICTIONARY),
    ],
)
def test_the_dictionaries_of_headers_never_change(name: str, dictionary: bytes) -> None:
    stored = (Path(__file__).parent / "vectors" / f"{name}.bin").read_bytes()
    assert stored == dictionary
    assert f"`{name}.bin`" in TEXT or f"/{name}.bin`" in TEXT
    assert hashlib.sha256(stored).hexdigest() in TEXT
    assert f"the {len(stored):,} bytes" in TEXT


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_code_is_explained(module: ModuleType) -> None:
    source = Path(module.__file__ or "").read_text()
    codes = set(re.findall(r'"((?:frame|batch)\.[a-z_0-9]+)"', source))
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
    assert f"at most {TEXT_LENGTH_MAX:,} bytes of UTF-8" in TEXT
    assert f"at most {TEXT_BYTES_MAX // 1024**2} MiB together" in TEXT
    assert f"most {TEXT_BYTES_KEPT} bytes" in TEXT
    assert f"0 to {WIDTH_MAX};" in TEXT
    assert f"at most {TABLE_ENTRIES_MAX} distinct values" in TEXT
    assert f"beyond {RATE_HZ_MIN} to {RATE_HZ_MAX:.0e} Hz".replace("e+09", "e9") in TEXT
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


def test_every_source_of_times_is_listed() -> None:
    assert {source for source in TIME_SOURCES if f" | `{source}` | " not in TEXT} == set()


def test_every_value_type_is_listed() -> None:
    table = TEXT[TEXT.index("| type | value | bytes |") :].split("\n\n")[0]
    listed = re.findall(r"`([a-z0-9]+)`", " ".join(row.split("|")[1] for row in table.split("\n")))
    assert sorted(listed) == sorted(VALUE_TYPES)
