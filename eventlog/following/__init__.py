"""One tail a process: it reads each new event once and feeds every follower."""
