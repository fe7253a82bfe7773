"""A plant that is not there, served over the protocols of plants that are.

Everything it tells carries "simulated" in its name, so that nobody takes it for a machine.
"""
