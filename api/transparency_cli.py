"""`heddle verify`, `prove`, `export-bundle`, `verify-bundle`, `rotate-key`, `acknowledge-loss`."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from domain.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from api.settings import ServerSettings
    from eventlog.bundles.lines import BundleReport
    from eventlog.database import Pool
    from eventlog.transparency.notes import Note, VerifierKey
    from eventlog.transparency.signing import CheckpointSigner
    from eventlog.verification.findings import Erased, Finding

FOUND_SOMETHING: Final = 1

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[Path, typer.Option("--out", dir_okay=False, help="File to write.")]
Vkeys = Annotated[
    list[str] | None,
    typer.Option("--vkey", help="A key you trust (as /tlog/<ledger>/vkey gives it); repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command("verify")(verify)
    app.command("prove")(prove)
    app.command("export-bundle")(export_bundle)
    app.command("verify-bundle")(verify_bundle)
    app.command("rotate-key")(rotate_key)
    app.command("acknowledge-loss")(acknowledge_loss)


def verify(
    vkey: Vkeys = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", exists=True, help="A checkpoint you kept; repeatable."),
    ] = None,
    skip_archive: Annotated[
        bool, typer.Option("--skip-archive", help="Do not read payloads from the archive.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute the whole log and compare it with what was signed; exit 1 when they differ."""
    asyncio.run(_verify(vkey or [], checkpoint or [], archive=not skip_archive, as_json=as_json))


def prove(
    event: Annotated[str, typer.Argument(help="Position or event id.")],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Write the proof that an event is in the log, for whoever holds the log's public key."""
    asyncio.run(_prove(event, out, as_json=as_json))


def export_bundle(
    stream: Annotated[
        str, typer.Argument(help="A stream, such as part:SN-1042, or positions, such as 10-500.")
    ],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Write events with payloads, proofs and checkpoint into one file to verify elsewhere."""
    asyncio.run(_export(stream, out, as_json=as_json))


def verify_bundle(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A bundle or a .tlog-proof.")
    ],
    vkey: Vkeys = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle or a proof without any database; exit 1 when something is wrong."""
    from eventlog.transparency.proofs import PROOF_MAGIC

    trusted = _keys(vkey or [])
    with file.open("rb") as opened:
        is_proof = opened.read(len(PROOF_MAGIC)) == PROOF_MAGIC.encode()
    if is_proof:
        _check_proof(file, trusted, as_json=as_json)
    else:
        _check_bundle(file, trusted, as_json=as_json)


def rotate_key(
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log.")],
    actor: Annotated[str, typer.Option("--actor", help="Who does it.")] = "user:local",
    as_json: AsJson = False,
) -> None:
    """Let a new key sign checkpoints from now on; the log records it."""
    asyncio.run(_rotate(actor, reason, as_json=as_json))


def acknowledge_loss(
    origin: Annotated[
        str, typer.Option("--origin", help="The log's name in its checkpoints from now on.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="What happened, for the log.")],
    actor: Annotated[str, typer.Option("--actor", help="Who answers for it.")] = "user:local",
    as_json: AsJson = False,
) -> None:
    """Go on signing under another origin after a restore that lost signed events.

    The log records what is missing, and the old origin is never signed for again. Only where the
    missing events cannot be brought back.
    """
    asyncio.run(_acknowledge(origin, actor, reason, as_json=as_json))


# --- with the database --------------------------------------------------------------------


@asynccontextmanager
async def _opened() -> AsyncIterator[tuple[Pool, ServerSettings]]:
    from api.database import open_pool
    from api.settings import ServerSettings

    settings = ServerSettings.from_environment()
    async with open_pool(settings) as (pool, _url):
        yield pool, settings


@asynccontextmanager
async def _signing() -> AsyncIterator[tuple[CheckpointSigner, ServerSettings]]:
    from api.transparency import open_signer

    async with _opened() as (pool, settings):
        yield await open_signer(pool, settings), settings


async def _verify(
    vkeys: Sequence[str], files: Sequence[Path], *, archive: bool, as_json: bool
) -> None:
    from api.transparency import signing_keys
    from eventlog.transparency.notes import Note
    from eventlog.verification.whole_log import verify_ledger

    async with _opened() as (pool, settings):
        keys = signing_keys(settings)
        own = keys.verifier()
        trusted = _keys(vkeys) or ([] if own is None else [own])
        kept = [Note.parse(file.read_bytes()) for file in files]
        published = keys.published()
        held: list[Note] = [*kept, *([] if published is None else [published])]
        report = await verify_ledger(
            pool, settings.ledger, trusted=trusted, held=held, archive=archive
        )
    document = {
        "ledger": report.ledger,
        "clean": report.clean,
        "events": report.size,
        "root": report.root.hex(),
        "payloads": report.payloads,
        "payloads_archived": report.payloads_archived,
        "payloads_erased": report.payloads_erased,
        "erased": [asdict(erased) for erased in report.erased],
        "tiles": report.tiles,
        "checkpoints": report.checkpoints,
        "signatures": report.signatures,
        "findings": _documents(report.findings),
        "findings_left_out": report.findings_left_out,
    }
    lines = [
        f"{report.ledger}: {report.size} events, root {report.root.hex()}",
        f"compared with {report.payloads} payloads ({report.payloads_archived} are archived"
        f"{'' if archive else ' and were not read'}, {report.payloads_erased} erased), "
        f"{report.tiles} tiles, {report.checkpoints} checkpoints "
        f"({report.signatures} signatures verified)",
        *([] if trusted else ["no key is known: signatures were not verified (--vkey)"]),
        *_erased_lines(report.erased),
    ]
    _report(document, lines, report.findings, report.findings_left_out, as_json=as_json)


async def _prove(event: str, out: Path, *, as_json: bool) -> None:
    from eventlog.transparency.checkpoints import Checkpoint
    from eventlog.transparency.proofs import prove as prove_position

    async with _signing() as (signer, _settings):
        position = await _position(signer, event)
        note = await signer.sign()
        proof = await prove_position(signer.tiles, position, note)
    await asyncio.to_thread(out.write_text, proof.text)
    size = Checkpoint.parse(note.text).size
    _say(
        {"position": position, "size": size, "file": str(out)},
        [f"event {position} is in the log of {size} events: {out}"],
        as_json=as_json,
    )


async def _position(signer: CheckpointSigner, event: str) -> int:
    tiles = signer.tiles
    if event.isascii() and event.isdigit():
        head = (await tiles.head()).size
        if not 1 <= int(event) <= head:
            raise NotFound(
                "event.unknown", f"the log has {head} events, none at {event}", value=event
            )
        return int(event)
    try:
        event_id = uuid.UUID(event)
    except ValueError as error:
        raise InvalidInput(
            "event.malformed", f"{event!r:.80} is neither a position nor an event id", value=event
        ) from error
    position: int | None = await tiles.pool.fetchval(
        "select position from event_identity where ledger_id = $1 and event_id = $2",
        tiles.ledger_id,
        event_id,
    )
    if position is None:
        raise NotFound("event.unknown", f"no event has the id {event_id}", value=event)
    return position


async def _export(wanted: str, out: Path, *, as_json: bool) -> None:
    from eventlog.bundles.streams import Selection, export_bundle, select_stream
    from eventlog.transparency.checkpoints import Checkpoint

    async with _signing() as (signer, _settings):
        note = await signer.sign()
        size = Checkpoint.parse(note.text).size
        first, dash, last = wanted.partition("-")
        if dash and first.isdigit() and last.isdigit():
            selection = Selection(None, int(first), int(last))
        else:
            selection = await select_stream(signer.tiles, wanted, size)
        key = await asyncio.to_thread(signer.keys.current)
        count = await export_bundle(signer.tiles, note, key.verifier, selection, out)
    _say(
        {"events": count, "size": size, "vkey": key.verifier.vkey, "file": str(out)},
        [f"{count} events, proved against the log of {size}: {out}"],
        as_json=as_json,
    )


async def _rotate(actor: str, reason: str, *, as_json: bool) -> None:
    from eventlog.ledger import Ledger

    async with _signing() as (signer, settings):
        ledger = await Ledger.open(signer.tiles.pool, settings.ledger)
        try:
            key = await signer.rotate(ledger, actor=actor, reason=reason)
        finally:
            await ledger.close()
    _say({"vkey": key.vkey}, [f"checkpoints are signed by {key.vkey} from now on"], as_json=as_json)


async def _acknowledge(origin: str, actor: str, reason: str, *, as_json: bool) -> None:
    from eventlog.ledger import Ledger

    async with _signing() as (signer, settings):
        ledger = await Ledger.open(signer.tiles.pool, settings.ledger)
        try:
            key = await signer.acknowledge_loss(ledger, origin=origin, actor=actor, reason=reason)
        finally:
            await ledger.close()
    _say(
        {"origin": origin, "vkey": key.vkey},
        [
            f"recorded; the log is signed as {origin} by {key.vkey} from now on",
            f"set HEDDLE_ORIGIN={origin} for every server of this ledger, start them again, and "
            "give auditors the key",
        ],
        as_json=as_json,
    )


# --- without a database -------------------------------------------------------------------


def _check_bundle(file: Path, trusted: Sequence[VerifierKey], *, as_json: bool) -> None:
    from eventlog.bundles.streams import verify_bundle as check

    report = check(file, trusted)
    document = {
        "ledger": report.ledger,
        "clean": report.clean,
        "trusted": report.trusted,
        "origin": report.checkpoint.origin,
        "vkey": report.vkey,
        "size": report.checkpoint.size,
        "selection": report.selection.document,
        "events": report.events,
        "payloads": report.payloads,
        "payloads_absent": report.payloads_absent,
        "nodes": report.nodes,
        "edges": report.edges,
        "edges_unshown": report.edges_unshown,
        "documents": report.documents,
        "documents_named": report.documents_named,
        "signatures": report.signatures,
        "erased": [asdict(erased) for erased in report.erased],
        "findings": _documents(report.findings),
    }
    lines = [
        f"{report.events} events of {report.ledger}, {_chosen(report)}, in the log of "
        f"{report.checkpoint.size} that {report.checkpoint.origin} signed",
        *_warning(report.trusted, report.vkey),
        *_erased_lines(report.erased),
    ]
    _report(document, lines, report.findings, 0, as_json=as_json)


def _chosen(report: BundleReport) -> str:
    """Return which events a bundle holds."""
    from eventlog.bundles.lines import Selection

    chosen = report.selection
    if isinstance(chosen, Selection):
        return f"{chosen.stream or 'positions'} {chosen.first} to {chosen.last}"
    return (
        f"all that the trace of {', '.join(chosen.roots)} ({chosen.direction.lower()}) as of "
        f"{chosen.position} rests on: {report.nodes} things and {report.edges} links, "
        f"{report.signatures} signatures, {report.documents} of {report.documents_named} files"
    )


def _check_proof(file: Path, trusted: Sequence[VerifierKey], *, as_json: bool) -> None:
    from eventlog.transparency.proofs import PROOF_BYTES_MAX, TlogProof

    if not trusted:
        raise InvalidInput(
            "proof.no_key", "a proof does not name a key; say whom you trust", hint="--vkey"
        )
    with file.open() as opened:
        proof = TlogProof.parse(opened.read(PROOF_BYTES_MAX + 1))
    checkpoint = proof.verify(trusted)
    assert proof.extra is not None, "verified with its entry"
    _say(
        {
            "clean": True,
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "index": proof.index,
            "entry": json.loads(proof.extra),
        },
        [
            f"event {proof.index + 1} is in the log of {checkpoint.size} that "
            f"{checkpoint.origin} signed:",
            proof.extra.decode(),
        ],
        as_json=as_json,
    )


def _warning(trusted: bool, vkey: str) -> list[str]:
    if trusted:
        return []
    return [
        f"judged by the key that the bundle itself names, {vkey}; if you know it to be the "
        "log's, say so with --vkey"
    ]


def _erased_lines(erased: Sequence[Erased]) -> list[str]:
    return [
        f"event {each.position} ({each.stream}): erased by event {each.erased_by}"
        for each in erased
    ]


def _keys(vkeys: Sequence[str]) -> list[VerifierKey]:
    from eventlog.transparency.notes import VerifierKey

    return [VerifierKey.parse(vkey) for vkey in vkeys]


# --- what is printed ----------------------------------------------------------------------


def _documents(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in findings]


def _report(
    document: dict[str, Any],
    lines: Sequence[str],
    findings: Sequence[Finding],
    left_out: int,
    *,
    as_json: bool,
) -> None:
    verdict = [
        *(f"  {finding.code}: {finding.message}" for finding in findings),
        *([f"  and {left_out} more"] if left_out else []),
        f"{len(findings) + left_out} findings" if findings else "clean: nothing was found",
    ]
    _say(document, [*lines, *verdict], as_json=as_json)
    if findings:
        raise typer.Exit(FOUND_SOMETHING)


def _say(document: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    text = json.dumps(document, default=str) if as_json else "\n".join(lines)
    sys.stdout.write(text + "\n")
