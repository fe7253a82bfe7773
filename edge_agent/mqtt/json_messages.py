"""JSON messages read by a declared mapping: which field of which topic is which channel.

What a message gets wrong is told with its text and harms neither the other channels of the
message nor the messages beside it. A number is taken as it stands; a field that is absent gives
no reading, ``null`` gives a MISSING one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from domain.errors import InvalidInput
from domain.frames import Quality
from domain.time_quality import AGENT, DEVICE
from edge_agent.channel_mapping import MappedChannel
from edge_agent.delivered_numbers import number_of
from edge_agent.delivered_values import value_of
from edge_agent.mqtt.topics import matches
from edge_agent.reading_buffer import ReadingBuffer
from edge_agent.timestamps import TimeReader

POINTER_TOKENS_MAX: Final = 32
SAMPLES_MAX: Final = 100_000
"""Samples, or samples of a waveform, in one message."""
FAULT_TEXT_MAX: Final = 200

Path = tuple[str, ...]
TellFault = Callable[[str, str, str, str], None]
"""Told of a fault: code, message, channel (empty for a whole message), text."""
ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Field:
    """Where a channel stands in a message.

    Parameters
    ----------
    path : the tokens of its JSON pointer below a sample
    levels : the topic filter of the messages that carry it; None for all of the source's
    """

    path: Path
    levels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class QualityField:
    """Where a message says how good its values are, and in which words."""

    path: Path
    words: dict[str, Quality]
    otherwise: Quality


@dataclass(frozen=True, kw_only=True)
class JsonMapping:
    """How messages become readings.

    Parameters
    ----------
    samples : path of a list of samples within a message; None when the message is the sample
    time : path of the time within a sample, or within the message where samples have none;
        None takes the time of arrival
    """

    channels: tuple[MappedChannel[Field], ...]
    samples: Path | None = None
    time: Path | None = None
    times: TimeReader | None = None
    quality: QualityField | None = None

    def channels_of(self, topic: str) -> tuple[int, ...]:
        """Return the indexes of the channels that messages of `topic` may carry."""
        return tuple(
            index
            for index, mapped in enumerate(self.channels)
            if mapped.address.levels is None or matches(mapped.address.levels, topic)
        )

    def read(
        self,
        payload: bytes,
        channels: Sequence[int],
        arrival_ns: int,
        into: ReadingBuffer,
        fault: TellFault,
    ) -> None:
        """Add what `payload` says of `channels` to `into`."""
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            fault("message.not_json", f"the message is no JSON: {error}", "", shown(payload))
            return
        try:
            for sample in self._samples(document):
                self._read_sample(sample, document, channels, arrival_ns, into, fault)
        except InvalidInput as error:
            fault(error.code, error.message, "", shown(payload))

    def _samples(self, document: Any) -> Iterator[Any]:
        if self.samples is None:
            yield document
            return
        found = at(document, self.samples)
        if not isinstance(found, list):
            raise InvalidInput("message.no_samples", f"no list of samples: {found!r:.80}")
        if len(found) > SAMPLES_MAX:
            told = f"{len(found)} samples, more than {SAMPLES_MAX}"
            raise InvalidInput("message.too_many_samples", told, limit=SAMPLES_MAX)
        yield from found

    def _read_sample(
        self,
        sample: Any,
        document: Any,
        channels: Sequence[int],
        arrival_ns: int,
        into: ReadingBuffer,
        fault: TellFault,
    ) -> None:
        try:
            time_ns = self._time_ns(sample, document, arrival_ns)
            quality = self._quality(sample, document, fault)
        except InvalidInput as error:
            code = error.code.replace("row.", "message.", 1)
            fault(code, error.message, "", shown(orjson.dumps(sample)))
            return
        for channel in channels:
            mapped = self.channels[channel]
            value = at(sample, mapped.address.path)
            if value is ABSENT:
                continue
            name = mapped.delivered.name
            if mapped.delivered.rate_hz is not None:
                self._read_run(channel, value, time_ns, quality, into, fault)
                continue
            found, own, code = value_of(value, mapped.delivered)
            if code:
                fault(code, f"{value!r:.80} gives no good reading", name, f"{value!r:.200}")
            into.add(channel, time_ns, found, max(quality, own))

    def _read_run(
        self,
        channel: int,
        value: Any,
        time_ns: int,
        quality: Quality,
        into: ReadingBuffer,
        fault: TellFault,
    ) -> None:
        """Add the samples of a waveform, which a message carries as one list of numbers."""
        name = self.channels[channel].delivered.name
        if not isinstance(value, list) or not 0 < len(value) <= SAMPLES_MAX:
            told = f"{value!r:.80} is no list of 1 to {SAMPLES_MAX} samples"
            fault("value.no_waveform", told, name, f"{value!r:.200}")
            return
        numbers = np.empty(len(value))
        qualities = np.empty(len(value), np.uint8)
        bad: dict[str, Any] = {}
        for index, one in enumerate(value):
            numbers[index], own, code = number_of(one)
            qualities[index] = max(quality, own)
            if code:
                bad.setdefault(code, one)
        for code, one in bad.items():
            fault(code, f"a sample {one!r:.80} gives no good reading", name, f"{one!r:.200}")
        into.add_run(channel, time_ns, numbers, qualities)

    @property
    def clock(self) -> str:
        """Who tells the times of its messages, of `domain.time_quality.TIME_SOURCES`."""
        return AGENT if self.time is None or self.times is None else DEVICE

    def _time_ns(self, sample: Any, document: Any, arrival_ns: int) -> int:
        if self.time is None or self.times is None:
            return arrival_ns
        found = at(sample, self.time)
        if found is ABSENT:
            found = at(document, self.time)
        if found is ABSENT or found is None:
            raise InvalidInput("message.time_missing", "the message tells no time")
        if isinstance(found, bool) or not isinstance(found, (str, int, float)):
            raise InvalidInput("message.time_unreadable", f"{found!r:.80} is no time")
        return self.times.read(found if isinstance(found, str) else repr(found), None)

    def _quality(self, sample: Any, document: Any, fault: TellFault) -> Quality:
        declared = self.quality
        if declared is None:
            return Quality.GOOD
        found = at(sample, declared.path)
        if found is ABSENT:
            found = at(document, declared.path)
        if found is ABSENT:
            return declared.otherwise
        quality = declared.words.get(word_of(found))
        if quality is None:
            told = f"quality {found!r:.80} is none of the declared ones"
            fault("message.quality_unknown", told, "", f"{found!r:.200}")
            return declared.otherwise
        return quality


def read_path(text: str) -> Path:
    """Return the tokens of a JSON pointer, or of a plain name at the top of a message.

    Raises
    ------
    InvalidInput
        ``mapping.pointer``

    References
    ----------
    RFC 6901, JSON Pointer.
    """
    if text and not text.startswith("/"):
        return (text,)
    tokens = text.split("/")[1:]
    if len(tokens) > POINTER_TOKENS_MAX:
        told = f"{text!r:.120} goes deeper than {POINTER_TOKENS_MAX} levels"
        raise InvalidInput("mapping.pointer", told)
    for token in tokens:
        if "~" in token.replace("~0", "").replace("~1", ""):
            told = f"{text!r:.120} has a '~' that is neither ~0 nor ~1"
            raise InvalidInput("mapping.pointer", told, hint="RFC 6901: ~0 is '~', ~1 is '/'")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)


def at(document: Any, path: Path) -> Any:
    """Return what stands at `path` in `document`, or `ABSENT`."""
    for token in path:
        if isinstance(document, dict):
            document = document.get(token, ABSENT)
        elif isinstance(document, list) and token.isascii() and token.isdigit():
            # RFC 6901 knows no leading zeros, and a long number is no index.
            fits = (token == "0" or token[0] != "0") and len(token) < 10
            index = int(token) if fits else len(document)
            document = document[index] if index < len(document) else ABSENT
        else:
            return ABSENT
    return document


def pointer_of(path: Sequence[str]) -> str:
    """Return `path` as a JSON pointer."""
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in path)


def word_of(value: Any) -> str:
    """Return a quality as a message says it, as the text that a configuration declares."""
    return value.lower() if isinstance(value, str) else orjson.dumps(value).decode()


def shown(payload: bytes) -> str:
    """Return the beginning of `payload` as text."""
    return payload[:FAULT_TEXT_MAX].decode("utf-8", "replace")
