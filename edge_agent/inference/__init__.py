"""Inference beside the machine: models by version, verified, exchanged while they serve.

`configure` reads what a configuration's ``models`` declare; `docs/models.md` is its reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from domain.asset_types import asset_types
from domain.errors import HeddleError, InvalidInput
from domain.identifiers import check_identifier
from domain.opinions.model import split_version
from edge_agent.inference.guarded import FallbackRule, GuardedModel
from edge_agent.inference.model_file import MODEL_BYTES_MAX
from edge_agent.inference.observer import AnomalyObserver, ModelUse
from edge_agent.inference.runtimes import Runtime, load_model
from edge_agent.inference.verdicts import VerdictRule
from edge_agent.live.window import Observer
from edge_agent.yaml_section import Section

__all__ = ["AnomalyObserver", "carried_over", "configure", "input_spans_ns"]

MODELS_MAX: Final = 100


def configure(
    document: Section, agent: str, folder: Path, asset_types_by_source: Mapping[str, str]
) -> tuple[AnomalyObserver, ...]:
    """Return an observer for each of a configuration's ``models``; none where none are declared.

    Faulty ones are left out after noting what is wrong.

    Parameters
    ----------
    folder : of the configuration; files of models are relative to it
    asset_types_by_source : of the sources that are declared
    """
    if not document.has("models"):
        return ()
    sections = document.sections("models")
    if len(sections) > MODELS_MAX:
        document.fault("models", "configuration.too_many", f"more than {MODELS_MAX} models")
    found: list[AnomalyObserver] = []
    names: set[str] = set()
    for section in sections[:MODELS_MAX]:
        observer = _observer(section, agent, folder, asset_types_by_source)
        section.finish()
        if observer is None:
            continue
        if observer.use.model in names:
            told = f"model {observer.use.model!r} is declared twice"
            section.fault("model", "model.repeated", told, "use one and list its sources")
        names.add(observer.use.model)
        found.append(observer)
    return tuple(found)


def input_spans_ns(
    observers: Sequence[Observer], asset_types_by_source: Mapping[str, str]
) -> dict[str, int]:
    """Return for each source that models judge how far back they look, by the source's name."""
    spans: dict[str, int] = {}
    for observer in observers:
        if isinstance(observer, AnomalyObserver):
            for source, asset_type in asset_types_by_source.items():
                if observer.judges(source, asset_type):
                    spans[source] = max(spans.get(source, 0), observer.input_span_ns)
    return spans


def carried_over(before: Sequence[Observer], now: Sequence[Observer]) -> tuple[Observer, ...]:
    """Return `now` with the observers of `before` where nothing was declared otherwise.

    So a new configuration does not make a model forget what it has learnt.
    """
    known = {one.declared: one for one in before if isinstance(one, AnomalyObserver)}
    found: list[Observer] = []
    for observer in now:
        kept = known.get(observer.declared) if isinstance(observer, AnomalyObserver) else None
        if kept is not None and isinstance(observer, AnomalyObserver):
            kept.call_on_anomaly(observer.called_on_anomaly)  # of the new sources' stages
        found.append(kept or observer)
    return tuple(found)


def _observer(
    section: Section, agent: str, folder: Path, asset_types_by_source: Mapping[str, str]
) -> AnomalyObserver | None:
    name = section.text("model")
    model = name and section.attempt("model", lambda: check_identifier("model", name))
    file, sha256 = section.text("file"), section.text("sha256")
    sources = section.texts("sources") if section.has("sources") else []
    shadow = section.plain("shadow") if section.has("shadow") else False
    if not isinstance(shadow, bool):
        section.fault("shadow", "configuration.wrong_type", "'shadow' is neither true nor false")
    every_s = section.whole_number("every_seconds", 1, 3600, 5)
    hold_s = section.whole_number("hold_seconds", 0, 3600, 10)
    pause_s = section.whole_number("at_most_every_seconds", 1, 24 * 3600, 60)
    limit_ms = section.number("time_limit_ms", 0.1, 10_000, 50)
    fallback = _fallback(section) if section.has("fallback") else None
    if not model or file is None or sha256 is None or sources is None or limit_ms is None:
        return None
    if every_s is None or hold_s is None or pause_s is None:
        return None
    if section.has("fallback") and fallback is None:
        return None
    runtime = section.attempt("file", lambda: _load(folder / file, sha256, model))
    if runtime is None:
        return None
    judged = _judged_types(section, sources, runtime, asset_types_by_source)
    if judged is None:
        return None
    use = ModelUse(
        agent=agent,
        model=model,
        sources=frozenset(sources),
        shadow=shadow is True,
        every_s=every_s,
        rule=VerdictRule(hold_s, pause_s),
        asset_types=judged,
    )
    guarded = GuardedModel(runtime, limit_ms / 1e3, fallback)
    return AnomalyObserver(guarded, use, sha256, section.declared)


def _judged_types(
    section: Section, sources: list[str], runtime: Runtime, known: Mapping[str, str]
) -> frozenset[str] | None:
    """Return the types of the sources that a model judges; None after noting what does not fit."""
    if not sources:
        return frozenset(known.values()) & frozenset(runtime.description.asset_types)
    unknown = [source for source in sources if source not in known]
    if unknown:
        told = f"{unknown[0]!r:.80} is no source"
        section.fault("sources", "source.unknown", told, f"sources: {', '.join(sorted(known))}")
        return None
    types = frozenset(known[source] for source in sources)
    return section.attempt("sources", lambda: check_asset_types(runtime, types))


def _load(file: Path, sha256: str, model: str) -> Runtime:
    try:
        with file.open("rb") as opened:
            content = opened.read(MODEL_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(
            "model.file", f"{file} cannot be read: {error.strerror or error}"
        ) from error
    runtime = load_model(content, sha256)
    check_is(runtime, model)
    for name in runtime.description.asset_types:
        described = asset_types().get(name)
        for channel in runtime.description.channels if described else ():
            assert described is not None
            described.channel(channel)
    return runtime


def check_is(runtime: Runtime, model: str) -> None:
    """Raise unless `runtime` is a version of `model`.

    Raises
    ------
    InvalidInput
        ``model.other``
    """
    if runtime.description.model != model:
        raise InvalidInput(
            "model.other",
            f"the file holds {runtime.description.name}, not a version of {model!r}",
            value=runtime.description.name,
            limit=model,
        )


def check_asset_types(runtime: Runtime, wanted: frozenset[str]) -> frozenset[str]:
    """Return `wanted` if `runtime` can judge assets of all these types.

    Raises
    ------
    InvalidInput
        ``model.asset_type``
    """
    foreign = sorted(wanted - frozenset(runtime.description.asset_types))
    if foreign:
        known = ", ".join(runtime.description.asset_types)
        raise InvalidInput(
            "model.asset_type",
            f"{runtime.description.name} judges assets of {known}, not of {foreign[0]!r}",
            value=foreign[0],
            limit=known,
        )
    return wanted


def _fallback(section: Section) -> FallbackRule | None:
    part = section.section("fallback")
    if part is None:
        return None
    name = part.text("model")
    limit = part.number("limit", 1e-6, 1e6)
    part.finish()
    if name is None or limit is None:
        return None
    try:
        split_version(name)
    except HeddleError as error:
        part.fault("model", error.code, error.message, error.hint)
        return None
    return FallbackRule(name, limit)
