"""What attention learns at infinite width: one block of it, on sequences whose target is in one of their
tokens.

Each sequence has a token that is marked, by a coordinate of its own, among others that are not; the target is
the sign of its first coordinate: attention has to look there. With infinitely many heads of two
neurons, by gamma0, beside networks of finite width and the lazy limit; and the kernel of what is read out, at
the start and at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dmft_client import Result, nn
from dmft_schema.observables import kernel_target_alignment
from examples.setting import draw_loss, open_setting

GAMMAS = (0.3, 1.0, 3.0)
TOKENS, DIMENSION, WIDTH = 3, 4, 256


def sequences(points: int, seed: int) -> dict[str, Any]:
    """P sequences [TOKENS, DIMENSION] and their targets, as many +1 as -1, in this order."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice([-1.0, 1.0], size=(points, TOKENS, DIMENSION))
    targets = np.repeat([1.0, -1.0], points // 2)
    marked = rng.integers(TOKENS, size=points)
    tokens[:, :, 1] = 0.0
    tokens[np.arange(points), marked, 0] = targets
    tokens[np.arange(points), marked, 1] = 2.0
    return {"inputs": tokens, "targets": targets}


def describe(result: Result) -> str:
    targets = np.repeat([1.0, -1.0], result.predictions.shape[1] // 2)
    first, last = (kernel_target_alignment(result.phi(2, t), targets) for t in (0, -1))
    error = result.loss_standard_error
    spread = "" if error is None else f" +- {error[-1]:.1g}"
    return (
        f"final loss {result.loss[-1]:.5f}{spread}, test loss {result.arrays['test_loss'][-1]:.4f}, "
        f"alignment of Phi {first:.3f} -> {last:.3f}"
    )


def main() -> None:
    setting = open_setting(__doc__)
    points, tests, steps = (6, 6, 15) if setting.quick else (6, 20, 25)
    test = sequences(tests, seed=1)
    problem: dict[str, Any] = {
        **sequences(points, seed=0),
        "test_inputs": test["inputs"],
        "test_targets": test["targets"],
        "network": nn.serial(
            nn.dense(), nn.residual(nn.attention(head_size=2)), nn.act("tanh"), nn.readout("mean")
        ),
        "learning_rate": 0.5,
        "steps": steps,
        "kernels": ["phi"],
        "kernel_times": [0, -1],
    }
    methods: dict[str, dict[str, Any]] = {
        "limit": {"method": "dmft", "tolerance": 0.1, "replicas": 2, "samples": 8192},
        "networks": {"method": "finite_width", "width": WIDTH, "ensemble": 8},
    }
    results = setting.solve_all(
        {
            (name, gamma0): problem | {"gamma0": gamma0} | method
            for name, method in methods.items()
            for gamma0 in GAMMAS
        }
        | {"lazy": problem | {"method": "static_ntk", "kernels": ["ntk"]}}
    )
    lazy = results["lazy"]

    figure = Figure(figsize=(13, 9), layout="constrained")
    above, below = figure.subfigures(2, 1)
    losses, test_losses = above.subplots(1, 2)
    for index, gamma0 in enumerate(GAMMAS):
        for name, line in (("limit", "-"), ("networks", "--")):
            look = {"color": f"C{index}", "label": rf"$\gamma_0 = {gamma0}$" if name == "limit" else None}
            draw_loss(losses, results[name, gamma0], line, **look)
            draw_loss(test_losses, results[name, gamma0], line, "test_", **look)
            print(f"gamma0 {gamma0}, {name}: {describe(results[name, gamma0])}")
    print(f"lazy: final loss {lazy.loss[-1]:.5f}, test loss {lazy.arrays['test_loss'][-1]:.4f}")
    draw_loss(losses, lazy, ":", color="black", label="lazy")
    draw_loss(test_losses, lazy, ":", "test_", color="black")
    for axes, title in ((losses, f"loss: limit (solid), N = {WIDTH} (dashed)"), (test_losses, "test loss")):
        axes.set(xlabel=r"learning time $\eta t$", title=title)
    losses.legend()
    kernels = below.subplots(1, len(GAMMAS) + 1)
    shown = [(r"$\Phi$ at the start", results["limit", GAMMAS[0]].phi(2, 0))]
    shown += [(rf"at the end, $\gamma_0 = {g}$", results["limit", g].phi(2, -1)) for g in GAMMAS]
    for axes, (title, kernel) in zip(kernels, shown, strict=True):
        largest = np.abs(kernel).max()
        axes.imshow(kernel, cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes.set(xticks=[], yticks=[], title=title)
    setting.save(figure, "attention")


if __name__ == "__main__":
    main()
