"""Scenarios: what-ifs, and the set-points proposed from them."""
