"""Maintenance: work orders, the board, spare parts."""
