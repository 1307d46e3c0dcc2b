"""How a run moves through time, and how it tells of it."""
