"""The ledger: append, read, follow, prove, archive, relay.

The only room that writes the event table.
"""
