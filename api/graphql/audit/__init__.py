"""The audit trail, and evidence that leaves the log."""
