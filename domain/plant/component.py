"""Components: what is installed in an asset, wears, and is replaced.

A component is in one place at a time, and its own stream knows it. Whether a slot is taken it
does not know, for another component's stream would have to say so: the plant projection shows
where two components claim a slot. A fact of the past that comes late is recorded as it was told
(`late`); valid time places it, and where the component is now does not follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never, get_args

from domain import asset_decider
from domain.asset import asset_stream
from domain.deciders import Decider, Others
from domain.errors import CommandRejected, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.texts import TITLE_LENGTH_MAX, check_note
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing, ThreadItem


def component_stream(component_id: str) -> str:
    """Return the stream of a component."""
    return f"component:{component_id}"


# --- events -------------------------------------------------------------------------------


@event_type("component.registered")
@dataclass(frozen=True)
class ComponentRegistered:
    """A component became known; `part_id` names the part it was delivered as, if that is known."""

    component_id: str
    component_type: str
    title: str
    part_id: str | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it exists, and the part that it is."""
        node = component_stream(self.component_id)
        known = Standing(node, NodeState.IN_STOCK)
        if self.part_id is None:
            return (known,)
        return (known, Link(LinkKind.EMBODIED_BY, f"part:{self.part_id}", node))


@event_type("component.installed")
@dataclass(frozen=True)
class ComponentInstalled:
    """A component was put into an asset's slot, at the event's `occurred_at`.

    `late`: told after newer facts; where the component is now does not follow from it.
    """

    component_id: str
    asset_id: str
    slot: str
    late: bool = False

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the installation."""
        node = component_stream(self.component_id)
        return (
            Link(LinkKind.INSTALLED_IN, node, asset_stream(self.asset_id)),
            Standing(node, NodeState.ACTIVE),
        )


@event_type("component.removed")
@dataclass(frozen=True)
class ComponentRemoved:
    """A component was taken out of an asset's slot, at the event's `occurred_at`.

    `late`: told after newer facts; where the component is now does not follow from it.
    """

    component_id: str
    asset_id: str
    slot: str
    reason: str
    late: bool = False

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the installation's end."""
        node = component_stream(self.component_id)
        return (
            LinkEnd(LinkKind.INSTALLED_IN, node, asset_stream(self.asset_id)),
            Standing(node, NodeState.IN_STOCK),
        )


@event_type("component.scrapped")
@dataclass(frozen=True)
class ComponentScrapped:
    """A component will not be used again."""

    component_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(component_stream(self.component_id), NodeState.SCRAPPED),)


ComponentEvent = ComponentRegistered | ComponentInstalled | ComponentRemoved | ComponentScrapped


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class RegisterComponent:
    """Make a component known, and the part that it was delivered as if that is known."""

    component_id: str
    component_type: str
    title: str
    part_id: str | None = None


@dataclass(frozen=True)
class InstallComponent:
    """Say that a component was put into an asset's slot.

    `late`: it is a fact of the past, to be recorded wherever the component is known to be now.
    """

    component_id: str
    asset_id: str
    slot: str
    late: bool = False


@dataclass(frozen=True)
class RemoveComponent:
    """Say that a component was taken out of an asset's slot; `late` as in `InstallComponent`."""

    component_id: str
    asset_id: str
    slot: str
    reason: str
    late: bool = False


@dataclass(frozen=True)
class ScrapComponent:
    """Say that a component will not be used again; one that is installed is taken out."""

    component_id: str
    reason: str


ComponentCommand = RegisterComponent | InstallComponent | RemoveComponent | ScrapComponent


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unregistered:
    """Nobody has named this component yet."""


@dataclass(frozen=True)
class InStock:
    """Known, and in no asset."""

    component_id: str
    component_type: str


@dataclass(frozen=True)
class Installed:
    """In an asset's slot."""

    component_id: str
    component_type: str
    asset_id: str
    slot: str


@dataclass(frozen=True)
class Scrapped:
    """Not to be used again."""

    component_id: str
    component_type: str


Component = Unregistered | InStock | Installed | Scrapped


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: ComponentCommand, component: Component, others: Others
) -> tuple[ComponentEvent, ...]:
    """Return the events `command` causes on `component`; none when it already is so.

    Parameters
    ----------
    others : the assets that `looks_at` names

    Raises
    ------
    CommandRejected
        ``component.already_registered``, ``component.scrapped``, ``component.installed``,
        ``component.not_installed``, ``asset.retired``
    NotFound
        ``component.unknown``, ``asset.unknown``
    InvalidInput
        ``component.malformed_name``, ``component_type.malformed_name``, ``part.malformed_name``,
        ``slot.malformed_name``, ``text.too_long``
    """
    if isinstance(command, RegisterComponent):
        return _register(command, component)
    if isinstance(component, Unregistered):
        raise unknown_component(command.component_id)
    match command:
        case InstallComponent():
            return _install(command, component, others)
        case RemoveComponent():
            return _remove(command, component, others)
        case ScrapComponent():
            return _scrap(command, component)
        case _:
            assert_never(command)


def unknown_component(component_id: str) -> NotFound:
    """Return the error for a component that nobody registered."""
    return NotFound(
        "component.unknown",
        f"component {component_id!r} is not registered",
        hint="register it first, or check the name",
        value=component_id,
    )


def _register(command: RegisterComponent, component: Component) -> tuple[ComponentEvent, ...]:
    check_identifier("component", command.component_id)
    check_identifier("component_type", command.component_type)
    if command.part_id is not None:
        check_identifier("part", command.part_id)
    title = check_note("title", command.title.strip(), TITLE_LENGTH_MAX) or command.component_id
    if not isinstance(component, Unregistered):
        raise CommandRejected(
            "component.already_registered",
            f"component {command.component_id!r} is registered as {component.component_type!r}",
            hint="choose another name; a component is registered once",
            value=command.component_id,
        )
    return (
        ComponentRegistered(command.component_id, command.component_type, title, command.part_id),
    )


def _install(
    command: InstallComponent, component: InStock | Installed | Scrapped, others: Others
) -> tuple[ComponentEvent, ...]:
    check_identifier("slot", command.slot)
    _check_asset(command.asset_id, others, retired_too=command.late)
    installed = ComponentInstalled(
        command.component_id, command.asset_id, command.slot, command.late
    )
    if command.late:
        return (installed,)
    match component:
        case Scrapped():
            raise _scrapped(component)
        case Installed(asset_id=asset_id, slot=slot):
            if (asset_id, slot) == (command.asset_id, command.slot):
                return ()
            raise CommandRejected(
                "component.installed",
                f"component {component.component_id!r} is in slot {slot!r} of asset {asset_id!r}",
                hint="remove it first; a fact of the past is told as late",
                value=component.component_id,
                limit=asset_id,
            )
        case InStock():
            return (installed,)
        case _:
            assert_never(component)


def _remove(
    command: RemoveComponent, component: InStock | Installed | Scrapped, others: Others
) -> tuple[ComponentEvent, ...]:
    check_identifier("slot", command.slot)
    _check_asset(command.asset_id, others, retired_too=True)
    removed = ComponentRemoved(
        command.component_id,
        command.asset_id,
        command.slot,
        check_note("reason", command.reason),
        command.late,
    )
    if command.late:
        return (removed,)
    if isinstance(component, Scrapped):
        raise _scrapped(component)
    if isinstance(component, Installed) and (component.asset_id, component.slot) == (
        command.asset_id,
        command.slot,
    ):
        return (removed,)
    raise CommandRejected(
        "component.not_installed",
        f"component {component.component_id!r} is not in slot {command.slot!r} of asset "
        f"{command.asset_id!r}",
        hint="see where it is; a fact of the past is told as late",
        value=component.component_id,
    )


def _scrap(
    command: ScrapComponent, component: InStock | Installed | Scrapped
) -> tuple[ComponentEvent, ...]:
    reason = check_note("reason", command.reason)
    scrapped = ComponentScrapped(component.component_id, reason)
    match component:
        case Scrapped():
            raise _scrapped(component)
        case Installed(component_id=component_id, asset_id=asset_id, slot=slot):
            return (ComponentRemoved(component_id, asset_id, slot, reason), scrapped)
        case InStock():
            return (scrapped,)
        case _:
            assert_never(component)


def _check_asset(asset_id: str, others: Others, *, retired_too: bool) -> None:
    state = others.get(asset_stream(asset_id))
    if state is None or isinstance(state, asset_decider.Unregistered):
        raise asset_decider.unknown_asset(asset_id)
    if isinstance(state, asset_decider.Retired) and not retired_too:
        raise asset_decider.retired_asset(asset_id)


def _scrapped(component: Scrapped) -> CommandRejected:
    return CommandRejected(
        "component.scrapped",
        f"component {component.component_id!r} was scrapped",
        hint="a fact of before that is told as late",
        value=component.component_id,
    )


def looks_at(command: ComponentCommand, _component: Component, _others: Others) -> tuple[str, ...]:
    """Return the stream of the asset that a command speaks of."""
    if isinstance(command, InstallComponent | RemoveComponent):
        return (asset_stream(command.asset_id),)
    return ()


# --- fold ---------------------------------------------------------------------------------


def evolve(component: Component, event: ComponentEvent) -> Component:
    """Return what `event` makes of `component`; where it is does not follow from a late one."""
    if isinstance(event, ComponentRegistered):
        return InStock(event.component_id, event.component_type)
    if isinstance(component, Unregistered):
        raise ValueError(f"{type(event).__name__} cannot happen to an unregistered component")
    known = (component.component_id, component.component_type)
    match event:
        case ComponentInstalled():
            return component if event.late else Installed(*known, event.asset_id, event.slot)
        case ComponentRemoved():
            return component if event.late else InStock(*known)
        case ComponentScrapped():
            return Scrapped(*known)
        case _:
            assert_never(event)


DECIDER: Final[Decider[ComponentCommand, Component, ComponentEvent]] = Decider(
    category="component",
    command_types=get_args(ComponentCommand),
    initial=Unregistered(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: component_stream(command.component_id),
    stream_of=lambda event: component_stream(event.component_id),
    looks_at=looks_at,
)
