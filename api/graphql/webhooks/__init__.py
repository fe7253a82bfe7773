"""Webhooks: what other systems are told as it happens, and what became of each delivery."""
