"""Modbus TCP and RTU as a connection of the agent: registers, polling, writing."""
