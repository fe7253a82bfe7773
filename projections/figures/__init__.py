"""Figures of assets over a period: effectiveness, reliability, energy and cost."""
