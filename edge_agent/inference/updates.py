"""Versions of models that the server promotes: fetched, verified, kept, and let serve.

The directive was signed and is verified before it comes here; the file has to have the hash that
the directive names. What serves goes on until the new version has been loaded and has answered
once. A version that was taken is kept in the state folder, so that an agent that starts without a
server starts with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from domain.directives import ModelDirective
from domain.errors import HeddleError, InvalidInput
from domain.identifiers import check_identifier
from edge_agent.inference import AnomalyObserver, check_is
from edge_agent.inference.model_file import MODEL_BYTES_MAX, check_content
from edge_agent.inference.runtimes import Runtime, load_model
from edge_agent.live.window import Observer

FOLDER: Final = "models"
SERVING: Final = "serving.json"
SERVING_BYTES_MAX: Final = 4_096

Fetch = Callable[[str, int], Awaitable[bytes]]
"""Returns what the server has under a path, at most so many bytes of it."""

_log = logging.getLogger("heddle.edge.inference")


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

    def takers(
        self, observers: Sequence[Observer]
    ) -> dict[str, Callable[[ModelDirective], Awaitable[None]]]:
        """Return who takes promoted versions, by model; restore the versions taken before."""
        takers: dict[str, Callable[[ModelDirective], Awaitable[None]]] = {}
        for observer in observers:
            if isinstance(observer, AnomalyObserver):
                self._restore(observer)
                takers[observer.use.model] = self._taker(observer)
        return takers

    def _taker(self, observer: AnomalyObserver) -> Callable[[ModelDirective], Awaitable[None]]:
        async def promoted(directive: ModelDirective) -> None:
            await self.take(observer, directive)

        return promoted

    async def take(self, observer: AnomalyObserver, directive: ModelDirective) -> None:
        """Let the version of `directive` serve; where that fails, say so and change nothing."""
        name = f"{directive.model_id}@{directive.version}"
        if observer.serves(directive.version, directive.artefact_sha256):
            return
        try:
            check_identifier("model", directive.version)
            path = f"/v1/agents/{self._agent}/models/{directive.model_id}/{directive.version}"
            content = await self._fetch(path, MODEL_BYTES_MAX)
            await asyncio.to_thread(self._let_serve, observer, directive, content)
        except (HeddleError, OSError) as error:
            if name not in self._failed:
                self._failed.add(name)
                _log.error("model %s does not serve: %s", name, error)
            raise
        self._failed.discard(name)
        _log.info("model %s serves", name)

    def _let_serve(
        self, observer: AnomalyObserver, directive: ModelDirective, content: bytes
    ) -> None:
        runtime = _loaded(content, directive.artefact_sha256, observer, directive.version)
        self._keep(directive, content)
        observer.swap(runtime, directive.artefact_sha256)

    # --- what is kept ---------------------------------------------------------------------

    def _keep(self, directive: ModelDirective, content: bytes) -> None:
        """Keep the version; the note that it serves is the last thing that is written."""
        folder = self._folder / directive.model_id
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{directive.version}.model", content)
        note = {"version": directive.version, "sha256": directive.artefact_sha256}
        _write(folder / SERVING, json.dumps(note).encode())
        for old in folder.glob("*.model"):
            if old.name != f"{directive.version}.model":
                old.unlink(missing_ok=True)

    def _restore(self, observer: AnomalyObserver) -> None:
        """Let the version that was taken last serve again, if it is still whole."""
        folder = self._folder / observer.use.model
        try:
            with (folder / SERVING).open("rb") as opened:
                note = json.loads(opened.read(SERVING_BYTES_MAX))
            version = check_identifier("model", note["version"])
            if observer.serves(version, note["sha256"]):
                return
            with (folder / f"{version}.model").open("rb") as opened:
                content = opened.read(MODEL_BYTES_MAX + 1)
            runtime = _loaded(content, note["sha256"], observer, version)
        except FileNotFoundError:
            return
        except (HeddleError, OSError, ValueError, KeyError, TypeError) as error:
            _log.error("the kept version of model %s is no use: %s", observer.use.model, error)
            return
        observer.swap(runtime, note["sha256"])


def _loaded(content: bytes, sha256: str, observer: AnomalyObserver, version: str) -> Runtime:
    """Return the model in `content` if it is what it should be."""
    check_content(content, sha256)
    runtime = load_model(content, sha256)
    check_is(runtime, observer.use.model)
    if runtime.description.version != version:
        raise InvalidInput(
            "model.other",
            f"the file holds {runtime.description.name}, not version {version!r}",
            value=runtime.description.version,
            limit=version,
        )
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
