"""`heddle model`: a trained version's file into the store, and its training into the log.

What is promoted is served to agents from there (`api.agent_stream`); promoting it is a decision of
its own, the mutation `promoteModel` or ``--promote``.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from domain.errors import InvalidInput

MANIFEST: Final = "model.json"
MANIFEST_BYTES_MAX: Final = 1024 * 1024
VERSIONS_MAX: Final = 2_000

app = typer.Typer(no_args_is_help=True, help="Versions of models: add their files.")


def register(parent: typer.Typer) -> None:
    """Add these commands to `parent`."""
    parent.add_typer(app, name="model")


@app.callback()
def models() -> None:
    """Add versions of models."""


@app.command()
def add(
    folder: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="With model.json and the file it names."),
    ],
    actor: Annotated[str, typer.Option("--actor", help="Who adds it, such as user:mara.")],
    first: Annotated[
        int, typer.Option("--from-position", min=1, help="Of the log, whence it was trained.")
    ] = 1,
    last: Annotated[
        int, typer.Option("--to-position", min=1, help="1: on recordings outside the log.")
    ] = 1,
    promote: Annotated[
        str | None, typer.Option("--promote", help="Let it serve from now on, for this reason.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Store a version's file by its hash and record its training; the same again changes nothing.

    The folder is what `python -m ml.train_anomaly --out FOLDER` writes.
    """
    told = asyncio.run(_add(folder, actor, (first, last), promote))
    if as_json:
        typer.echo(json.dumps(told))
        return
    known = "added" if told["trained"] else "it was there before"
    typer.echo(f"{told['model']} is {told['sha256']}: {known}")
    if told["promoted"]:
        typer.echo(f"{told['model']} serves from now on")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a trained version says.

    Raises
    ------
    InvalidInput
        ``model.manifest``
    """
    try:
        with (folder / MANIFEST).open("rb") as opened:
            manifest = json.loads(opened.read(MANIFEST_BYTES_MAX))
        texts = ("model", "version", "purpose", "artefact", "sha256", "code_version")
        if not all(isinstance(manifest[name], str) for name in texts):
            raise ValueError(f"{', '.join(texts)} are texts")
        manifest["seed"] = int(manifest["seed"])
        manifest["metrics"] = {k: float(v) for k, v in manifest["metrics"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            "model.manifest",
            f"{folder / MANIFEST} does not describe a trained version: {error!r:.200}",
            hint="python -m ml.train_anomaly writes one",
        ) from error
    found: dict[str, Any] = manifest
    return found


async def _add(
    folder: Path, actor: str, positions: tuple[int, int], promote: str | None
) -> dict[str, Any]:
    from api.database import open_pool
    from api.services import new_event_id, utc_now
    from api.settings import ServerSettings
    from domain.opinions.model import Metric, PromoteModel, TrainModel, model_stream
    from eventlog.commands import handle
    from eventlog.documents import ContentStore
    from eventlog.ledger import Ledger
    from eventlog.reading import read_stream

    manifest = await asyncio.to_thread(read_manifest, folder)
    settings = ServerSettings.from_environment()
    contents = ContentStore(settings.documents_url or str(settings.data_dir / "documents"))
    recording: Any = {
        "actor": actor,
        "occurred_at": utc_now(),
        "event_id": lambda _: new_event_id(),
    }
    model, version = manifest["model"], manifest["version"]
    training = TrainModel(
        model_id=model,
        version=version,
        purpose=manifest["purpose"],
        artefact_sha256=manifest["sha256"],
        training_from_position=positions[0],
        training_to_position=positions[1],
        seed=manifest["seed"],
        code_version=manifest["code_version"],
        metrics=tuple(Metric(name, value) for name, value in manifest["metrics"].items()),
    )
    # The file first: what is known to the log can be had.
    with (folder / Path(manifest["artefact"]).name).open("rb") as source:
        content = await asyncio.to_thread(
            contents.put, source, expected_sha256=training.artefact_sha256
        )
    async with open_pool(settings) as (pool, _url):
        ledger = await Ledger.open(pool, settings.ledger)
        try:
            told_before = [
                event.fact
                for event in await read_stream(ledger, model_stream(model), limit=VERSIONS_MAX)
                if event.type == "model.trained" and not event.erased
            ]
            trained = None
            if not any(
                (fact.version, fact.artefact_sha256) == (version, content.sha256)
                for fact in told_before
            ):
                trained = await handle(ledger, training, **recording)
            promoted = None
            if promote is not None:
                promoted = await handle(ledger, PromoteModel(model, version, promote), **recording)
        finally:
            await ledger.close()
    return {
        "model": f"{model}@{version}",
        "sha256": content.sha256,
        "trained": trained is not None,
        "promoted": promoted is not None and bool(promoted.events),
    }
