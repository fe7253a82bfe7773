"""What a host application knows of one edge node: its births, its order, and whether it lives.

Pure: messages and the time go in, and what follows from them comes out. Messages that overtook
others wait for them for at most the reorder timeout; then what is there is taken in order, the
hole is told, and a rebirth is asked for.

References
----------
Sparkplug 3.0.0, 5.6 to 5.9 (termination, message ordering), 6.4 (payloads).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from edge_agent.sparkplug.payload import METRICS_MAX, Metric, Payload, bd_seq_of
from edge_agent.sparkplug.topics import MessageType

SEQ_COUNT: Final = 256
DEVICES_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class KnownMetric:
    """What a birth told of a metric."""

    name: str
    datatype: int
    alias: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """A metric of a message, with what its birth told of it."""

    known: KnownMetric
    metric: Metric


@dataclass(frozen=True, slots=True)
class Delivered:
    """Metrics of a node (`device` None) or of a device, in the order of the message."""

    device: str | None
    metrics: tuple[Told, ...]
    timestamp_ms: int | None
    of_birth: bool


@dataclass(frozen=True, slots=True)
class Died:
    """A device, or a whole node (`device` None), is offline and its metrics are stale."""

    device: str | None
    time_ns: int


@dataclass(frozen=True, slots=True)
class Born:
    """A node or a device is online (again), since `time_ns`."""

    device: str | None
    time_ns: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages are missing that were sent between two times."""

    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class RebirthWanted:
    """The node has to tell everything anew."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A message, or a metric of one, that could not be taken."""

    code: str
    message: str


Outcome = Delivered | Died | Born | Gap | RebirthWanted | Refused


@dataclass(slots=True)
class _Waiting:
    type: MessageType
    device: str | None
    payload: Payload


@dataclass
class NodeSession:
    """One edge node as its host application knows it.

    Parameters
    ----------
    reorder_timeout_ns : for how long a missing message is waited for
    """

    reorder_timeout_ns: int
    online: bool = False
    bd_seq: int | None = None
    _expected: int | None = None
    _heard_ns: int = 0
    _since_ns: int | None = None
    _gap_from_ns: int = 0
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _aliases: dict[int, tuple[str | None, KnownMetric]] = field(default_factory=dict)
    _names: dict[str | None, dict[str, KnownMetric]] = field(default_factory=dict)

    @property
    def due_ns(self) -> int | None:
        """When `expire` has to be called; None while nothing is missing."""
        return None if self._since_ns is None else self._since_ns + self.reorder_timeout_ns

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that are online."""
        return tuple(name for name in self._names if name is not None)

    def known(self, device: str | None, name: str) -> KnownMetric | None:
        """Return what the last birth told of a metric; None where it told nothing."""
        return self._names.get(device, {}).get(name)

    def accept(
        self, kind: MessageType, device: str | None, payload: Payload, now_ns: int
    ) -> list[Outcome]:
        """Return what follows from a message that arrived at `now_ns`."""
        match kind:
            case MessageType.NCMD | MessageType.DCMD:
                return []
            case MessageType.NBIRTH:
                outcomes = self._node_birth(payload, now_ns)
            case MessageType.NDEATH:
                return self._node_death(payload, now_ns)
            case _:
                outcomes = self._in_sequence(kind, device, payload, now_ns)
        self._heard_ns = now_ns
        return outcomes

    def expire(self, now_ns: int) -> list[Outcome]:
        """Return what follows from the end of the reorder timeout."""
        due_ns = self.due_ns
        if due_ns is None or now_ns < due_ns:
            return []
        outcomes: list[Outcome] = [Gap(self._gap_from_ns, self._since_ns or now_ns)]
        for seq in self._waiting_in_order():
            waiting = self._waiting.pop(seq)
            self._expected = (seq + 1) % SEQ_COUNT
            outcomes += self._take(waiting, now_ns)
        self._since_ns = None
        outcomes.append(RebirthWanted("sequence.gap"))
        return outcomes

    def disconnected(self) -> None:
        """Forget what only a session without an interruption can know."""
        self.online = False
        self._forget()

    # --- births and deaths ----------------------------------------------------------------

    def _node_birth(self, payload: Payload, now_ns: int) -> list[Outcome]:
        if payload.seq is None:
            return [
                Refused("message.no_seq", "an NBIRTH without seq"),
                RebirthWanted("message.no_seq"),
            ]
        outcomes: list[Outcome] = []
        bd_seq = bd_seq_of(payload)
        if bd_seq is None:
            # It is taken all the same: its readings are good, only its death cannot be told
            # from that of an earlier session.
            outcomes.append(Refused("message.no_bd_seq", "an NBIRTH without bdSeq"))
        self._forget()
        self.online, self.bd_seq = True, bd_seq
        self._expected = (payload.seq + 1) % SEQ_COUNT
        outcomes.append(Born(None, now_ns))
        return outcomes + self._born(None, payload)

    def _born(self, device: str | None, payload: Payload) -> list[Outcome]:
        if len(self._names) >= DEVICES_MAX and device not in self._names:
            told = f"more than {DEVICES_MAX} devices"
            return [Refused("message.too_many_devices", told)]
        outcomes: list[Outcome] = []
        names: dict[str, KnownMetric] = {}
        for metric in payload.metrics:
            if metric.name is None or metric.datatype is None:
                told = f"a metric of a birth without name or datatype (alias {metric.alias})"
                outcomes.append(Refused("message.birth_incomplete", told))
                continue
            known = KnownMetric(metric.name, metric.datatype, metric.alias)
            names[metric.name] = known
            if metric.alias is None:
                continue
            other = self._aliases.get(metric.alias)
            if other is not None and other != (device, known) and other[0] in self._names:
                told = f"alias {metric.alias} stands for {other[1].name!r} and {metric.name!r}"
                outcomes.append(Refused("message.alias_repeated", told[:300]))
            if len(self._aliases) < METRICS_MAX * 10:
                self._aliases[metric.alias] = (device, known)
        self._names[device] = names
        told_metrics = tuple(
            Told(names[metric.name], metric) for metric in payload.metrics if metric.name in names
        )
        outcomes.append(Delivered(device, told_metrics, payload.timestamp_ms, of_birth=True))
        return outcomes

    def _node_death(self, payload: Payload, now_ns: int) -> list[Outcome]:
        bd_seq = bd_seq_of(payload)
        if self.bd_seq is not None and bd_seq != self.bd_seq:
            # The will of an earlier session, which the broker published late.
            told = f"an NDEATH of bdSeq {bd_seq}, while {self.bd_seq} lives"
            return [Refused("message.stale_death", told)]
        if not self.online:
            return []
        self.online = False
        self._forget()
        return [Died(None, now_ns)]

    def _forget(self) -> None:
        self._expected = None
        self._since_ns = None
        self._waiting.clear()
        self._aliases.clear()
        self._names.clear()

    # --- order ----------------------------------------------------------------------------

    def _in_sequence(
        self, kind: MessageType, device: str | None, payload: Payload, now_ns: int
    ) -> list[Outcome]:
        if not self.online or self._expected is None:
            told = f"a {kind} of a node whose birth is not known"
            return [Refused("message.before_birth", told), RebirthWanted("message.before_birth")]
        if payload.seq is None:
            told = f"a {kind} without seq"
            return [Refused("message.no_seq", told), RebirthWanted("message.no_seq")]
        waiting = _Waiting(kind, device, payload)
        if payload.seq != self._expected:
            if payload.seq in self._waiting:
                return [Refused("message.repeated", f"seq {payload.seq} arrived twice")]
            self._waiting[payload.seq] = waiting
            if self._since_ns is None:
                self._since_ns, self._gap_from_ns = now_ns, self._heard_ns
            return []
        outcomes = self._next(waiting, now_ns)
        while self._expected is not None and self._expected in self._waiting:
            outcomes += self._next(self._waiting.pop(self._expected), now_ns)
        if not self._waiting:
            self._since_ns = None
        return outcomes

    def _next(self, waiting: _Waiting, now_ns: int) -> list[Outcome]:
        if self._expected is not None:
            self._expected = (self._expected + 1) % SEQ_COUNT
        return self._take(waiting, now_ns)

    def _waiting_in_order(self) -> list[int]:
        expected = self._expected or 0
        return sorted(self._waiting, key=lambda seq: (seq - expected) % SEQ_COUNT)

    def _take(self, waiting: _Waiting, now_ns: int) -> list[Outcome]:
        device, payload = waiting.device, waiting.payload
        match waiting.type:
            case MessageType.DBIRTH:
                return [Born(device, now_ns), *self._born(device, payload)]
            case MessageType.DDEATH:
                if self._names.pop(device, None) is None:
                    return []
                told_ms = payload.timestamp_ms
                return [Died(device, now_ns if told_ms is None else told_ms * 1_000_000)]
            case _:
                return list(self._data(device, payload))

    def _data(self, device: str | None, payload: Payload) -> Iterator[Outcome]:
        names = self._names.get(device)
        if names is None:
            told = f"data of device {device!r}, whose birth is not known"
            yield Refused("message.before_birth", told[:300])
            yield RebirthWanted("message.before_birth")
            return
        found: list[Told] = []
        unknown: Metric | None = None
        for metric in payload.metrics:
            known = self._known_of(metric, device, names)
            if known is None:
                unknown = metric
            else:
                found.append(Told(known, metric))
        if found:
            yield Delivered(device, tuple(found), payload.timestamp_ms, of_birth=False)
        if unknown is not None:
            told = f"a metric {unknown.name!r:.200} (alias {unknown.alias}) that no birth told of"
            yield Refused("message.unknown_metric", told)
            yield RebirthWanted("message.unknown_metric")

    def _known_of(
        self, metric: Metric, device: str | None, names: dict[str, KnownMetric]
    ) -> KnownMetric | None:
        if metric.name is not None:
            return names.get(metric.name)
        if metric.alias is None:
            return None
        owner, known = self._aliases.get(metric.alias, (None, None))
        return known if owner == device else None
