"""`heddle serve` under a sampling profiler that says which stage the processor worked on.

A timer of processor time interrupts the server; what it was doing is counted under the innermost
stage on its stack. Work that has no Python frame (the event loop, the database driver's protocol)
is counted as such. The counts are written as JSON to the file of ``HEDDLE_PROFILE`` at the end.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from types import FrameType

SAMPLE_S = 0.001
SECTIONS: tuple[tuple[str, str], ...] = (
    # (part of a file's path, section); the innermost on the stack counts
    ("api/ingest.py", "ingest"),
    ("projections/twin", "twins"),
    ("projections/alerts/projection.py", "alerts"),
    ("projections/alerts/", "alert policy"),
    ("projections/telemetry/", "rollups"),
    ("projections/running/pages.py", "pages"),
    ("projections/running/runner.py", "checkpoints"),
    ("eventlog/ledger.py", "append"),
    ("eventlog/appending/writer.py", "append"),
    ("eventlog/transparency/checkpoints.py", "signing"),
    ("uvicorn/", "http"),
)
DETAILS: tuple[tuple[str, str, str], ...] = (
    # (part of a file's path, start of a function's name, detail); the innermost counts
    ("domain/frame_decoding", "", "decode"),
    ("domain/frame_stacks.py", "hash_frames", "hash"),
    ("domain/frame_statistics.py", "", "statistics"),
    ("domain/frame_checks.py", "", "checks"),
    ("eventlog/reading.py", "", "read"),
    ("eventlog/envelope.py", "new_frame", "envelopes"),
    ("asyncpg/", "", "driver"),
    ("api/body.py", "", "body"),
)
LOOP = "event loop and driver"


class StageSampler:
    """Counts samples by stage."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.collecting_s = 0.0
        self._stage_of: dict[tuple[str, str], tuple[str, str]] = {}
        self._collection_began = 0.0

    def start(self) -> None:
        """Sample from now on."""
        gc.callbacks.append(self._collection)
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)

    def stop(self) -> None:
        """Sample no more."""
        signal.setitimer(signal.ITIMER_PROF, 0.0)

    def _collection(self, phase: str, _counts: dict[str, int]) -> None:
        if phase == "start":
            self._collection_began = time.perf_counter()
        else:
            self.collecting_s += time.perf_counter() - self._collection_began

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        place = "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        section, detail = "", ""
        while frame is not None:
            outer, inner = self._stage(frame.f_code.co_filename, frame.f_code.co_name)
            section, detail = section or outer, detail or inner
            frame = frame.f_back
        stage = ": ".join(filter(None, (section, detail))) or LOOP
        self.samples[stage] += 1
        self.lines[f"{stage} at {place}"] += 1

    def _stage(self, path: str, function: str) -> tuple[str, str]:
        key = (path, function)
        if key not in self._stage_of:
            self._stage_of[key] = (
                next((section for file, section in SECTIONS if file in path), ""),
                next(
                    (
                        detail
                        for file, start, detail in DETAILS
                        if file in path and function.startswith(start)
                    ),
                    "",
                ),
            )
        return self._stage_of[key]


def main() -> None:
    """Serve; write what was found once the server has stopped."""
    from api import serve
    from api.cli import main as command

    sampler = StageSampler()

    class _Sampled(serve._Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup(sockets)  # type: ignore[arg-type]
            sampler.start()

    serve._Server = _Sampled  # type: ignore[misc]

    def write() -> None:
        sampler.stop()
        Path(os.environ["HEDDLE_PROFILE"]).write_text(
            json.dumps(
                {
                    "stages": dict(sampler.samples.most_common()),
                    "lines": dict(sampler.lines.most_common(200)),
                    "collecting_s": sampler.collecting_s,
                }
            )
        )

    atexit.register(write)
    command()


if __name__ == "__main__":
    main()
