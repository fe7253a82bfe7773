"""What every projection stands on: runner, checkpoints, rebuilds, checks, lag."""
