"""The configuration of an agent: its name and its sources, declared in one YAML file.

`docs/edge-agent.md` is its reference. Whatever is wrong, in the file or in the recordings it
names, is told at once, each fault with file, line, key and a stable code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.asset_model import AssetType
from domain.asset_types import asset_type
from domain.frame_checks import header_for
from domain.frames import FrameHeader, check_header
from domain.identifiers import check_identifier
from edge_agent.readings import Source
from edge_agent.replay import NOW, RECORDED, Replay
from edge_agent.sources import SourceContext, source_kinds
from edge_agent.window import WindowBounds
from edge_agent.yaml_section import ConfigurationFaults, Section, read_document

SOURCES_MAX: Final = 1_000
WINDOW_SECONDS_MAX: Final = 24 * 3600
WINDOW_READINGS_MAX: Final = 200_000
"""So many readings fit into a frame of the largest size, however badly they compress."""
REPLAY_SPEED_MIN: Final = 0.001
REPLAY_SPEED_MAX: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ConfiguredSource:
    """One source with everything that makes frames of its rows."""

    name: str
    asset_type: AssetType
    header: FrameHeader
    window: WindowBounds
    replay: Replay
    source: Source


@dataclass(frozen=True)
class AgentConfiguration:
    """An agent's name and what it reads."""

    agent: str
    sources: tuple[ConfiguredSource, ...]


def read_configuration(file: Path, data_dir: Path) -> AgentConfiguration:
    """Return what `file` declares, with paths of recordings relative to `data_dir`.

    Raises
    ------
    ConfigurationFaults
        with every fault of the document and of the files it names.
    """
    document = read_document(file)
    agent = _identifier(document, "agent", "agent")
    sources: list[ConfiguredSource] = []
    names: set[str] = set()
    sections = document.sections("sources")
    if len(sections) > SOURCES_MAX:
        document.fault("sources", "configuration.too_many", f"more than {SOURCES_MAX} sources")
    for section in sections[:SOURCES_MAX]:
        # A fault in the agent's name must not hide those of its sources.
        configured = _source(section, agent or "unnamed", data_dir)
        if configured is None:
            continue
        if configured.name in names:
            told = f"two sources are called {configured.name!r}"
            key = "name" if section.has("name") else "asset"
            section.fault(key, "source.name_repeated", told, "give one of them a 'name'")
        names.add(configured.name)
        sources.append(configured)
    document.finish()
    if document.faults or agent is None:
        raise ConfigurationFaults(document.faults)
    return AgentConfiguration(agent, tuple(sources))


def _source(section: Section, agent: str, data_dir: Path) -> ConfiguredSource | None:
    kind = section.choice("kind", sorted(source_kinds()))
    asset = _identifier(section, "asset", "asset")
    name = _identifier(section, "name", "source") if section.has("name") else asset
    type_name = section.text("asset_type")
    found_type = type_name and section.attempt("asset_type", lambda: asset_type(type_name))
    if not kind or not found_type:
        return None
    context = SourceContext(asset=asset or "", asset_type=found_type, data_dir=data_dir)
    source = source_kinds()[kind].configure(section, context)
    replay = _replay(section)
    window = _window(section, len(source.channels) if source else 1)
    section.finish()
    if source is None or asset is None or name is None or window is None or replay is None:
        return None
    if source.endless and replay.speed is None:
        told = "a source without an end cannot be read as fast as possible"
        section.fault("replay", "replay.endless", told, "set a speed, or times: now")
    header = header_for(found_type, asset, agent, source.channels)
    section.attempt("asset", lambda: check_header(header))
    return ConfiguredSource(
        name=name,
        asset_type=found_type,
        header=header,
        window=window,
        replay=replay,
        source=source,
    )


def _identifier(section: Section, key: str, kind: str) -> str | None:
    text = section.text(key)
    return None if text is None else section.attempt(key, lambda: check_identifier(kind, text))


def _window(section: Section, channel_count: int) -> WindowBounds | None:
    window = section.section("window")
    if window is None:
        return None
    seconds = window.number("seconds", 0.001, WINDOW_SECONDS_MAX)
    readings = window.whole_number("readings", channel_count, WINDOW_READINGS_MAX)
    window.finish()
    if seconds is None or readings is None:
        return None
    return WindowBounds(round(seconds * 1e9), readings // channel_count)


def _replay(section: Section) -> Replay | None:
    if not section.has("replay"):
        return Replay(speed=None, times=RECORDED)
    replay = section.section("replay")
    if replay is None:
        return None
    times = replay.choice("times", (RECORDED, NOW), RECORDED)
    speed: float | None = None
    if replay.has("speed") and replay.plain("speed") != "max":
        speed = replay.number("speed", REPLAY_SPEED_MIN, REPLAY_SPEED_MAX)
        if speed is None:
            return None
    if times == NOW:
        if replay.has("speed") and speed != 1:
            told = "a recording that is replayed as if it happened now has speed 1"
            replay.fault("speed", "replay.speed", told, "leave speed out, or use times: recorded")
        speed = 1.0
    replay.finish()
    return None if times is None else Replay(speed=speed, times=times)
