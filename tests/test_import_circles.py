"""No module imports another that leads back to it, not even for types alone."""

from __future__ import annotations

import graphlib

import grimp

ROOMS = (
    "api",
    "domain",
    "edge_agent",
    "eventlog",
    "migrations",
    "ml",
    "projections",
    "simulators",
)


def test_imports_run_in_no_circle() -> None:
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imported) > 100
    try:
        tuple(graphlib.TopologicalSorter(imported).static_order())
    except graphlib.CycleError as error:
        raise AssertionError(f"a circle of imports: {' > '.join(error.args[1])}") from None
