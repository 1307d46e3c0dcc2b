"""What a run keeps, and how that becomes a result."""
