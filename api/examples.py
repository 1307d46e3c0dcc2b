"""Request bodies shown in /docs; tests paste each of them."""

from __future__ import annotations

from fastapi.openapi.models import Example

SOLVE_EXAMPLES: dict[str, Example] = {
    "digits": Example(
        summary="Two classes of the digits, the infinite-width limit",
        value={
            "data": {"dataset": "digits", "classes": [0, 1], "samples": 10},
            "network": {"depth": 2, "activation": "tanh", "gamma0": 1.0},
            "training": {"learning_rate": 0.1, "steps": 20},
            "method": {"name": "dmft", "samples": 2048, "seed": 0},
        },
    ),
    "kernel": Example(
        summary="Your own kernel and targets, the lazy limit",
        value={
            "data": {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]},
            "network": {"depth": 3, "activation": "relu"},
            "method": {"name": "static_ntk"},
        },
    ),
    "inputs": Example(
        summary="Your own inputs, networks of width 200",
        value={
            "data": {
                "inputs": [[1.0, 0.5, -0.5], [-0.3, 1.0, 0.8]],
                "targets": [1.0, -1.0],
                "test_inputs": [[0.9, 0.6, -0.4]],
            },
            "network": {"depth": 2, "activation": "erf", "gamma0": 0.5},
            "training": {"learning_rate": 0.1, "steps": 20},
            "method": {"name": "finite_width", "width": 200, "ensemble": 4},
        },
    ),
}
