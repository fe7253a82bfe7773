"""Components: what is installed in an asset, wears, and is replaced."""

from __future__ import annotations

from dataclasses import dataclass

from domain.asset import asset_stream
from domain.events import event_type
from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing, ThreadItem


def component_stream(component_id: str) -> str:
    """Return the stream of a component."""
    return f"component:{component_id}"


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
    """A component was put into an asset's slot, at the event's `occurred_at`."""

    component_id: str
    asset_id: str
    slot: str

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
    """A component was taken out of an asset's slot, at the event's `occurred_at`."""

    component_id: str
    asset_id: str
    slot: str
    reason: str

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
