"""From what callers ask to rows: group commit, exactly once, positions without gaps."""
