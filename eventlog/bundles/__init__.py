"""Events with everything that proves them, in one file that needs no database."""
