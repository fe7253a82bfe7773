"""What data says: features, models, training, explanation, drift, and the registry's format.

Pure, like `simulators`: arrays and a seeded generator in, arrays and descriptions out. Imports
nothing of ours but `domain.units`. Only the commands that train (`train_anomaly`) read recordings
and write artefacts, and they hold nothing else.
"""
