"""What we know now: tables folded from the log, and policies that answer events with commands.

Each projection is one file that owns its tables' SQL, its fold and its queries. The runner
keeps rows and checkpoint in one transaction, so a projection is always exactly at a position.
"""
