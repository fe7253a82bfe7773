"""Key figures of maintenance, quality and production: formulas alone, each with its source."""
