"""The report of a trace for people: one HTML file that needs nothing else and prints well.

It is made of a bundle and of nothing besides, after the bundle was verified: what it says can be
checked by whoever has the bundle. All text in it comes from a log and is escaped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from api.graph_drawing import draw
from domain.documents.document import DocumentReleased, revision_name
from domain.records import RecordCorrected, RecordSigned
from eventlog.bundles.lines import BundleReport
from eventlog.bundles.trace_reading import BundledEvent, read_trace_bundle
from eventlog.bundles.traces import TraceEvidence
from eventlog.transparency.notes import VerifierKey

EVENTS_SHOWN_MAX: Final = 2_000
"""Events in the timeline and in full; the bundle has them all."""

THINGS_SHOWN_MAX: Final = 2_000
PAYLOAD_SHOWN_MAX: Final = 4_000
FINDINGS_SHOWN_MAX: Final = 50

STYLE: Final = """
:root { --ink: #1c2733; --faint: #5d6b78; --line: #d5dce2; --loud: #b3261e; --good: #1b6b3a }
* { box-sizing: border-box }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { margin: .3rem 0 } .faint { color: var(--faint) } .loud { color: var(--loud) }
.good { color: var(--good) }
table { border-collapse: collapse; width: 100%; font-size: 12.5px }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { color: var(--faint); font-weight: 600; white-space: nowrap }
code, pre { font: 11.5px/1.4 ui-monospace, monospace; overflow-wrap: anywhere }
pre { white-space: pre-wrap; background: #f6f8fa; padding: .5rem; margin: .25rem 0 }
.graph { overflow-x: auto; border: 1px solid var(--line) }
svg text { font: 11.5px system-ui, sans-serif; fill: var(--ink) }
svg .note { font-size: 9.5px; fill: var(--faint) }
svg .box { stroke: #90a0ae } svg .root { stroke: var(--ink); stroke-width: 2.5 }
svg .loud { stroke: var(--loud); stroke-width: 2 } svg .few { stroke-dasharray: 4 3 }
svg .link { fill: none; stroke: #607080; stroke-width: 1; opacity: .7 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0 }
dt { color: var(--faint) } dd { margin: 0; overflow-wrap: anywhere }
@page { size: A4 landscape; margin: 12mm }
@media print {
  body { margin: 0; max-width: none; font-size: 10.5pt }
  .graph { overflow: visible; border: 0 } svg { width: 100%; height: auto; max-height: 165mm }
  h2 { break-after: avoid } tr, pre, dl { break-inside: avoid }
  thead { display: table-header-group }
  section.page { break-before: page }
}
"""


def write_report(bundle: Path, path: Path, trusted: Sequence[VerifierKey] = ()) -> BundleReport:
    """Verify `bundle`, write the report of what it holds to `path`, and return what it shows.

    Raises
    ------
    InvalidInput
        as `read_trace_bundle`
    """
    shown, evidence, events = read_trace_bundle(bundle, trusted)
    path.write_text(report_of(shown, evidence, events, bundle.name), encoding="utf-8")
    return shown


def report_of(
    shown: BundleReport,
    evidence: TraceEvidence,
    events: Sequence[BundledEvent],
    bundle_name: str,
) -> str:
    """Return the report as HTML."""
    title = f"Evidence for {', '.join(evidence.selection.roots)}"
    sections = [
        _head(shown, evidence, title),
        _summary(evidence),
        _graph(evidence),
        _corrections(events),
        _signatures(shown, events),
        _documents(shown, events),
        _timeline(events),
        _full_events(events),
        _proof(shown, evidence, bundle_name),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


# --- what it is about ---------------------------------------------------------------------


def _head(shown: BundleReport, evidence: TraceEvidence, title: str) -> str:
    asked = evidence.selection
    way = {"BACK": "what it came from", "FORWARD": "what it led to"}.get(
        asked.direction, "what it came from and what it led to"
    )
    if shown.clean:
        verdict = '<p class="good">Every event below was checked against its proof.</p>'
    else:
        found = "".join(
            f"<li>{escape(finding.code)}: {escape(finding.message)}</li>"
            for finding in shown.findings[:FINDINGS_SHOWN_MAX]
        )
        verdict = f'<p class="loud">{len(shown.findings)} findings:</p><ul>{found}</ul>'
    if not shown.trusted:
        verdict += (
            '<p class="faint">Judged by the key that the bundle itself names; compare it with '
            "the log's.</p>"
        )
    rows = {
        "Ledger": f"{shown.ledger}, signed as {shown.checkpoint.origin}",
        "Shows": way,
        "As known": f"when the log ended at position {asked.position:,}",
        "As true": "whenever it was" if asked.valid_at is None else f"at {asked.valid_at}",
        "Holds": f"{shown.events:,} events, {shown.nodes:,} things, {shown.edges:,} links"
        + ("" if asked.complete else "; the trace was cut: there is more"),
    }
    return f"<header><h1>{escape(title)}</h1>{_definitions(rows)}{verdict}</header>"


def _definitions(rows: Mapping[str, str]) -> str:
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f"<dl>{told}</dl>"


def _summary(evidence: TraceEvidence) -> str:
    counts: dict[str, Counter[str]] = {}
    for node in evidence.nodes:
        counts.setdefault(node.kind, Counter())[node.state] += 1
    rows = [
        (
            _words(kind),
            f"{states.total():,}",
            ", ".join(f"{count:,} {_words(state)}" for state, count in states.most_common()),
        )
        for kind, states in sorted(counts.items())
    ]
    missing = [node.key for node in evidence.nodes if node.state == "MENTIONED"]
    note = ""
    if missing:
        named = ", ".join(missing[:20]) + (" and others" if len(missing) > 20 else "")
        note = f'<p class="loud">Known only by name, described by nobody: {escape(named)}</p>'
    return _section("What was traced", _table(("Kind", "Count", "Standing"), rows) + note)


def _graph(evidence: TraceEvidence) -> str:
    drawing, summarised = draw(evidence.nodes, evidence.edges, evidence.selection.roots)
    note = (
        f'<p class="faint">{summarised:,} things are drawn as counts only; all are in the '
        "bundle.</p>"
        if summarised
        else ""
    )
    legend = '<p class="faint">Causes on the left, effects on the right.</p>'
    return _section("Graph", f'{legend}<div class="graph">{drawing}</div>{note}', page=True)


# --- what happened ------------------------------------------------------------------------


def _corrections(events: Sequence[BundledEvent]) -> str:
    by_id = {event.envelope["event_id"]: event for event in events}
    rows = []
    for event in events:
        fact = event.fact
        if not isinstance(fact, RecordCorrected):
            continue
        wrong = by_id.get(str(fact.corrected_event_id))
        true = None if fact.replacement is None else json.loads(fact.replacement)
        rows.append(
            (
                fact.stream,
                f"{fact.corrected_position:,} to {event.envelope['position'] - 1:,}",
                _differences(wrong, true, old=True),
                f"{event.envelope['position']:,}",
                _differences(wrong, true, old=False),
                fact.reason,
                event.envelope["actor"],
            )
        )
    if not rows:
        return ""
    heads = (
        "Of",
        "Said from position",
        "What was said",
        "Known since",
        "What was true",
        "Why",
        "By",
    )
    return _section("Corrections: what was known when", _table(heads, rows))


def _differences(wrong: BundledEvent | None, true: Any, *, old: bool) -> str:
    """Return what a correction changed: what was said, or what is true instead."""
    said = None
    if wrong is not None and wrong.payload is not None:
        said = json.loads(wrong.payload)
    if true is None:
        whole = "" if wrong is None else wrong.envelope["type"]
        return f"{whole} {_brief(said)}" if old else "it did not happen"
    if not isinstance(said, dict):
        return "not in this bundle" if old else _brief(true)
    changed = [name for name in true if said.get(name) != true[name]]
    source = said if old else true
    return "; ".join(f"{name}: {_brief(source.get(name))}" for name in changed) or "the same"


def _signatures(shown: BundleReport, events: Sequence[BundledEvent]) -> str:
    broken = {
        finding.position for finding in shown.findings if finding.code == "bundle.record_signature"
    }
    rows = [
        (
            event.fact.signer_name,
            event.fact.signer,
            _words(event.fact.meaning.name),
            event.envelope["occurred_at"],
            f"{event.fact.signed_position:,} on {event.fact.stream}",
            event.fact.signed_sha256,
            "does not hold" if event.envelope["position"] in broken else "holds",
        )
        for event in events
        if isinstance(event.fact, RecordSigned)
    ]
    if not rows:
        return ""
    heads = ("Signed by", "Account", "Meaning", "When", "Event", "Its leaf", "Binding")
    return _section("Signatures (21 CFR Part 11)", _table(heads, rows))


def _documents(shown: BundleReport, events: Sequence[BundledEvent]) -> str:
    rows = [
        (
            revision_name(event.fact.document_id, event.fact.revision),
            event.fact.title,
            _words(event.fact.kind.name),
            f"{event.fact.size_bytes:,}",
            event.fact.sha256,
        )
        for event in events
        if isinstance(event.fact, DocumentReleased)
    ]
    if not rows:
        return ""
    note = f'<p class="faint">{shown.documents:,} of their files are in the bundle.</p>'
    heads = ("Revision", "Title", "Kind", "Bytes", "SHA-256")
    return _section("Documents", _table(heads, rows[:THINGS_SHOWN_MAX]) + note)


def _timeline(events: Sequence[BundledEvent]) -> str:
    told = sorted(events, key=lambda e: (e.envelope["occurred_at"], e.envelope["position"]))
    rows = [
        (
            event.envelope["occurred_at"],
            event.envelope["recorded_at"],
            event.envelope["stream"],
            event.envelope["type"],
            event.envelope["actor"],
            f"{event.envelope['position']:,}",
        )
        for event in told[:EVENTS_SHOWN_MAX]
    ]
    heads = ("True since", "Known since", "Of", "What", "By", "Position")
    return _section("Timeline", _table(heads, rows) + _left_out(len(told)), page=True)


def _full_events(events: Sequence[BundledEvent]) -> str:
    shown = []
    for event in events[:EVENTS_SHOWN_MAX]:
        envelope = event.envelope
        shown.append(
            "<tr><td>{position:,}</td><td>{type} on {stream}, version {version}<br>"
            "<code>{leaf}</code><pre>{payload}</pre></td></tr>".format(
                position=envelope["position"],
                type=escape(envelope["type"]),
                stream=escape(envelope["stream"]),
                version=envelope["version"],
                leaf=event.leaf.hex(),
                payload=escape(_payload(event)),
            )
        )
    table = (
        "<table><thead><tr><th>Position</th><th>Event, leaf hash and payload</th></tr></thead>"
        f"<tbody>{''.join(shown)}</tbody></table>"
    )
    return _section("Events", table + _left_out(len(events)), page=True)


def _payload(event: BundledEvent) -> str:
    if event.payload is None:
        return f"not in the bundle; SHA-256 {event.envelope['payload_sha256']}"
    if event.fact is None:
        return f"{len(event.payload):,} bytes; SHA-256 {event.envelope['payload_sha256']}"
    text = json.dumps(json.loads(event.payload), ensure_ascii=False)
    return text if len(text) <= PAYLOAD_SHOWN_MAX else f"{text[:PAYLOAD_SHOWN_MAX]} …"


def _left_out(events: int) -> str:
    left = events - EVENTS_SHOWN_MAX
    return f'<p class="faint">and {left:,} more in the bundle</p>' if left > 0 else ""


# --- how to check it ----------------------------------------------------------------------


def _proof(shown: BundleReport, evidence: TraceEvidence, bundle_name: str) -> str:
    checkpoint = shown.checkpoint
    command = f"heddle verify-bundle {bundle_name} --vkey {shown.vkey}"
    rows = {
        "Log": checkpoint.origin,
        "Size": f"{checkpoint.size:,} events",
        "Root": checkpoint.root.hex(),
        "Key": shown.vkey,
    }
    text = (
        "<p>Each event's leaf hash is the SHA-256 of a zero byte and its canonical envelope (RFC "
        "8785), in which its payload's SHA-256 stands. The bundle holds the path from each leaf to "
        "the root above (RFC 6962), and the signed checkpoint that names it. Get the key from "
        "whoever runs the log, not from here, and check the bundle without any database:</p>"
        f"<pre>{escape(command)}</pre>"
        "<p>A bundle shows that all in it is in the log, unchanged, and that the log says each "
        "link. It cannot show that nothing else belongs to the trace; for that the log itself has "
        "to be read.</p>"
    )
    if evidence.selection.position < checkpoint.size:
        text += (
            f"<p>The log went on after position {evidence.selection.position:,}: what was "
            "recorded later is left out on purpose.</p>"
        )
    return _section("Proof", _definitions(rows) + text)


# --- pieces -------------------------------------------------------------------------------


def _section(title: str, content: str, *, page: bool = False) -> str:
    begins = '<section class="page">' if page else "<section>"
    return f"{begins}<h2>{escape(title)}</h2>{content}</section>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]} …"


def _words(name: str) -> str:
    return name.lower().replace("_", " ")
