"""How set-points are declared: ``setpoints`` and ``directives`` of the agent's YAML.

Reference: docs/edge-operations.md. Values stand there in the unit of the set-point or channel and
are SI from here on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from domain.asset_model import AssetType, Setpoint
from domain.asset_types import asset_type
from domain.identifiers import check_identifier
from domain.units import Unit, unit
from edge_agent.live import Connection, Target
from edge_agent.setpoints.declaration import DeclaredSetpoint, Interlock, Rate, SafeReturn
from edge_agent.sources import SourceContext, WritableKind, live_kinds
from edge_agent.uplink.verification import KEYS_MAX, PinnedKey
from edge_agent.yaml_section import Section

SETPOINTS_MAX: Final = 500
INTERLOCKS_MAX: Final = 50
SECONDS_MAX: Final = 7 * 24 * 3600.0
ADVISORY: Final = "advisory"
CLOSED_LOOP: Final = "closed-loop"
_ANY: Final = 1e300


class KnownConnection(Protocol):
    """A connection of the same document (`edge_agent.configuration.ConfiguredConnection`)."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def kind(self) -> str:
        """Its kind's word."""

    @property
    def connection(self) -> Connection:
        """Itself."""


@dataclass(frozen=True)
class Directing:
    """Which set-points may be set, and whose directives are obeyed."""

    setpoints: tuple[DeclaredSetpoint, ...] = ()
    keys: tuple[PinnedKey, ...] = ()


def configure(
    document: Section,
    connections: Mapping[str, KnownConnection | None],
    agent: str,
    data_dir: Path,
) -> Directing:
    """Return what `document` declares of set-points, after noting what is wrong."""
    found: list[DeclaredSetpoint] = []
    subjects: set[str] = set()
    sections = document.sections("setpoints") if document.has("setpoints") else []
    if len(sections) > SETPOINTS_MAX:
        told = f"more than {SETPOINTS_MAX} set-points"
        document.fault("setpoints", "configuration.too_many", told)
    for section in sections[:SETPOINTS_MAX]:
        declared = _setpoint(section, connections, agent, data_dir)
        section.finish()
        if declared is None:
            continue
        if declared.subject in subjects:
            section.fault("setpoint", "setpoint.repeated", f"{declared.subject} stands here twice")
        subjects.add(declared.subject)
        found.append(declared)
    keys = _keys(document)
    if found and not keys and not document.has("directives"):
        document.fault(
            "setpoints",
            "directives.no_key",
            "set-points are declared, and no key whose directives are obeyed",
            "directives: {keys: [the line under /tlog/<ledger>/vkey]}",
        )
    return Directing(tuple(found), keys)


def _keys(document: Section) -> tuple[PinnedKey, ...]:
    section = document.section("directives") if document.has("directives") else None
    if section is None:
        return ()
    texts = section.texts("keys") or []
    if len(texts) > KEYS_MAX:
        section.fault("keys", "configuration.too_many", f"more than {KEYS_MAX} keys")
    keys = [section.attempt("keys", lambda text=text: PinnedKey.parse(text)) for text in texts]  # type: ignore[misc]
    section.finish()
    return tuple(key for key in keys if key is not None)


def _setpoint(
    section: Section,
    connections: Mapping[str, KnownConnection | None],
    agent: str,
    data_dir: Path,
) -> DeclaredSetpoint | None:
    faults = len(section.faults)
    asset = section.text("asset")
    if asset is not None:
        asset = section.attempt("asset", lambda: check_identifier("asset", asset or ""))
    type_name, name = section.text("asset_type"), section.text("setpoint")
    kind = section.attempt("asset_type", lambda: asset_type(type_name)) if type_name else None
    described = section.attempt("setpoint", lambda: kind.setpoint(name)) if kind and name else None
    connection = _connection(section, connections)
    mode = section.choice("mode", (ADVISORY, CLOSED_LOOP), ADVISORY)
    two_person = section.plain("two_person") if section.has("two_person") else False
    if not isinstance(two_person, bool):
        section.fault("two_person", "configuration.wrong_type", "it is true or false")
    age_s_max = section.number("age_s_max", 1, SECONDS_MAX, 120)
    if asset is None or kind is None or described is None:
        return None
    used = _unit(section, "unit", described.quantity, described.input_unit)
    if used is None:
        return None
    context = SourceContext(asset=asset, asset_type=kind, data_dir=data_dir, agent=agent)
    target = _target(section, connection, context)
    bounds = _range(section, described, used)
    tolerance = section.number("tolerance", 0, _ANY, 0)
    rate = _rate(section, kind, used)
    interlocks = _interlocks(section, asset, kind)
    safe = None if bounds is None else _safe(section, bounds, used)
    if len(section.faults) > faults or connection is None or target is None or bounds is None:
        return None
    assert tolerance is not None, "without a fault there is one"
    assert age_s_max is not None, "without a fault there is one"
    declared = DeclaredSetpoint(
        asset=asset,
        described=described,
        connection=connection.name,
        target=target,
        unit=used,
        closed_loop=mode == CLOSED_LOOP,
        least=bounds[0],
        most=bounds[1],
        age_s_max=age_s_max,
        two_person=two_person is True,
        tolerance=tolerance * used.factor + 1e-9 * abs(bounds[1]),
        rate=rate,
        interlocks=interlocks,
        safe=safe,
    )
    if safe is not None and safe.twin_lost_s is not None and not declared.watched:
        section.fault(
            "safe",
            "setpoint.nothing_watched",
            "it is to return when the twin is lost, and depends on no channel",
            "declare an interlock, or a rate with its feedback",
        )
    return declared


def _connection(
    section: Section, connections: Mapping[str, KnownConnection | None]
) -> KnownConnection | None:
    name = section.choice("connection", sorted(connections))
    found = None if name is None else connections[name]
    if found is not None and not isinstance(live_kinds()[found.kind], WritableKind):
        told = f"nothing can be written over a connection of kind {found.kind!r}"
        section.fault("connection", "setpoint.not_writable", told)
        return None
    return found


def _target(
    section: Section, connection: KnownConnection | None, context: SourceContext
) -> Target | None:
    nested = section.section("target")
    if nested is None or connection is None:
        return None
    kind = live_kinds()[connection.kind]
    assert isinstance(kind, WritableKind), "it was looked at above"
    opened: Connection = connection.connection
    told = SourceContext(
        asset=context.asset,
        asset_type=context.asset_type,
        data_dir=context.data_dir,
        connection=opened,
        agent=context.agent,
    )
    target = kind.configure_target(nested, told)
    nested.finish()
    return target


def _unit(section: Section, key: str, quantity: str, default: str) -> Unit | None:
    symbol = section.text(key) if section.has(key) else default
    if symbol is None:
        return None
    return section.attempt(key, lambda: unit(symbol, quantity=quantity))


def _range(section: Section, described: Setpoint, used: Unit) -> tuple[float, float] | None:
    """Return the bounds, SI: those of the asset's type where none are declared, never wider."""
    if not section.has("range"):
        return described.safe_min, described.safe_max
    nested = section.section("range")
    if nested is None:
        return None
    least, most = nested.number("min", -_ANY, _ANY), nested.number("max", -_ANY, _ANY)
    nested.finish()
    if least is None or most is None:
        return None
    bounds = used.to_si(least), used.to_si(most)
    margin = 1e-9 * max(abs(described.safe_min), abs(described.safe_max))
    if not (described.safe_min - margin <= bounds[0] <= bounds[1] <= described.safe_max + margin):
        nested.fault(
            "min",
            "setpoint.range",
            f"{least:g} to {most:g} {used.symbol} is beyond the safe bounds of the asset's type",
            f"{used.from_si(described.safe_min):g} to {used.from_si(described.safe_max):g}",
        )
        return None
    return bounds


def _rate(section: Section, kind: AssetType, used: Unit) -> Rate | None:
    nested = section.section("rate") if section.has("rate") else None
    if nested is None:
        return None
    change = nested.number("change_max", 0, _ANY)
    every_s = nested.number("every_s", 0, SECONDS_MAX)
    feedback = nested.text("feedback")
    if feedback is not None:
        channel = nested.attempt("feedback", lambda: kind.channel(feedback or ""))
        feedback = None if channel is None else channel.name
    age_s = nested.number("age_s_max", 0.001, SECONDS_MAX, 10)
    nested.finish()
    if change is None or every_s is None or feedback is None or age_s is None:
        return None
    return Rate(change * used.factor, every_s, feedback, age_s)


def _interlocks(section: Section, asset: str, kind: AssetType) -> tuple[Interlock, ...]:
    sections = section.sections("interlocks") if section.has("interlocks") else []
    if len(sections) > INTERLOCKS_MAX:
        told = f"more than {INTERLOCKS_MAX} interlocks"
        section.fault("interlocks", "configuration.too_many", told)
    found = [_interlock(nested, asset, kind) for nested in sections[:INTERLOCKS_MAX]]
    return tuple(lock for lock in found if lock is not None)


def _interlock(section: Section, asset: str, kind: AssetType) -> Interlock | None:
    name = section.text("channel")
    channel = section.attempt("channel", lambda: kind.channel(name or "")) if name else None
    used = _unit(section, "unit", channel.quantity, channel.si_unit) if channel else None
    least = section.number("min", -_ANY, _ANY, -_ANY)
    most = section.number("max", -_ANY, _ANY, _ANY)
    age_s = section.number("age_s_max", 0.001, SECONDS_MAX, 5)
    if not section.has("min") and not section.has("max"):
        section.fault("channel", "interlock.no_bound", "an interlock has a min, a max or both")
    section.finish()
    if channel is None or used is None or least is None or most is None or age_s is None:
        return None
    return Interlock(asset, channel.name, used.to_si(least), used.to_si(most), age_s)


def _safe(section: Section, bounds: tuple[float, float], used: Unit) -> SafeReturn | None:
    nested = section.section("safe") if section.has("safe") else None
    if nested is None:
        return None
    value = nested.number("value", -_ANY, _ANY)
    lost = {
        key: nested.number(key, 0.5, SECONDS_MAX) if nested.has(key) else None
        for key in ("link_lost_s", "twin_lost_s")
    }
    if lost == {"link_lost_s": None, "twin_lost_s": None}:
        told = "it says not when to return: link_lost_s, twin_lost_s or both"
        nested.fault("value", "setpoint.never_returns", told)
    nested.finish()
    if value is None:
        return None
    value_si = used.to_si(value)
    if not bounds[0] <= value_si <= bounds[1]:
        nested.fault("value", "setpoint.out_of_bounds", f"{value:g} {used.symbol} is out of range")
        return None
    return SafeReturn(value_si, lost["link_lost_s"], lost["twin_lost_s"])
