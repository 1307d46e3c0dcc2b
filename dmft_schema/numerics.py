"""The version of the engine's numbers, known without importing torch."""

NUMERICS_VERSION = "5"
"""Raised whenever the engine's numbers change, so that no older result is reused for a new one."""
