"""Serial lines: frames cut from a stream of bytes, checked, and read by a declared format."""
