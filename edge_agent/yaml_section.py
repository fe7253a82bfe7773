"""Reading YAML so that every fault can name its file, line and key, and all are told at once.

A `Section` is one mapping of a document. Asking it for a key returns the value, or None after
noting the fault; `finish` notes the keys nobody asked for. This file knows no key of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from domain.errors import HeddleError, InvalidInput

DOCUMENT_BYTES_MAX: Final = 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a document."""

    file: str
    line: int
    key: str
    code: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        told = f"{self.file}:{self.line}: {self.key or 'document'}: {self.code}: {self.message}"
        return f"{told} ({self.hint})" if self.hint else told


class ConfigurationFaults(InvalidInput):
    """Everything that is wrong with a document (``configuration.invalid``)."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        ordered = tuple(sorted(dict.fromkeys(faults), key=lambda fault: fault.line))
        count = "one fault" if len(ordered) == 1 else f"{len(ordered)} faults"
        super().__init__("configuration.invalid", f"{count} in {ordered[0].file}")
        self.faults = ordered

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


def read_document(file: Path) -> Section:
    """Return the mapping that the YAML `file` holds.

    Raises
    ------
    ConfigurationFaults
        ``configuration.file_missing``, ``configuration.too_large`` or
        ``configuration.malformed`` when there is no such mapping.
    """
    name = str(file)
    try:
        with file.open("rb") as opened:
            raw = opened.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationFaults(
            [Fault(name, 1, "", "configuration.file_missing", error.strerror or str(error))]
        ) from error
    if len(raw) > DOCUMENT_BYTES_MAX:
        told = f"the file takes more than {DOCUMENT_BYTES_MAX} bytes"
        raise ConfigurationFaults([Fault(name, 1, "", "configuration.too_large", told)])
    try:
        node = yaml.compose(raw.decode(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        told = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = 1 if mark is None else mark.line + 1
        raise ConfigurationFaults(
            [Fault(name, line, "", "configuration.malformed", f"not readable as YAML: {told}")]
        ) from error
    if not isinstance(node, yaml.MappingNode):
        told = "the document is not a mapping of keys to values"
        raise ConfigurationFaults([Fault(name, 1, "", "configuration.malformed", told)])
    return Section(name, "", node, [])


class Section:
    """One mapping of a document, and the faults noted so far in the whole of it."""

    def __init__(self, file: str, path: str, node: yaml.MappingNode, faults: list[Fault]) -> None:
        self.file = file
        self.path = path
        self.faults = faults
        self.line = node.start_mark.line + 1
        self._node = node
        self._asked: set[str] = set()
        self._nodes: dict[str, yaml.Node] = {}
        self._key_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in self._nodes:
                self._note(line, key, "configuration.key_repeated", f"{key!r} stands here twice")
            self._nodes[key] = value_node
            self._key_lines[key] = line

    # --- noting faults --------------------------------------------------------------------

    def fault(self, key: str, code: str, message: str, hint: str = "") -> None:
        """Note that the value of `key` is wrong."""
        line = self._nodes[key].start_mark.line + 1 if key in self._nodes else self.line
        self._note(line, key, code, message, hint)

    def attempt(self, key: str, check: Callable[[], T]) -> T | None:
        """Return what `check` returns, or None after noting the error it raises at `key`."""
        try:
            return check()
        except HeddleError as error:
            self.fault(key, error.code, error.message, error.hint)
            return None

    def finish(self) -> None:
        """Note every key that nobody asked for."""
        for key in self._nodes.keys() - self._asked:
            self._note(
                self._key_lines[key],
                key,
                "configuration.unknown_key",
                f"{key!r} means nothing here",
                f"known keys: {', '.join(sorted(self._asked))}" if self._asked else "",
            )

    def _note(self, line: int, key: str, code: str, message: str, hint: str = "") -> None:
        path = f"{self.path}.{key}" if self.path and key else self.path or key
        self.faults.append(Fault(self.file, line, path, code, message, hint))

    # --- asking for values ----------------------------------------------------------------

    def present(self) -> list[str]:
        """Return the keys that are there, in their order."""
        return list(self._nodes)

    @property
    def declared(self) -> str:
        """All that stands in this mapping, as one text: the same for the same declaration."""
        text: str = yaml.serialize(self._node, Dumper=yaml.SafeDumper)
        return text

    def has(self, key: str) -> bool:
        """Return whether `key` is there, and count it as known."""
        self._asked.add(key)
        return key in self._nodes

    def text(self, key: str) -> str | None:
        """Return the text at `key`, which must be there."""
        node = self._required(key)
        return None if node is None else self._text(key, node)

    def texts(self, key: str) -> list[str] | None:
        """Return the text or the list of texts at `key`, which must be there and not empty."""
        node = self._required(key)
        if not isinstance(node, yaml.SequenceNode):
            single = None if node is None else self._text(key, node)
            return None if single is None else [single]
        found = [text for item in node.value if (text := self._text(key, item)) is not None]
        if not node.value:
            self.fault(key, "configuration.empty", f"{key!r} lists nothing")
        return found if node.value and len(found) == len(node.value) else None

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str | None:
        """Return the text at `key`, one of `choices`, or `default` where the key is absent."""
        if default is not None and not self.has(key):
            return default
        text = self.text(key)
        if text is not None and text not in choices:
            known = f"one of: {', '.join(choices)}"
            self.fault(key, "configuration.unknown_choice", f"{text!r} is not known", known)
            return None
        return text

    def number(
        self, key: str, least: float, most: float, default: float | None = None
    ) -> float | None:
        """Return the number at `key`, `least` to `most`, or `default` where it is absent."""
        if default is not None and not self.has(key):
            return float(default)
        node = self._required(key)
        value = None if node is None else _scalar(node)
        if node is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            self.fault(key, "configuration.wrong_type", f"{_shown(value)} is not a number")
            return None
        if not least <= value <= most:
            told = f"{value} is not between {least:g} and {most:g}"
            self.fault(key, "configuration.out_of_range", told)
            return None
        return float(value)

    def whole_number(
        self, key: str, least: int, most: int, default: int | None = None
    ) -> int | None:
        """Return the whole number at `key`, `least` to `most`, or `default` where it is absent."""
        value = self.number(key, least, most, default)
        if value is not None and not value.is_integer():
            self.fault(key, "configuration.wrong_type", f"{value} is not a whole number")
            return None
        return None if value is None else int(value)

    def plain(self, key: str) -> object:
        """Return the scalar at `key` as YAML reads it, or None where there is no scalar."""
        value = _scalar(self._nodes[key]) if self.has(key) else None
        return None if isinstance(value, yaml.Node) else value

    def section(self, key: str) -> Section | None:
        """Return the mapping at `key`, which must be there."""
        node = self._required(key)
        return None if node is None else self._section(key, key, node)

    def child(self, key: str) -> Section | None:
        """Return the mapping at `key`, or None where there is none; that is no fault."""
        if not self.has(key) or not isinstance(self._nodes[key], yaml.MappingNode):
            return None
        return self._section(key, key, self._nodes[key])

    def sections(self, key: str) -> list[Section]:
        """Return the list of mappings at `key`, which must be there and not empty."""
        node = self._required(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.fault(key, "configuration.wrong_type", f"{key!r} is not a list")
            return []
        if not node.value:
            self.fault(key, "configuration.empty", f"{key!r} lists nothing")
        found = [self._section(key, f"{key}[{i}]", item) for i, item in enumerate(node.value)]
        return [section for section in found if section is not None]

    def _required(self, key: str) -> yaml.Node | None:
        if not self.has(key):
            self.fault(key, "configuration.key_missing", f"{key!r} is missing")
            return None
        return self._nodes[key]

    def _text(self, key: str, node: yaml.Node) -> str | None:
        value = _scalar(node)
        if isinstance(value, str) and value:
            return value
        told = f"{_shown(value)} is not a text"
        line = node.start_mark.line + 1
        self._note(line, key, "configuration.wrong_type", told, "put it in quotes")
        return None

    def _section(self, key: str, path: str, node: yaml.Node) -> Section | None:
        if not isinstance(node, yaml.MappingNode):
            self.fault(key, "configuration.wrong_type", f"{path!r} is not a mapping")
            return None
        whole_path = f"{self.path}.{path}" if self.path else path
        return Section(self.file, whole_path, node, self.faults)


def _scalar(node: yaml.Node) -> Any:
    """Return the plain value of `node`; a mapping or a list is returned as itself."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        return node.value


def _shown(value: Any) -> str:
    return "a mapping or list" if isinstance(value, yaml.Node) else f"{value!r:.80}"
