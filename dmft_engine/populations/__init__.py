"""Sampled neurons, what is known of them, and the one owner of random numbers."""
