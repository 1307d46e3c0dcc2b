"""Figure 1: tanh, L = 3, P = 10. Loss at several gamma0 against wide networks, and the alignment of
finite networks' kernels with the limit's as their width grows (10 seeds)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dmft_client import compare
from examples.setting import open_setting

GAMMAS = (0.25, 0.5, 1.0)


def main() -> None:
    setting = open_setting(__doc__)
    widest, seeds = (500, 3) if setting.quick else (2500, 10)
    widths = [w for w in (50, 100, 250, 500, 1000, 2500) if w <= widest]
    problem: dict[str, Any] = {
        **setting.two_classes(10),
        "depth": 3,
        "activation": "tanh",
        "learning_rate": 0.1,
        "steps": 100,
    }
    curves = setting.solve_all(
        {("dmft", gamma0): problem | {"gamma0": gamma0} for gamma0 in GAMMAS}
        | {
            ("network", gamma0): problem
            | {"gamma0": gamma0, "method": "finite_width", "width": widest, "ensemble": 1, "kernels": []}
            for gamma0 in GAMMAS
        }
    )
    networks = setting.solve_all(
        {
            (width, seed): problem
            | {"gamma0": 1.0, "method": "finite_width", "width": width, "ensemble": 1, "seed": seed}
            for width in widths
            for seed in range(seeds)
        }
    )
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, gamma0 in enumerate(GAMMAS):
        limit, network = curves["dmft", gamma0], curves["network", gamma0]
        left.plot(limit.times, limit.loss, color=f"C{index}", label=rf"$\gamma_0 = {gamma0}$")
        left.plot(network.times, network.loss, "--", color=f"C{index}")
        print(
            f"gamma0 {gamma0}: final loss {limit.loss[-1]:.5f} in the limit, {network.loss[-1]:.5f} at "
            f"width {widest}"
        )
    left.set(
        xlabel=r"learning time $\eta t$",
        ylabel="loss",
        yscale="log",
        title=f"limit (solid), width {widest} (dashed)",
    )
    left.legend()
    for layer in (1, 2, 3):
        aligned = np.array(
            [
                [compare(networks[w, s], curves["dmft", 1.0]).phi_alignment[layer - 1] for s in range(seeds)]
                for w in widths
            ]
        )
        mean, spread = 1 - aligned.mean(axis=1), aligned.std(axis=1, ddof=1)
        right.errorbar(widths, mean, spread, marker="o", label=rf"$\Phi^{layer}$")
        numbers = ", ".join(f"{w}: {m:.2e} +- {s:.0e}" for w, m, s in zip(widths, mean, spread, strict=True))
        print(f"1 - alignment of Phi^{layer} by width: {numbers}")
    right.set(
        xlabel="width N",
        ylabel=r"$1 - A(\Phi_N, \Phi_\infty)$",
        xscale="log",
        yscale="log",
        title=r"all entries and times, $\gamma_0 = 1$",
    )
    right.legend()
    setting.save(figure, "figure_1")


if __name__ == "__main__":
    main()
