"""The plant after ISA-95: where assets stand, and the components in them."""
