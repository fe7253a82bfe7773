"""Configurations and recordings for tests of the agent, written as the files a user writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from domain.frame_decoding import decode
from domain.frames import Frame
from edge_agent.configuration import AgentConfiguration, read_configuration
from edge_agent.outbox import Outbox, PendingFrame
from tests.recordings import SKAB_COLUMNS

AGENT = "test-agent"

SKAB_CHANNELS: dict[str, dict[str, str]] = {
    channel: {"column": column, "unit": unit} for column, (channel, unit) in SKAB_COLUMNS.items()
}


def csv_source(**changes: Any) -> dict[str, Any]:
    """Return the declaration of a small recording of flow and pressure, with `changes`."""
    source: dict[str, Any] = {
        "kind": "csv",
        "asset": "pump-1",
        "asset_type": "skab-pump-loop",
        "path": "pump.csv",
        "time": {"column": "time", "format": "iso8601", "zone": "UTC"},
        "channels": {
            "flow": {"column": "flow", "unit": "l/min"},
            "pressure": {"column": "pressure", "unit": "bar"},
        },
        "window": {"seconds": 60, "readings": 20},
    }
    return source | changes


def skab_source(files: Sequence[Path], **changes: Any) -> dict[str, Any]:
    """Return the declaration of SKAB recordings, with `changes`."""
    source = {
        "asset": "pump-loop-1",
        "path": [str(file) for file in files],
        "delimiter": ";",
        "time": {"column": "datetime", "format": "%Y-%m-%d %H:%M:%S", "zone": "UTC"},
        "channels": SKAB_CHANNELS,
        "window": {"seconds": 300, "readings": 1000},
    }
    return csv_source(**(source | changes))


def write_configuration(folder: Path, *sources: dict[str, Any]) -> Path:
    """Write the configuration of an agent with `sources` into `folder` and return its path."""
    file = folder / "agent.yaml"
    document = {"agent": AGENT, "sources": list(sources)}
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def configuration(folder: Path, *sources: dict[str, Any]) -> AgentConfiguration:
    """Return the configuration of an agent with `sources`, its data in `folder`."""
    return read_configuration(write_configuration(folder, *sources), folder)


def write_rows(folder: Path, rows: Sequence[str], name: str = "pump.csv") -> None:
    """Write a recording with the columns time, flow and pressure."""
    (folder / name).write_text("\n".join(["time,flow,pressure", *rows, ""]))


def second(number: int) -> str:
    """Return the time `number` seconds after noon, as ISO 8601 without a zone."""
    minutes, seconds = divmod(number, 60)
    hours, minutes = divmod(minutes, 60)
    return f"2024-05-01T{12 + hours:02}:{minutes:02}:{seconds:02}"


def adopt(outbox: Outbox, configured: AgentConfiguration) -> None:
    """Make the sources of `configured` known to `outbox`."""
    parts = {source.name: source.source.parts for source in configured.sources}
    outbox.adopt(configured.agent, parts)


def pending(outbox: Outbox) -> list[PendingFrame]:
    """Return every frame that waits in `outbox`."""
    return outbox.pending(1_000_000, 2**40)


def frames(outbox: Outbox) -> list[Frame]:
    """Return every frame that waits in `outbox`, decoded."""
    return [decode(frame.encoded) for frame in pending(outbox)]
