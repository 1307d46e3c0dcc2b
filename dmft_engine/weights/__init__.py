"""Weights as objects: revealed along what training visits (the limit), or dense (a network)."""
