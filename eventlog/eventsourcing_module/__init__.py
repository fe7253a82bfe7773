"""Heddle's ledger as a persistence module of the Python library `eventsourcing`.

``PERSISTENCE_MODULE=eventlog.eventsourcing_module`` with ``HEDDLE_DATABASE_URL`` and
``HEDDLE_LEDGER`` makes an ordinary application of that library record its events in the log. The
library finds the one factory class that stands here. See docs/eventsourcing.md.
"""

from eventlog.eventsourcing_module.factory import LedgerFactory

__all__ = ["LedgerFactory"]
