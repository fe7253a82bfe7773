"""Twins of assets: what each is and reads now, and as of any position or time."""
