"""What physics says about a machine: pure, deterministic functions over arrays.

Every equation works in SI, names its source and the range in which it holds, and asks neither a
clock nor a hidden random state: the same arguments give the same arrays on every machine. The room
knows nothing of events, databases or the network.
"""
