"""A plant's history, made up and legal: what tests, the demo and benchmarks fill a log with.

The same size and seed give the same events, one by one and in the order of their recording, in
memory that does not grow with their number. Nothing here knows of a ledger.
"""

from api.plant_history.history import PARTS_MAX, plant_history
from api.plant_history.recorder import HistoryEvent, HistoryName

__all__ = ["PARTS_MAX", "HistoryEvent", "HistoryName", "plant_history"]
