"""Material: lots, and parts by their serial numbers."""
