"""What models and people think will happen, and what was decided on it."""
