"""Time and memory of the solver. `python -m benchmarks [name ...]` runs them and prints ratios."""
