"""How often error bars of dmft hold what a much finer run finds: 100 random problems, 20 seeds each.

Problems are small (P up to 4, 10 steps, 512 samples in 4 replicas, the fewest that make sense), judges have
16 times the samples at a fifth of the tolerance. Intervals are of 95% by Student's t with R - 1 degrees of
freedom; the loss's have its truncation error besides. Spread over bar is the standard deviation between seeds
over the root mean square of the bars reported: 1 if they are honest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from dmft_engine import Problem, Result, solve
from dmft_schema import SolveRequest

PROBLEMS, SEEDS, REPLICAS, SAMPLES, STEPS = 100, 20, 4, 512, 10
TIMES = (1, 5, 9)
ACTIVATIONS = ("tanh", "erf", "relu", "gelu", "softplus", "sin", "quadratic")
PARTS = ("loss", "predictions", "phi", "g", "ntk")


def drawn(index: int) -> dict[str, Any]:
    """The sections of a request, but for its method."""
    generator = np.random.default_rng([10, index])
    points, depth = int(generator.integers(1, 5)), int(generator.integers(1, 4))
    inputs = generator.normal(size=(points, points + 2))
    activation = str(generator.choice(ACTIVATIONS))
    inputs *= 0.5 if activation == "quadratic" else 1.0
    largest = np.linalg.eigvalsh(inputs @ inputs.T / inputs.shape[1])[-1]
    return {
        "data": {"inputs": inputs.tolist(), "targets": generator.choice([-1.0, 1.0], size=points).tolist()},
        "network": {
            "depth": depth,
            "activation": activation,
            "gamma0": float(generator.choice([0.1, 0.3, 1.0, 2.0])),
        },
        "training": {
            "steps": STEPS,
            "learning_rate": float(generator.uniform(0.1, 0.4) * points / (largest * (1 + depth))),
        },
        "outputs": {"kernels": ["phi", "g", "ntk"], "kernel_times": list(TIMES)},
    }


def solved(sections: dict[str, Any], **method: Any) -> Result:
    request = SolveRequest.model_validate(sections | {"method": {"name": "dmft"} | method})
    return solve(Problem.from_request(request))


def estimates(result: Result) -> dict[str, tuple[NDArray, NDArray, NDArray | float]]:
    """Of each part, flat: values, standard errors, and truncation errors."""
    arrays, times = result.arrays, list(TIMES)
    found: dict[str, tuple[NDArray, NDArray, NDArray | float]] = {
        "loss": (
            arrays["loss"][times],
            arrays["loss_standard_error"][times],
            arrays["loss_truncation_error"][times],
        ),
        "predictions": (
            arrays["predictions"][times].ravel(),
            arrays["predictions_standard_error"][times].ravel(),
            0.0,
        ),
        "ntk": (arrays["ntk"].ravel(), arrays["ntk_standard_error"].ravel(), 0.0),
    }
    for kind in ("phi", "g"):
        values, errors = [], []
        for layer in range(1, result.problem.network.depth + 1):
            kernel = arrays[f"{kind}_{layer}"]
            values += [kernel[k, :, k].ravel() for k in range(len(TIMES))]
            errors.append(arrays[f"{kind}_{layer}_standard_error"].ravel())
        found[kind] = (np.concatenate(values), np.concatenate(errors), 0.0)
    return found


def measure(problems: int = PROBLEMS, seeds: int = SEEDS) -> dict[str, dict[str, list[float]]]:
    """For each part and problem: the fraction of intervals that hold the judge's value, spread over bar."""
    quantile = student.ppf(0.975, REPLICAS - 1)
    found: dict[str, dict[str, list[float]]] = {p: {"held": [], "spread": []} for p in PARTS}
    for index in range(problems):
        sections = drawn(index)
        judge = solved(sections, samples=16 * SAMPLES, replicas=8, tolerance=2e-3, seed=1000)
        runs = [solved(sections, samples=SAMPLES, replicas=REPLICAS, seed=seed) for seed in range(seeds)]
        if judge.error is not None or any(run.error for run in runs):
            continue
        finest = estimates(judge)
        several = [estimates(run) for run in runs]
        for part in PARTS:
            truth, own, _ = finest[part]
            values, errors = (np.array([run[part][i] for run in several]) for i in range(2))
            allowed = np.array([run[part][2] * np.ones_like(truth) for run in several])
            # What rounding leaves is no statement about sampling: phi at t = 0 may be exact.
            random = np.sqrt(np.square(errors).mean(0)) > 1e-6 * np.abs(truth).max()
            if not random.any():
                continue
            held = np.abs(values - truth) <= quantile * np.hypot(errors, own) + allowed
            found[part]["held"].append(float(held[:, random].mean()))
            ratio = values.std(0, ddof=1) / np.sqrt(np.square(errors).mean(0).clip(1e-300))
            found[part]["spread"].append(float(np.sqrt(np.square(ratio[random]).mean())))
    return found


def main() -> None:
    print(f"{PROBLEMS} problems, {SEEDS} seeds, {SAMPLES} samples in {REPLICAS} replicas")
    print("| | problems | held, of 95% | worst problem | spread over bar: median, 5% to 95% |")
    print("|---|---|---|---|---|")
    for part, rows in measure().items():
        held, spread = np.array(rows["held"]), np.array(rows["spread"])
        low, middle, high = np.quantile(spread, [0.05, 0.5, 0.95])
        print(
            f"| {part} | {len(held)} | {100 * held.mean():.1f}% | {100 * held.min():.0f}% | "
            f"{middle:.2f}, {low:.2f} to {high:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
