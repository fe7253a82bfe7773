"""Work orders and spare parts."""
