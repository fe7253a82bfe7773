"""What Python's collector of cyclic garbage looks at, and how often.

Configuration, channels and libraries live as long as the agent, yet every full collection walks
them all, some 70 ms on a small machine, in which no window ends.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

COLLECTOR_THRESHOLDS: Final = (20_000, 20, 50)
"""Objects allocated until the young are looked at, and how many times those until the older."""


def settle_memory() -> None:
    """Let the collector look no more at what lives now; call it when a configuration is in force.

    What an earlier call has settled and nobody needs any more is collected before.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


@contextmanager
def unsettled_after() -> Iterator[None]:
    """Leave the collector of a process that goes on as it was."""
    thresholds = gc.get_threshold()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
