"""Learning: models, and what they predict."""
