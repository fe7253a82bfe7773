"""Assets: what is known of each machine, its twin, its type, and the commands on it."""
