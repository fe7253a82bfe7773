"""The report of a benchmark: a table for people, and one JSON object as the last line."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value beside its limit.

    Parameters
    ----------
    limit : what the machine gives at most, measured in the same run
    goal : value to reach; for a `ceiling` the value to stay under
    """

    value: float
    unit: str
    limit: float | None = None
    goal: float | None = None
    ceiling: bool = False

    @property
    def ratio(self) -> float | None:
        """Value by limit."""
        return None if not self.limit else self.value / self.limit

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.ceiling else self.value >= self.goal


@dataclass
class Report:
    """What one benchmark found."""

    benchmark: str
    figures: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print table, notes and the JSON line."""
        table = Table("figure", "value", "unit", "limit", "ratio", "goal", "met", box=None)
        for name, figure in self.figures.items():
            table.add_row(
                name,
                f"{figure.value:,.4g}" if figure.value < 1000 else f"{figure.value:,.0f}",
                figure.unit,
                "" if figure.limit is None else f"{figure.limit:,.0f}",
                "" if figure.ratio is None else f"{figure.ratio:.3f}",
                "" if figure.goal is None else f"{figure.goal:,.6g}",
                {None: "", True: "yes", False: "no"}[figure.met],
            )
        console = Console(width=140)
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)
        print(
            json.dumps(
                {
                    "benchmark": self.benchmark,
                    "machine": machine(),
                    "figures": {
                        name: {
                            "value": figure.value,
                            "unit": figure.unit,
                            "limit": figure.limit,
                            "ratio": figure.ratio,
                            "goal": figure.goal,
                            "met": figure.met,
                        }
                        for name, figure in self.figures.items()
                    },
                }
            )
        )


def machine() -> str:
    """Return processor, cores and memory of this machine in words."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {pages * page_bytes / 2**30:.0f} GiB, {platform.system()}"
