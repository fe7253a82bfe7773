"""Alerts: from their raising to their clearing, and their acknowledgement."""
