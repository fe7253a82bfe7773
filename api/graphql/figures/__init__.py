"""Key figures over any period and level of the plant: reliability, OEE, quality, energy, cost."""
