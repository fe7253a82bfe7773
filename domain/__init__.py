"""What can happen: events, commands, deciders, frames, asset types, units and errors.

This room is pure. It knows no clock, no file, no socket and no database; times, identifiers
and randomness arrive as arguments. Everyone else in the house speaks its words.
"""
