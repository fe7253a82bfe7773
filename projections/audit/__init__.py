"""Who did what to which object, when, and what it was before."""
