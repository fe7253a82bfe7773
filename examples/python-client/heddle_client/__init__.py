"""A typed client of Heddle's API: `Client`, and the operations that `generate.py` wrote."""

from heddle_client.client import Client, Operation, Refused, Unreachable, new_key

__all__ = ["Client", "Operation", "Refused", "Unreachable", "new_key"]
