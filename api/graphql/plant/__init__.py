"""The plant after ISA-95: locations, components, and the twins of both."""
