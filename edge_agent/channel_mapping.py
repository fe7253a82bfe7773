"""The universal part of every live mapping: a manufacturer's name, unit and scaling to a channel.

Where a value is found (a node, a register, a field of a message) is each protocol's own; this is
what all of them say about what the value means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from domain.asset_model import Channel, ValueKind
from domain.units import unit
from edge_agent.delivered_values import VALUE_TYPE_OF_KIND
from edge_agent.live import DeliveredChannel
from edge_agent.scaling import Scaling, read_scaling
from edge_agent.sources import SourceContext
from edge_agent.yaml_section import Section

CHANNELS_MAX: Final = 1_000
RATE_HZ_MIN: Final = 0.001
RATE_HZ_MAX: Final = 10_000_000.0
Address = TypeVar("Address")


@dataclass(frozen=True, slots=True)
class MappedChannel(Generic[Address]):
    """A channel, what its delivered numbers mean, and where the protocol finds them."""

    delivered: DeliveredChannel
    scaling: Scaling
    address: Address


def mapped_channels(
    section: Section,
    context: SourceContext,
    read_address: Callable[[Section, float | None], Address | None],
    *,
    waveforms: bool = False,
) -> list[MappedChannel[Address]]:
    """Return what ``channels`` of a source maps, after noting whatever is wrong with it.

    Parameters
    ----------
    read_address : reads the protocol's own keys of one channel; its second argument is the rate
        of a waveform, or None
    waveforms : whether the protocol can deliver them (``rate_hz``)
    """
    channels = section.section("channels")
    if channels is None:
        return []
    names = channels.present()
    if not names:
        section.fault("channels", "configuration.empty", "'channels' maps nothing")
    if len(names) > CHANNELS_MAX:
        told = f"{len(names)} channels, more than {CHANNELS_MAX}"
        section.fault("channels", "configuration.too_many", told)
    found: list[MappedChannel[Address]] = []
    for name in names[:CHANNELS_MAX]:
        mapping = channels.section(name)
        known = channels.attempt(name, partial(context.asset_type.channel, name))
        if mapping is None:
            continue
        measured = known is None or known.kind is ValueKind.NUMBER
        # What is not measured has the unit 1, which nobody has to say.
        symbol = mapping.text("unit") if measured or mapping.has("unit") else "1"
        scaling = read_scaling(mapping)
        rate_hz = None
        if waveforms and mapping.has("rate_hz"):
            rate_hz = mapping.number("rate_hz", RATE_HZ_MIN, RATE_HZ_MAX)
        address = read_address(mapping, rate_hz)
        mapping.finish()
        if symbol is None or scaling is None or address is None or known is None:
            continue
        if mapping.attempt("unit", partial(unit, symbol, quantity=known.quantity)):
            delivered = DeliveredChannel(name, symbol, VALUE_TYPE_OF_KIND[known.kind], rate_hz)
            _check_exact(mapping, known, scaling, rate_hz)
            found.append(MappedChannel(delivered, scaling, address))
    return found


def _check_exact(mapping: Section, known: Channel, scaling: Scaling, rate_hz: float | None) -> None:
    """Note where what is no measured number is declared to be scaled, or to be a waveform."""
    if known.kind is ValueKind.NUMBER:
        return
    told = f"{known.name!r} holds {known.kind.lower()} values, which are taken as they are"
    if not scaling.is_identity:
        key = "scale" if mapping.has("scale") else "offset"
        mapping.fault(key, "mapping.not_numeric", told, "leave scale and offset out")
    if rate_hz is not None:
        mapping.fault("rate_hz", "mapping.not_numeric", told, "leave rate_hz out")
