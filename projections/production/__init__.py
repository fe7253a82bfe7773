"""Process runs and what went through them."""
