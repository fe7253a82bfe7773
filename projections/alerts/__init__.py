"""Alerts: the rules that raise them, the policy that commands them, and how they stand."""
