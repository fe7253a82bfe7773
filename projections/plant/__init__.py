"""The plant: what stands where and is installed in what; its twins and findings."""
