"""Inference beside the machine: the model of training, on live windows, whatever goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import sys
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from api.graphql.commands import snake
from domain.directives import ModelDirective, ModelRetirement
from domain.errors import InvalidInput, Unavailable
from domain.frames import FloatArray
from domain.opinions.prediction import AssessHealth
from edge_agent.inference import AnomalyObserver, carried_over, configure
from edge_agent.inference.guarded import FallbackRule, GuardedModel
from edge_agent.inference.model_file import ModelDescription
from edge_agent.inference.observer import ModelUse
from edge_agent.inference.runtimes import Answer, SingleArray, check_archive, load_model
from edge_agent.inference.updates import ModelUpdates, statuses
from edge_agent.inference.verdicts import Verdict, VerdictRule, judged
from edge_agent.inference.watch import Watch
from edge_agent.live.window import Window
from edge_agent.outbox.records import FROM_POSITION, TO_POSITION
from edge_agent.yaml_section import ConfigurationFaults, read_document
from ml.anomaly import AnomalyDetector, AnomalySettings, assess
from ml.deviation import baseline_of, deviations
from ml.onnx_export import anomaly_onnx
from tests.edge_agent.windows import SECOND_NS, channel_window, cut, window_of
from tests.recordings import REPOSITORY, SKAB_COLUMNS, read_labels, read_skab

MODEL = "skab-pump-anomaly"
PUBLISHED = REPOSITORY / "docs" / "models" / MODEL / "model.onnx"
START_S = 1_600_000_000
DESCRIPTION = ModelDescription("m", "1", ("skab-pump-loop",), ("flow", "pressure"), 20, 5)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Told:
    """A runtime that answers as it is told: a ratio, or what it raises, or how long it waits."""

    def __init__(self, ratio: float = 0.5, description: ModelDescription = DESCRIPTION) -> None:
        self.description = description
        self.device = "test"
        self.ratio = ratio
        self.error: Exception | None = None
        self.hold: threading.Event | None = None
        self.batches: list[int] = []

    def run(self, deviations: SingleArray) -> Answer:
        self.batches.append(len(deviations))
        if self.hold is not None:
            self.hold.wait(30)
        if self.error is not None:
            raise self.error
        ratio = np.full(len(deviations), self.ratio, np.float32)
        shares = np.full(deviations.shape, self.ratio / deviations.shape[1], np.float32)
        return Answer(ratio, shares, np.minimum(1, 1 / ratio).astype(np.float32))


def observer_of(
    runtime: Told,
    *,
    sources: Sequence[str] = (),
    shadow: bool = False,
    fallback: FallbackRule | None = None,
    time_limit_s: float = 20.0,
    now_s: Sequence[float] = (),
) -> AnomalyObserver:
    use = ModelUse(
        agent="edge-1",
        model="m",
        sources=frozenset(sources),
        shadow=shadow,
        every_s=1,
        rule=VerdictRule(hold_s=3, pause_s=10),
    )
    times = iter(now_s)
    clock = (lambda: next(times)) if now_s else (lambda: 0.0)
    return AnomalyObserver(
        GuardedModel(runtime, time_limit_s, fallback), use, "a" * 64, "declared", clock
    )


def second_window(
    second: int, source: str = "loop", values: tuple[float, float] | None = None
) -> Window:
    """Return the window of one second of flow and pressure, with noise of its own."""
    random = np.random.default_rng(second + 10_000)
    flow, pressure = values or (32 + random.normal(0, 0.1), 0.05 + random.normal(0, 0.1))
    times = np.array([(START_S + second) * SECOND_NS])
    made = window_of(
        channel_window("flow", "l/min", times, np.array([flow])),
        channel_window("pressure", "bar", times, np.array([pressure])),
    )
    return replace(made, source=source, asset=f"asset-of-{source}")


def observed(observer: AnomalyObserver, seconds: range) -> list[Any]:
    """Return the commands of windows, one a second."""
    return [
        command
        for second in seconds
        for commands in observer.observe([second_window(second)])
        for command in commands
    ]


# --- the published model on a recording -------------------------------------------------------


def skab_window(name: str) -> Window:
    recording = read_skab(name)
    return window_of(
        *(
            channel_window(channel, unit, recording.times_ns, recording.values[channel])
            for channel, unit in SKAB_COLUMNS.values()
        )
    )


def published(folder: Path, **changes: object) -> AnomalyObserver:
    content = PUBLISHED.read_bytes()
    declared: dict[str, object] = {
        "model": MODEL,
        "file": str(PUBLISHED),
        "sha256": sha256_of(content),
        "every_seconds": 1,
    }
    observers, faults = configured(folder, [declared | changes])
    assert faults == []
    return observers[0]


def configured(
    folder: Path, models: Sequence[Mapping[str, object]]
) -> tuple[tuple[AnomalyObserver, ...], list[str]]:
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump({"models": [dict(one) for one in models]}, sort_keys=False))
    document = read_document(file)
    observers = configure(document, "edge-1", folder, {"loop": "skab-pump-loop", "other": "press"})
    document.finish()
    if document.faults:
        return observers, [fault.code for fault in ConfigurationFaults(document.faults).faults]
    return observers, []


def commands_of(observer: AnomalyObserver, windows: Sequence[Window]) -> list[Any]:
    """Return the commands of windows that come one after the other."""
    return [
        command
        for window in windows
        for commands in observer.observe([window])
        for command in commands
    ]


def test_a_closing_valve_of_a_recording_is_told_with_its_reasons(tmp_path: Path) -> None:
    observer = published(tmp_path)
    window = skab_window("valve1/8")
    first = int(window.channels[0].times_ns[0])
    seconds = [first + n * SECOND_NS for n in range(0, 1_200, 5)]
    told = commands_of(observer, cut(window, seconds))
    labelled = read_labels("valve1/8")
    sick = [command for command in told if command.input["health"] < 1]
    assert sick, "the fault is told"
    for command in told:
        assert command.mutation == "assessHealth"
        assert command.input["model"] == f"{MODEL}@1"
        assert command.input["assetId"] == "loop-1"
        assert command.input["inputFromPosition"] == FROM_POSITION
        assert command.input["inputToPosition"] == TO_POSITION
        assert command.idempotency_key == f"prediction:{command.input['predictionId']}"
        ended = datetime.fromisoformat(str(command.input["occurredAt"])).timestamp()
        assert command.input_from_ns == (ended - 30) * SECOND_NS, "its window is of 30 s"
        shares = [one["contribution"] for one in command.input["explanation"]]
        # The reasons add up to what health has lost.
        assert sum(shares) == pytest.approx(command.input["health"] - 1, abs=1e-4)
    begun = datetime.fromisoformat(str(sick[0].input["occurredAt"])).timestamp()
    assert labelled[0] < begun < labelled[0] + 90
    # A closing valve shows in the flow.
    worst = max(sick, key=lambda command: 1 - command.input["health"])
    reasons = {one["feature"]: one["contribution"] for one in worst.input["explanation"]}
    assert min(reasons, key=lambda feature: reasons[feature]) == "flow.deviation"
    # Bounded: never more often than once in the pause.
    moments = [datetime.fromisoformat(str(one.input["occurredAt"])).timestamp() for one in told]
    assert all(later - earlier >= 60 for earlier, later in pairwise(moments))
    assert len({one.input["predictionId"] for one in told}) == len(told)


def test_a_prediction_s_words_are_those_of_the_api(tmp_path: Path) -> None:
    window = skab_window("valve1/8")
    first = int(window.channels[0].times_ns[0])
    told = commands_of(
        published(tmp_path), cut(window, [first + n * SECOND_NS for n in range(0, 1_200, 10)])
    )
    fields = {snake(name) for name in told[0].input} - {"occurred_at"}
    assert fields <= set(AssessHealth.__dataclass_fields__)
    json.dumps(told[0].input, allow_nan=False)


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 1_200), max_size=20, unique=True))
def test_the_watch_sees_what_training_saw_wherever_windows_are_cut(cuts: list[int]) -> None:
    description = ModelDescription(
        MODEL, "1", ("skab-pump-loop",), tuple(name for name, _ in SKAB_COLUMNS.values()), 400, 30
    )
    window = skab_window("valve1/6")
    first = int(window.channels[0].times_ns[0])
    watch = Watch(description, every_s=1)
    for part in cut(window, [first + at * SECOND_NS for at in sorted(cuts)]):
        watch.take(part)
    found = watch.due()
    assert found is not None
    np.testing.assert_allclose(
        found, _trained("valve1/6", watch.latest_s - first // SECOND_NS), rtol=1e-9
    )


def _trained(name: str, last_s: int) -> FloatArray:
    """Return the deviations of training at a second of a recording."""
    recording = read_skab(name)
    at = (recording.times_ns - recording.times_ns[0]) // SECOND_NS
    seconds = np.full((int(at[-1]) + 1, len(SKAB_COLUMNS)), np.nan)
    from domain.units import si

    for n, (channel, unit) in enumerate(SKAB_COLUMNS.values()):
        seconds[at, n] = [si(value, unit) for value in recording.values[channel]]
    row: FloatArray = deviations(seconds, baseline_of(seconds[:400]), 30)[last_s]
    return row


# --- what is told, and how often --------------------------------------------------------------


def test_nothing_is_asked_before_the_baseline_is_known() -> None:
    runtime = Told()
    observer = observer_of(runtime)
    observed(observer, range(20))
    assert runtime.batches == []
    status: Any = observer.status()
    assert status["sources"]["loop"]["learning_s_left"] > 0
    observed(observer, range(20, 40))
    assert runtime.batches


def test_all_windows_that_are_due_are_one_batch() -> None:
    runtime = Told()
    observer = observer_of(runtime)
    for second in range(40):
        observer.observe([second_window(second, source) for source in ("one", "two", "three")])
    assert set(runtime.batches) == {3}


def test_a_verdict_is_told_when_it_turns_and_not_in_between() -> None:
    runtime = Told(0.5)
    observer = observer_of(runtime)
    well = observed(observer, range(60))
    assert [command.input["health"] for command in well] == [1.0], "once, at first"
    runtime.ratio = 4.0
    sick = observed(observer, range(60, 120))
    assert [command.input["health"] for command in sick] == [0.25]
    runtime.ratio = 0.9
    assert observed(observer, range(120, 160)) == [], "below the limit is not yet well"
    runtime.ratio = 0.5
    assert [c.input["health"] for c in observed(observer, range(160, 200))] == [1.0]


def test_waveforms_are_asked_for_once_when_an_anomaly_begins() -> None:
    runtime = Told(0.5)
    observer = observer_of(runtime, shadow=True)
    asked: list[str] = []
    observer.call_on_anomaly(
        {source: [lambda source=source: asked.append(source)] for source in ("loop", "other")}  # type: ignore[misc]
    )
    observed(observer, range(60))
    assert asked == []
    runtime.ratio = 4.0
    observed(observer, range(60, 120))
    assert asked == ["loop"]


def test_a_flutter_is_not_told() -> None:
    runtime = Told(0.5)
    observer = observer_of(runtime)
    observed(observer, range(60))
    told = []
    for second in range(60, 160):
        runtime.ratio = 4.0 if second % 3 == 0 else 0.5
        told += observed(observer, range(second, second + 1))
    assert told == []


@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0, 20)), max_size=200),
    st.integers(0, 20),
    st.integers(1, 60),
)
def test_verdicts_keep_their_pause_whatever_comes(
    answers: list[tuple[int, float]], hold_s: int, pause_s: int
) -> None:
    verdict, rule, second, told = Verdict(), VerdictRule(hold_s, pause_s), 0, []
    for step, ratio in answers:
        second += step
        verdict, is_new = judged(verdict, rule, second, ratio, min(1.0, 1 / max(ratio, 1e-9)))
        if is_new:
            told.append(second)
    assert all(later - earlier >= pause_s for earlier, later in pairwise(told))


def test_a_clock_that_was_set_back_does_not_silence_a_source() -> None:
    runtime = Told(0.5)
    observer = observer_of(runtime)
    observed(observer, range(60))
    runtime.ratio = 4.0
    assert len(observed(observer, range(-3_600, -3_500))) >= 1


def test_a_shadow_is_counted_and_never_told() -> None:
    runtime = Told(4.0)
    observer = observer_of(runtime, shadow=True)
    assert observed(observer, range(100)) == []
    status: Any = observer.status()
    assert (status["predictions"], status["shadow"]) == (0, True)
    assert status["answers"] == status["anomalous_answers"] > 50


def test_only_the_sources_that_are_declared_or_fit_are_judged() -> None:
    runtime = Told()
    observer = observer_of(runtime, sources=["other"])
    observed(observer, range(60))
    assert runtime.batches == []
    unfit = Told(description=replace(DESCRIPTION, asset_types=("teapot",)))
    observed(observer_of(unfit), range(60))
    assert unfit.batches == []


# --- what goes wrong --------------------------------------------------------------------------

RULE = FallbackRule("pump-limit@1", 6.0)
ROW = np.array([[1.0, -12.0]], np.float32)


def test_a_model_that_fails_is_replaced_by_its_rule_and_both_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = Told(0.5)
    model = GuardedModel(runtime, 20.0, RULE)
    with caplog.at_level(logging.INFO, "heddle.edge.inference"):
        assert _who(model, 0.0) == "m@1"
        runtime.error = RuntimeError("out of memory")
        assert [_who(model, now_s) for now_s in (1.0, 2.0, 12.0, 23.0)] == ["pump-limit@1"] * 4
        runtime.error = None
        assert _who(model, 24.0) == "pump-limit@1", "not before the pause is over"
        assert _who(model, 40.0) == "m@1"
        assert model.failure is None
    assert [record.getMessage() for record in caplog.records] == [
        "m@1 fails: RuntimeError: out of memory; pump-limit@1 answers",
        "m@1 answers again",
    ]
    # Asked only once in a pause while it failed.
    assert len(runtime.batches) == 1 + 3 + 1


def _who(model: GuardedModel, now_s: float) -> str | None:
    asked = model.ask(ROW, now_s)
    return None if asked is None else asked[0]


def test_the_rule_tells_the_largest_deviation() -> None:
    answer = RULE.run(ROW)
    assert (answer.ratio.tolist(), answer.health.tolist()) == ([2.0], [0.5])
    assert answer.contributions.tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize("ratio", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_none(ratio: float) -> None:
    assert _who(GuardedModel(Told(ratio), 20.0, None), 0.0) is None
    assert _who(GuardedModel(Told(ratio), 20.0, RULE), 0.0) == "pump-limit@1"


def test_a_model_that_is_too_slow_is_left_alone_until_it_has_ended() -> None:
    runtime = Told(0.5)
    runtime.hold = threading.Event()
    model = GuardedModel(runtime, 0.05, RULE)
    try:
        assert _who(model, 0.0) == "pump-limit@1"
        assert _who(model, 1_000.0) == "pump-limit@1"
        assert runtime.batches == [1], "it still runs and is not asked again"
    finally:
        runtime.hold.set()
    assert model.failure == "no answer within 50 ms"


def test_another_version_serves_at_once_even_while_the_old_one_hangs() -> None:
    slow, fresh = Told(0.5), Told(0.5, replace(DESCRIPTION, version="2"))
    slow.hold = threading.Event()
    model = GuardedModel(slow, 0.05, None)
    try:
        assert _who(model, 0.0) is None
        model.swap(fresh)
        # The new version gets its time whatever this machine does beside.
        model._time_limit_s = 20.0
        assert _who(model, 0.1) == "m@2"
    finally:
        slow.hold.set()


def test_a_new_version_keeps_what_was_learnt_where_it_looks_alike() -> None:
    observer = observer_of(Told())
    observed(observer, range(60))
    alike, other = (
        Told(description=replace(DESCRIPTION, version="2")),
        Told(description=replace(DESCRIPTION, version="3", window_s=6)),
    )
    observer.swap(alike, "b" * 64)
    assert alike.batches == []
    observed(observer, range(60, 62))
    assert alike.batches
    observer.swap(other, "c" * 64)
    observed(observer, range(62, 70))
    assert other.batches == [], "it learns its own baseline first"


def test_bad_and_absent_readings_do_not_count() -> None:
    description = replace(DESCRIPTION, baseline_s=10, window_s=4)
    good, mixed = (Watch(description, 1) for _ in range(2))
    for second in range(40):
        window = second_window(second)
        good.take(window)
        flow, pressure = window.channels
        spoilt = replace(
            flow,
            times_ns=np.repeat(flow.times_ns, 3),
            values=np.array([1e9, flow.values[0], np.nan]),
            qualities=np.array([2, 1, 3], np.uint8),
        )
        mixed.take(replace(window, channels=(spoilt, pressure)))
    expected, found = good.due(), mixed.due()
    assert expected is not None
    assert found is not None
    np.testing.assert_array_equal(found, expected)


def test_a_channel_that_fell_silent_gives_no_answer() -> None:
    runtime = Told()
    observer = observer_of(runtime)
    observed(observer, range(40))
    asked = len(runtime.batches)
    for second in range(40, 60):
        window = second_window(second)
        observer.observe([replace(window, channels=window.channels[:1])])
    assert len(runtime.batches) <= asked + 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=12))
def test_no_time_breaks_a_watch_or_makes_it_grow(times: list[int]) -> None:
    watch = Watch(DESCRIPTION, 1)
    for time_ns in times:
        at = np.array([time_ns, time_ns])
        watch.take(window_of(channel_window("flow", "l/min", at, np.array([1.0, 2.0]))))
        assert len(watch._recent) <= 5
        assert len(watch._sums) <= 200
        watch.due()


# --- files and configurations -----------------------------------------------------------------


def trained(model: str = "m", version: str = "1", asset_type: str = "skab-pump-loop") -> bytes:
    """Return a small model of two channels of the pump loop."""
    detector = AnomalyDetector(
        ("flow", "pressure"), AnomalySettings(baseline_s=20, window_s=5), np.eye(2), 4.0
    )
    return anomaly_onnx(detector, model, version, [asset_type])


def test_a_loaded_model_says_what_it_was_exported_from() -> None:
    content = trained()
    runtime = load_model(content, sha256_of(content))
    assert runtime.description == DESCRIPTION
    detector = AnomalyDetector(("flow", "pressure"), AnomalySettings(), np.eye(2), 4.0)
    found = np.array([[2.0, 0.0], [3.0, 4.0]])
    answer, said = runtime.run(found.astype(np.float32)), assess(detector, found)
    np.testing.assert_allclose(answer.ratio, said.ratio)
    np.testing.assert_allclose(answer.health, said.health)


def test_a_file_that_is_another_or_none_is_refused() -> None:
    content = trained()
    with pytest.raises(InvalidInput) as refused:
        load_model(content + b"\x00", sha256_of(content))
    assert refused.value.code == "model.hash_mismatch"
    for wrong, code in (
        (b"garbage", "model.malformed"),
        (content.replace(b'"kind": "anomaly"', b'"kind": "oracles"'), "model.description"),
    ):
        with pytest.raises(InvalidInput) as refused:
            load_model(wrong, sha256_of(wrong))
        assert refused.value.code == code


def torch_archive(*members: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members:
            archive.writestr(f"archive/{name}", content)
    return made.getvalue()


def test_a_torch_model_without_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # to import it fails from here on
    archive = torch_archive(("models/model.json", b"{}"))
    with pytest.raises(Unavailable) as refused:
        load_model(archive, sha256_of(archive))
    assert refused.value.code == "model.no_runtime"


RAW = b'{"config": {"p": {"path_name": "weight_0", "use_pickle": false}}}'


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([("data/sample_inputs/model.pt", b"PK")], "model.unsafe"),
        ([("data/constants/custom_obj_0", b"x")], "model.unsafe"),
        ([("models/other.pkl", b"x")], "model.unsafe"),
        (
            [("data/weights/model_weights_config.json", RAW.replace(b"false", b"true"))],
            "model.unsafe",
        ),
        ([("data/weights/model_weights_config.json", b"[]")], "model.malformed"),
    ],
)
def test_an_archive_that_would_be_unpickled_is_refused_before_torch_sees_it(
    members: list[tuple[str, bytes]], code: str
) -> None:
    check_archive(torch_archive(("data/weights/model_weights_config.json", RAW)))
    archive = torch_archive(*members)
    with pytest.raises(InvalidInput) as refused:
        load_model(archive, sha256_of(archive))
    assert refused.value.code == code


def test_a_torch_model_says_what_its_detector_says() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from ml.torch_export import anomaly_torch

    detector = AnomalyDetector(
        ("flow", "pressure"),
        AnomalySettings(baseline_s=20, window_s=5),
        np.array([[1, 0.5], [0.5, 2]]),
        4.0,
    )
    content = anomaly_torch(detector, "m", "1", ["skab-pump-loop"])
    assert content == anomaly_torch(detector, "m", "1", ["skab-pump-loop"])
    runtime = load_model(content, sha256_of(content))
    assert runtime.description == DESCRIPTION
    assert runtime.device in ("torch cpu", "torch cuda")
    found = np.random.default_rng(1).normal(0, 3, (64, 2))
    answer, said = runtime.run(found.astype(np.float32)), assess(detector, found)
    np.testing.assert_allclose(answer.ratio, said.ratio, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.contributions, said.contributions, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.health, said.health, rtol=1e-4)
    damaged = content.replace(b'"kind": "anomaly"', b'"kind": "oracles"')
    with pytest.raises(InvalidInput) as refused:
        load_model(damaged, sha256_of(damaged))
    assert refused.value.code in ("model.description", "model.malformed")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 900), st.integers(0, 255))
def test_a_damaged_file_is_refused_or_still_answers(at: int, byte: int) -> None:
    content = bytearray(trained())
    content[at % len(content)] = byte
    damaged = bytes(content)
    try:
        runtime = load_model(damaged, sha256_of(damaged))
    except (InvalidInput, Unavailable):
        return
    assert runtime.run(np.zeros((2, 2), np.float32)).ratio.shape == (2,)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"file": "nothing.onnx"}, ["model.file"]),
        ({"sha256": "0" * 64}, ["model.hash_mismatch"]),
        ({"sha256": "short"}, ["sha256.malformed"]),
        ({"model": "another"}, ["model.other"]),
        ({"model": "an other"}, ["model.malformed_name"]),
        ({"shadow": "perhaps"}, ["configuration.wrong_type"]),
        ({"every_seconds": 0}, ["configuration.out_of_range"]),
        ({"fallback": {"model": "no version", "limit": 6}}, ["model.malformed_version"]),
        ({"colour": "red"}, ["configuration.unknown_key"]),
        ({"sources": ["nobody"]}, ["source.unknown"]),
        ({"sources": ["loop", "other"]}, ["model.asset_type"]),
    ],
)
def test_every_fault_of_a_declaration_is_told(
    tmp_path: Path, changes: Mapping[str, object], codes: list[str]
) -> None:
    content = trained()
    (tmp_path / "m.onnx").write_bytes(content)
    declared = {"model": "m", "file": "m.onnx", "sha256": sha256_of(content)}
    _, found = configured(tmp_path, [declared | dict(changes)])
    assert found == codes


def test_a_model_is_declared_once_and_outlives_a_new_configuration(tmp_path: Path) -> None:
    content = trained()
    (tmp_path / "m.onnx").write_bytes(content)
    declared: dict[str, object] = {
        "model": "m",
        "file": "m.onnx",
        "sha256": sha256_of(content),
        "fallback": {"model": "pump-limit@1", "limit": 6},
    }
    _, found = configured(tmp_path, [declared, declared])
    assert found == ["model.repeated"]
    before, _ = configured(tmp_path, [declared])
    same, _ = configured(tmp_path, [declared])
    assert carried_over(before, same) == before
    other, _ = configured(tmp_path, [declared | {"shadow": True}])
    assert carried_over(before, other) == other


# --- versions that the server promotes --------------------------------------------------------


def directive(content: bytes, version: str, position: int = 1) -> ModelDirective:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return ModelDirective(
        ledger="main",
        position=position,
        agent="edge-1",
        issued_at=now,
        expires_at=now,
        model_id="m",
        version=version,
        purpose="a test",
        artefact_sha256=sha256_of(content),
    )


class Shelf:
    """What a server has: content by path."""

    def __init__(self, held: Mapping[str, bytes]) -> None:
        self.held = held
        self.asked: list[str] = []

    async def fetch(self, path: str, bytes_max: int) -> bytes:
        self.asked.append(path)
        content = self.held.get(path)
        if content is None or len(content) > bytes_max:
            raise Unavailable("uplink.refused", f"nothing at {path}")
        return content


def declared_observer(folder: Path) -> AnomalyObserver:
    content = trained()
    (folder / "m.onnx").write_bytes(content)
    observers, faults = configured(
        folder, [{"model": "m", "file": "m.onnx", "sha256": sha256_of(content)}]
    )
    assert faults == []
    return observers[0]


def test_a_promoted_version_is_fetched_serves_and_is_there_after_a_restart(tmp_path: Path) -> None:
    second = trained(version="2")
    shelf = Shelf({"/v1/agents/edge-1/models/m/2": second})
    updates = ModelUpdates("edge-1", tmp_path / "state", shelf.fetch)
    observer = declared_observer(tmp_path)
    takers = updates.takers([observer])
    asyncio.run(_promoted(takers["m"], directive(second, "2")))
    assert statuses([observer])["m"]["model"] == "m@2"
    asyncio.run(_promoted(takers["m"], directive(second, "2")))
    assert len(shelf.asked) == 1, "what serves is not fetched again"
    # A restart without a server.
    offline = ModelUpdates("edge-1", tmp_path / "state", Shelf({}).fetch)
    again = declared_observer(tmp_path)
    offline.takers([again])
    assert again.serves("2", sha256_of(second))


def retirement(version: str, position: int) -> ModelRetirement:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return ModelRetirement("main", position, "edge-1", now, now, "m", version, "it drifts")


def test_a_retired_version_is_silent_until_one_is_promoted_also_after_a_restart(
    tmp_path: Path,
) -> None:
    shelf = Shelf({"/v1/agents/edge-1/models/m/1": trained()})
    updates = ModelUpdates("edge-1", tmp_path / "state", shelf.fetch)
    observer = declared_observer(tmp_path)
    taker = updates.takers([observer])["m"]
    observed(observer, range(60))
    asyncio.run(_promoted(taker, retirement("9", 3)))
    assert not observer.retired, "another version is none of its business"
    asyncio.run(_promoted(taker, retirement("1", 4)))
    asked = answers(observer)
    observed(observer, range(60, 90))
    assert (observer.retired, answers(observer)) == ("it drifts", asked)
    again = declared_observer(tmp_path)
    ModelUpdates("edge-1", tmp_path / "state", Shelf({}).fetch).takers([again])
    assert again.retired == "it drifts"
    asyncio.run(_promoted(taker, directive(trained(), "1", 5)))
    assert not observer.retired
    observed(observer, range(90, 100))
    assert answers(observer) > asked


def answers(observer: AnomalyObserver) -> int:
    status: Any = observer.status()
    return int(status["answers"])


def test_what_an_older_directive_says_counts_no_more(tmp_path: Path) -> None:
    versions = {f"/v1/agents/edge-1/models/m/{n}": trained(version=n) for n in ("2", "3")}
    updates = ModelUpdates("edge-1", tmp_path / "state", Shelf(versions).fetch)
    observer = declared_observer(tmp_path)
    taker = updates.takers([observer])["m"]
    asyncio.run(_promoted(taker, directive(trained(version="3"), "3", 30)))
    asyncio.run(_promoted(taker, directive(trained(version="2"), "2", 20)))
    asyncio.run(_promoted(taker, retirement("3", 10)))
    assert (observer.serving, observer.retired) == ("m@3", "")


async def _promoted(taker: Any, told: ModelDirective | ModelRetirement) -> None:
    await taker(told)


@pytest.mark.parametrize(
    ("held", "told", "code"),
    [
        (trained(version="2") + b"\x00", trained(version="2"), "model.hash_mismatch"),
        (trained(version="3"), trained(version="3"), "model.other"),
        (trained("another", "2"), trained("another", "2"), "model.other"),
        (trained("m", "2", "press"), trained("m", "2", "press"), "model.asset_type"),
        (b"garbage", b"garbage", "model.malformed"),
        (None, trained(version="2"), "uplink.refused"),
    ],
    ids=["exchanged", "another-version", "another-model", "another-type", "garbage", "missing"],
)
def test_a_promoted_version_that_is_no_use_changes_nothing(
    tmp_path: Path, held: bytes | None, told: bytes, code: str
) -> None:
    shelf = Shelf({} if held is None else {"/v1/agents/edge-1/models/m/2": held})
    updates = ModelUpdates("edge-1", tmp_path / "state", shelf.fetch)
    observer = declared_observer(tmp_path)
    takers = updates.takers([observer])
    with pytest.raises((InvalidInput, Unavailable)) as refused:
        asyncio.run(_promoted(takers["m"], directive(told, "2")))
    assert refused.value.code == code
    assert statuses([observer])["m"]["model"] == "m@1"
    assert not (tmp_path / "state" / "models" / "m" / "serving.json").exists()


def test_a_kept_version_that_was_damaged_is_left_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = trained(version="2")
    shelf = Shelf({"/v1/agents/edge-1/models/m/2": second})
    updates = ModelUpdates("edge-1", tmp_path / "state", shelf.fetch)
    asyncio.run(
        _promoted(updates.takers([declared_observer(tmp_path)])["m"], directive(second, "2"))
    )
    (tmp_path / "state" / "models" / "m" / "2.model").write_bytes(second[:-5])
    again = declared_observer(tmp_path)
    updates.takers([again])
    assert statuses([again])["m"]["model"] == "m@1"
    assert "is no use" in caplog.text
