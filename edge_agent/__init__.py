"""The process beside the machine: sources, windows, a durable outbox and an uplink.

Rows of readings come from a source, are cut into windows, leave as frames through an outbox that
survives a kill at any moment, and are gone from it only when the server has acknowledged them.
"""
