"""What data says: features, models, training, explanation, drift, and the registry's format.

Pure, like `simulators`: arrays and a seeded generator in, arrays and descriptions out. Imports
nothing of ours but `domain.units`. Empty until the first model lands; the room stands so that its
contract does.
"""
