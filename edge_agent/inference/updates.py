"""Versions of models that the server promotes or retires: fetched, verified, kept, let serve.

The directive was signed and is verified before it comes here; the file has to have the hash that
the directive names. What serves goes on until the new version has been loaded and has answered
once. A version that was taken is kept in the state folder, so that an agent that starts without a
server starts with it. Its note says by which position of the log it serves: what an older
directive says, whoever repeats it, counts no more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from domain.directives import ModelDirective, ModelRetirement
from domain.errors import HeddleError, InvalidInput
from domain.identifiers import check_identifier
from edge_agent.inference import AnomalyObserver, check_asset_types, check_is
from edge_agent.inference.model_file import MODEL_BYTES_MAX
from edge_agent.inference.runtimes import Runtime, load_model
from edge_agent.live.window import Observer

FOLDER: Final = "models"
SERVING: Final = "serving.json"
SERVING_BYTES_MAX: Final = 4_096

Fetch = Callable[[str, int], Awaitable[bytes]]
"""Returns what the server has under a path, at most so many bytes of it."""
Taker = Callable[[ModelDirective | ModelRetirement], Awaitable[None]]

_log = logging.getLogger("heddle.edge.inference")


@dataclass(frozen=True, slots=True)
class _Note:
    """What is remembered of the version that was taken last.

    Parameters
    ----------
    position : of the directive by which it serves, or by which it was retired
    retired : why it serves no more; empty while it does
    """

    version: str = ""
    sha256: str = ""
    position: int = 0
    retired: str = ""


class ModelUpdates:
    """Takes promoted versions for the models of a configuration.

    Parameters
    ----------
    state_dir : of the agent
    fetch : such as `edge_agent.uplink.transport.Transport.fetch`
    """

    def __init__(self, agent: str, state_dir: Path, fetch: Fetch) -> None:
        self._agent = agent
        self._folder = state_dir / FOLDER
        self._fetch = fetch
        self._failed: set[str] = set()

    def takers(self, observers: Sequence[Observer]) -> dict[str, Taker]:
        """Return who takes what is said of a model, by model; restore the versions taken before."""
        takers: dict[str, Taker] = {}
        for observer in observers:
            if isinstance(observer, AnomalyObserver):
                self._restore(observer)
                takers[observer.use.model] = partial(self.take, observer)
        return takers

    async def take(
        self, observer: AnomalyObserver, directive: ModelDirective | ModelRetirement
    ) -> None:
        """Let the version of `directive` serve, or no more; what fails is told and changes nothing.

        Raises
        ------
        HeddleError, OSError
            why the version cannot serve; it was told
        """
        if directive.position < self._read_note(observer.use.model).position:
            return
        name = f"{directive.model_id}@{directive.version}"
        try:
            if isinstance(directive, ModelRetirement):
                await asyncio.to_thread(self._retire, observer, directive)
            else:
                await self._promote(observer, directive)
        except (HeddleError, OSError) as error:
            if name not in self._failed:
                self._failed.add(name)
                serving = observer.serving
                _log.error("model %s does not serve, %s goes on: %s", name, serving, error)
            raise
        if name in self._failed:
            self._failed.discard(name)
            _log.info("model %s could be taken now", name)

    async def _promote(self, observer: AnomalyObserver, directive: ModelDirective) -> None:
        if observer.serves(directive.version, directive.artefact_sha256):
            if directive.position > self._read_note(directive.model_id).position:
                await asyncio.to_thread(self._keep, directive, None)
            return
        check_identifier("model", directive.version)
        path = f"/v1/agents/{self._agent}/models/{directive.model_id}/{directive.version}"
        content = await self._fetch(path, MODEL_BYTES_MAX)
        await asyncio.to_thread(self._let_serve, observer, directive, content)
        _log.info("model %s@%s serves", directive.model_id, directive.version)

    def _let_serve(
        self, observer: AnomalyObserver, directive: ModelDirective, content: bytes
    ) -> None:
        runtime = _loaded(content, directive.artefact_sha256, observer, directive.version)
        self._keep(directive, content)
        observer.swap(runtime, directive.artefact_sha256)

    def _retire(self, observer: AnomalyObserver, directive: ModelRetirement) -> None:
        if observer.retired or observer.serving != f"{directive.model_id}@{directive.version}":
            return
        note = self._read_note(directive.model_id)
        kept = replace(note, position=directive.position, retired=directive.reason or "retired")
        self._write_note(directive.model_id, kept)
        observer.retire(kept.retired)
        _log.warning("model %s is retired: %s", observer.serving, directive.reason)

    # --- what is kept ---------------------------------------------------------------------

    def _keep(self, directive: ModelDirective, content: bytes | None) -> None:
        """Keep the version; the note that it serves is the last thing that is written.

        `content` is None where the version serves already, by the configuration's own file.
        """
        folder = self._folder / directive.model_id
        folder.mkdir(parents=True, exist_ok=True)
        if content is not None:
            _write(folder / f"{directive.version}.model", content)
        note = _Note(directive.version, directive.artefact_sha256, directive.position)
        self._write_note(directive.model_id, note)
        for old in folder.glob("*.model"):
            if old.name != f"{directive.version}.model":
                old.unlink(missing_ok=True)

    def _write_note(self, model: str, note: _Note) -> None:
        folder = self._folder / model
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / SERVING, json.dumps(asdict(note)).encode())

    def _read_note(self, model: str) -> _Note:
        """Return what is noted of `model`: an empty note where nothing is, or it is no use."""
        try:
            with (self._folder / model / SERVING).open("rb") as opened:
                told = json.loads(opened.read(SERVING_BYTES_MAX))
            return _Note(
                version=str(told["version"]),
                sha256=str(told["sha256"]),
                position=int(told.get("position", 0)),
                retired=str(told.get("retired", "")),
            )
        except FileNotFoundError:
            return _Note()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error("the note on model %s is no use: %s", model, error)
            return _Note()

    def _restore(self, observer: AnomalyObserver) -> None:
        """Let the version that was taken last serve again, if it is still whole."""
        model = observer.use.model
        note = self._read_note(model)
        if note.version and not observer.serves(note.version, note.sha256):
            try:
                version = check_identifier("model", note.version)
                with (self._folder / model / f"{version}.model").open("rb") as opened:
                    content = opened.read(MODEL_BYTES_MAX + 1)
                observer.swap(_loaded(content, note.sha256, observer, version), note.sha256)
            except (HeddleError, OSError) as error:
                _log.error("the kept version of model %s is no use: %s", model, error)
                # Which version serves has to be asked again.
                (self._folder / model / SERVING).unlink(missing_ok=True)
                return
        if note.retired:
            observer.retire(note.retired)


def _loaded(content: bytes, sha256: str, observer: AnomalyObserver, version: str) -> Runtime:
    """Return the model in `content` if it is what it should be."""
    runtime = load_model(content, sha256)
    check_is(runtime, observer.use.model)
    if runtime.description.version != version:
        raise InvalidInput(
            "model.other",
            f"the file holds {runtime.description.name}, not version {version!r}",
            value=runtime.description.version,
            limit=version,
        )
    check_asset_types(runtime, observer.use.asset_types)
    return runtime


def _write(file: Path, content: bytes) -> None:
    """Write `file` so that after a fall of power it is whole, or as it was before."""
    beside = file.with_name(f".{file.name}.new")
    with beside.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)


def statuses(observers: Sequence[Observer]) -> Mapping[str, Mapping[str, object]]:
    """Return the status of each model among `observers`, by its name."""
    return {
        observer.use.model: observer.status()
        for observer in observers
        if isinstance(observer, AnomalyObserver)
    }
