"""The version of the engine's numbers, known without importing torch."""

NUMERICS_VERSION = "4"
"""Raised whenever the engine's numbers change, so that no older result is reused for a new one."""
