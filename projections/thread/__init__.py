"""The thread as rows, and the traces that are drawn from it."""
