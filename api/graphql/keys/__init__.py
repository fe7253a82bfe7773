"""API keys: who lets agents and integrations in, and as what."""
