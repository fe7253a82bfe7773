"""The configuration of an agent: its name, connections and sources, declared in one YAML file.

`docs/edge-agent.md` is its reference. Whatever is wrong, in the file or in the recordings it
names, is told at once, each fault with file, line, key and a stable code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

from domain.asset_model import AssetType
from domain.asset_types import asset_type
from domain.frame_checks import check_units, header_for
from domain.frames import FrameHeader, check_header
from domain.identifiers import check_identifier
from domain.time_quality import RECORDING, TimeQuality
from edge_agent.conditioning import configure as conditioning_stage
from edge_agent.features import FeatureStage
from edge_agent.features import configure as feature_stage
from edge_agent.inference import configure as configure_models
from edge_agent.live import Connection, DeliveredChannel, LiveSource
from edge_agent.live.window import Observer, Stage
from edge_agent.outbox.drops import DROP_RANK_MAX
from edge_agent.readings import Source, WaveformSource
from edge_agent.replay import NOW, RECORDED, Replay
from edge_agent.setpoints.configuration import Directing
from edge_agent.setpoints.configuration import configure as configure_setpoints
from edge_agent.sources import ConnectionContext, SourceContext, live_kinds, source_kinds
from edge_agent.window import WindowBounds
from edge_agent.yaml_section import ConfigurationFaults, Section, read_document

SOURCES_MAX: Final = 1_000
CONNECTIONS_MAX: Final = 1_000
WINDOW_SECONDS_MAX: Final = 24 * 3600
WINDOW_READINGS_MAX: Final = 200_000
"""So many readings fit into a frame of the largest size, however badly they compress."""
REPLAY_SPEED_MIN: Final = 0.001
REPLAY_SPEED_MAX: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ConfiguredSource:
    """One source that is read, with everything that makes frames of its rows.

    Parameters
    ----------
    stages : what its windows go through, in order; none where nothing is declared
    declared : its section as text, by which a new configuration tells what has changed
    """

    name: str
    asset_type: AssetType
    header: FrameHeader
    window: WindowBounds
    replay: Replay
    source: Source
    stages: tuple[Stage, ...] = ()
    declared: str = ""


@dataclass(frozen=True, kw_only=True)
class ConfiguredLiveSource:
    """One source that delivers by itself, with everything that makes frames of its readings.

    Parameters
    ----------
    connection : name of the connection it comes over
    period_ns : its windows are cut so often by the agent's clock
    readings_max : a window with so many readings is cut at once
    stages, declared : as of `ConfiguredSource`
    """

    name: str
    asset: str
    asset_type: AssetType
    connection: str
    source: LiveSource
    period_ns: int
    readings_max: int
    stages: tuple[Stage, ...] = ()
    declared: str = ""


@dataclass(frozen=True)
class ConfiguredConnection:
    """A connection, and its section as text.

    Parameters
    ----------
    secured_by : digest of the certificates and keys that it uses, by which a configuration that is
        read again tells that they were renewed
    """

    name: str
    kind: str
    connection: Connection
    declared: str
    secured_by: str = ""


@dataclass(frozen=True)
class AgentConfiguration:
    """An agent's name, what it reads, and what it does with it.

    Parameters
    ----------
    sources : those that are read from their beginning to their end
    live : those that deliver by themselves
    observers : what is asked about every batch of windows
    directing : which set-points may be set, and whose directives are obeyed
    drop_ranks : which live sources lose frames first when the outbox is full
    """

    agent: str
    sources: tuple[ConfiguredSource, ...]
    live: tuple[ConfiguredLiveSource, ...] = ()
    connections: tuple[ConfiguredConnection, ...] = ()
    observers: tuple[Observer, ...] = ()
    directing: Directing = field(default_factory=Directing)
    drop_ranks: Mapping[str, int] = field(default_factory=dict)

    @property
    def asset_types_by_source(self) -> dict[str, str]:
        """The type of every source's asset, by the source's name."""
        return _types_by_source(self.sources, self.live)

    @property
    def parts_by_source(self) -> dict[str, tuple[str, ...]]:
        """The parts of every source that is read, by its name."""
        return {source.name: source.source.parts for source in self.sources}

    @property
    def asset_by_live_source(self) -> dict[str, str]:
        """The asset of every source that delivers by itself, by the source's name."""
        return {source.name: source.asset for source in self.live}


def _types_by_source(
    sources: Sequence[ConfiguredSource], live: Sequence[ConfiguredLiveSource]
) -> dict[str, str]:
    types = {source.name: source.asset_type.name for source in sources}
    return types | {source.name: source.asset_type.name for source in live}


def read_configuration(file: Path, data_dir: Path) -> AgentConfiguration:
    """Return what `file` declares, with paths of recordings relative to `data_dir`.

    Raises
    ------
    ConfigurationFaults
        with every fault of the document and of the files it names.
    """
    document = read_document(file)
    agent = _identifier(document, "agent", "agent")
    # A fault in the agent's name must not hide those of its sources.
    agent_name = agent or "unnamed"
    connections = _connections(document, ConnectionContext(agent_name, file.parent))
    sources: list[ConfiguredSource] = []
    live: list[ConfiguredLiveSource] = []
    names: set[str] = set()
    sections = document.sections("sources")
    if len(sections) > SOURCES_MAX:
        document.fault("sources", "configuration.too_many", f"more than {SOURCES_MAX} sources")
    for section in sections[:SOURCES_MAX]:
        configured = _source(section, agent_name, data_dir, connections)
        if configured is None:
            continue
        if configured.name in names:
            told = f"two sources are called {configured.name!r}"
            key = "name" if section.has("name") else "asset"
            section.fault(key, "source.name_repeated", told, "give one of them a 'name'")
        names.add(configured.name)
        if isinstance(configured, ConfiguredSource):
            sources.append(configured)
        else:
            live.append(configured)
    types = _types_by_source(sources, live)
    observers = configure_models(document, agent_name, file.parent, types)
    stages = {source.name: source.stages for source in sources}
    stages |= {source.name: source.stages for source in live}
    requests = {
        name: [stage.request_waveforms for stage in of_source if isinstance(stage, FeatureStage)]
        for name, of_source in stages.items()
    }
    for observer in observers:
        observer.call_on_anomaly(requests)
    directing = configure_setpoints(document, connections, agent_name, data_dir)
    drop_ranks = _drop_ranks(document, [source.name for source in live])
    document.finish()
    if document.faults or agent is None:
        raise ConfigurationFaults(document.faults)
    known = tuple(found for found in connections.values() if found is not None)
    return AgentConfiguration(
        agent, tuple(sources), tuple(live), known, observers, directing, drop_ranks
    )


def _drop_ranks(document: Section, live: Sequence[str]) -> dict[str, int]:
    """Return how early the frames of live sources go: the first that is named goes first."""
    section = document.section("outbox") if document.has("outbox") else None
    if section is None:
        return {}
    names = (section.texts("drop_first") or []) if section.has("drop_first") else []
    for name in names:
        if name not in live:
            told = f"{name!r} is no live source"
            section.fault("drop_first", "source.unknown", told, f"live sources: {', '.join(live)}")
    section.finish()
    return {name: len(names) - at for at, name in enumerate(names[: DROP_RANK_MAX - 1])}


def read_connections(file: Path) -> list[ConfiguredConnection]:
    """Return the connections that `file` declares, whatever stands beside them.

    Raises
    ------
    ConfigurationFaults
        with every fault of the connections
    """
    document = read_document(file)
    agent = _identifier(document, "agent", "agent") or "unnamed"
    connections = _connections(document, ConnectionContext(agent, file.parent))
    if document.faults:
        raise ConfigurationFaults(document.faults)
    return [found for found in connections.values() if found is not None]


# --- connections --------------------------------------------------------------------------


def _connections(
    document: Section, context: ConnectionContext
) -> dict[str, ConfiguredConnection | None]:
    """Return the connections by name; None stands for one that is declared and faulty."""
    if not document.has("connections"):
        return {}
    declared = document.section("connections")
    if declared is None:
        return {}
    names = declared.present()
    if len(names) > CONNECTIONS_MAX:
        told = f"more than {CONNECTIONS_MAX} connections"
        document.fault("connections", "configuration.too_many", told)
    found: dict[str, ConfiguredConnection | None] = {}
    for name in names[:CONNECTIONS_MAX]:
        section = declared.section(name)
        found[name] = None
        if section is None or not declared.attempt(
            name,
            lambda name=name: check_identifier("connection", name),  # type: ignore[misc]
        ):
            continue
        kind = section.choice("kind", sorted(live_kinds()))
        if kind is None:
            continue
        connection = live_kinds()[kind].configure_connection(section, name, context)
        section.finish()
        if connection is not None:
            found[name] = ConfiguredConnection(
                name, kind, connection, section.declared, _digest(security_files(connection))
            )
    return found


def security_files(connection: Connection) -> tuple[Path, ...]:
    """Return the certificates and keys with which `connection` is secured; most have none."""
    files: tuple[Path, ...] = getattr(connection, "watched_files", ())
    return files


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of what `files` hold; one that cannot be read holds nothing."""
    digest = hashlib.sha256()
    for file in files:
        with suppress(OSError):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        digest.update(b"\0")
    return digest.hexdigest() if files else ""


# --- sources ------------------------------------------------------------------------------


def _source(
    section: Section,
    agent: str,
    data_dir: Path,
    connections: dict[str, ConfiguredConnection | None],
) -> ConfiguredSource | ConfiguredLiveSource | None:
    kind = section.choice("kind", sorted(source_kinds()))
    asset = _identifier(section, "asset", "asset")
    name = _identifier(section, "name", "source") if section.has("name") else asset
    type_name = section.text("asset_type")
    found_type = type_name and section.attempt("asset_type", lambda: asset_type(type_name))
    if not kind or not found_type:
        return None
    context = SourceContext(
        asset=asset or "", asset_type=found_type, data_dir=data_dir, agent=agent
    )
    if kind in live_kinds():
        return _live_source(section, kind, name, context, connections)
    source = cast(Source | None, source_kinds()[kind].configure(section, context))
    replay = _replay(section)
    window = _window(section, len(source.channels) if source else 1)
    delivered = _delivered(source) if source else ()
    stages = _stages(section, delivered, found_type)
    section.finish()
    if source is None or asset is None or name is None or window is None or replay is None:
        return None
    if source.endless and replay.speed is None:
        told = "a source without an end cannot be read as fast as possible"
        section.fault("replay", "replay.endless", told, "set a speed, or times: now")
    header = header_for(found_type, asset, agent, source.channels)
    header = replace(
        header,
        channels=tuple(
            replace(channel, rate_hz=told.rate_hz)
            for channel, told in zip(header.channels, delivered, strict=True)
        ),
        time=TimeQuality(RECORDING),
    )
    section.attempt("asset", lambda: check_header(header))
    # Recordings hold numbers; a channel of texts needs a source that delivers them.
    section.attempt("channels", lambda: check_units(header, found_type))
    return ConfiguredSource(
        name=name,
        asset_type=found_type,
        header=header,
        window=window,
        replay=replay,
        source=source,
        stages=stages,
        declared=section.declared,
    )


def _delivered(source: Source) -> tuple[DeliveredChannel, ...]:
    rate_hz = source.rate_hz if isinstance(source, WaveformSource) else None
    return tuple(DeliveredChannel(*channel, rate_hz=rate_hz) for channel in source.channels)


def _live_source(
    section: Section,
    kind: str,
    name: str | None,
    context: SourceContext,
    connections: dict[str, ConfiguredConnection | None],
) -> ConfiguredLiveSource | None:
    connection_name = section.text("connection")
    if connection_name is None:
        return None
    connection = connections.get(connection_name)
    if connection is None:
        if connection_name not in connections:
            known = f"one of: {', '.join(connections)}" if connections else "none is declared"
            told = f"{connection_name!r} is no connection"
            section.fault("connection", "connection.unknown", told, known)
        return None  # a connection with faults has told them
    if connection.kind != kind:
        told = f"{connection_name!r} is of kind {connection.kind}, the source of kind {kind}"
        section.fault("connection", "connection.other_kind", told)
        return None
    context = replace(context, connection=connection.connection)
    source = cast(LiveSource | None, live_kinds()[kind].configure(section, context))
    channels = source.channels if source else ()
    for channel in channels:
        section.attempt("channels", lambda channel=channel: check_delivered(channel, context))  # type: ignore[misc]
    window = _window(section, 1)
    stages = _stages(section, channels, context.asset_type)
    section.finish()
    if source is None or name is None or window is None or not context.asset:
        return None
    return ConfiguredLiveSource(
        name=name,
        asset=context.asset,
        asset_type=context.asset_type,
        connection=connection_name,
        source=source,
        period_ns=window.duration_ns,
        readings_max=window.rows_max,
        stages=stages,
        declared=section.declared,
    )


def check_delivered(channel: DeliveredChannel, context: SourceContext) -> None:
    """Raise unless `channel` is one of the asset type's, in a unit of its quantity.

    Raises
    ------
    NotFound, InvalidInput
        as `domain.frame_checks.check_units`
    """
    header_for(
        context.asset_type,
        context.asset or "any",
        context.agent,
        ((channel.name, channel.unit),),
        channel.value_type,
    ).checked()


# --- what is done with windows ------------------------------------------------------------


def _stages(
    section: Section, channels: tuple[DeliveredChannel, ...], asset_type: AssetType
) -> tuple[Stage, ...]:
    """Return what the windows of a source go through: conditioning, then features."""
    conditioning, conditioned = conditioning_stage(section, channels, asset_type)
    features = feature_stage(section, conditioned, asset_type)
    return tuple(stage for stage in (conditioning, features) if stage is not None)


# --- pieces -------------------------------------------------------------------------------


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
