"""The Merkle tree, its tiles and proofs, and the signed checkpoints of its heads."""
