"""Figure 1: tanh, L = 3, P = 10. Loss by gamma0 in the limit and in wide networks, alignment of single
networks' kernels with the limit's as width grows (mean and standard deviation over 10 seeds), and the
kernels at the end of training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmft_client import Result, compare
from examples.setting import draw_kernels, draw_loss, open_setting

GAMMAS = (0.25, 0.5, 1.0)
WIDTHS = (50, 100, 250, 500, 1000, 2500)
LAYERS = (1, 2, 3)


def draw_losses(axes: Axes, results: dict[Any, Result], width: int) -> None:
    for index, gamma0 in enumerate(GAMMAS):
        limit, networks = results["limit", gamma0], results["networks", gamma0]
        draw_loss(axes, limit, "-", color=f"C{index}", label=rf"$\gamma_0 = {gamma0}$")
        draw_loss(axes, networks, "--", color=f"C{index}")
        print(
            f"gamma0 {gamma0}: final loss {limit.loss[-1]:.5f} +- {limit.loss_standard_error[-1]:.1g} in the "
            f"limit, {networks.loss[-1]:.5f} +- {networks.loss_standard_error[-1]:.1g} at width {width}"
        )
    axes.set(xlabel=r"learning time $\eta t$", ylabel="loss", yscale="log")
    axes.set_title(f"limit (solid), width {width} (dashed)")
    axes.legend()


def draw_distance(
    axes: Axes, kernel: str, widths: tuple[int, ...], distance: NDArray, resampled: float
) -> None:
    """1 - A of one layer's kernel, [widths, seeds]; `resampled` is between two solves of the limit."""
    mean, spread = distance.mean(axis=1), distance.std(axis=1, ddof=1)
    drawn = axes.errorbar(widths, mean, spread, marker="o", capsize=3, label=f"${kernel}$")
    axes.axhline(resampled, linestyle=":", color=drawn[0].get_color())
    numbers = (f"{w}: {m:.1e} +- {s:.0e}" for w, m, s in zip(widths, mean, spread, strict=True))
    slope = np.polyfit(np.log(widths), np.log(mean), 1)[0]
    name = kernel.lstrip("\\")
    print(
        f"1 - A of {name} by width: {', '.join(numbers)}; slope {slope:.2f}; the limit resampled: "
        f"{resampled:.0e}"
    )


def main() -> None:
    setting = open_setting(__doc__)
    widths, seeds = (WIDTHS[:3], range(5)) if setting.quick else (WIDTHS, range(10))
    widest = widths[-1]
    problem: dict[str, Any] = {
        **setting.two_classes(10),
        "depth": 3,
        "activation": "tanh",
        "gamma0": 1.0,
        "learning_rate": 0.1,
        "steps": 100,
        "kernels": ["phi", "g"],
        "kernel_times": [*range(0, 100, 10), 99],
    }
    network = problem | {"method": "finite_width", "width": widest, "ensemble": 4}
    curves = setting.solve_all(
        {("limit", gamma0): problem | {"gamma0": gamma0} for gamma0 in GAMMAS}
        | {("networks", gamma0): network | {"gamma0": gamma0} for gamma0 in GAMMAS}
        | {"resampled": problem | {"seed": 1}}
    )
    single = setting.solve_all(
        {
            (width, seed): network | {"width": width, "ensemble": 1, "seed": seed}
            for width in widths
            for seed in seeds
        }
    )
    limit, shown = curves["limit", 1.0], single[widest, 0]

    figure = Figure(figsize=(13, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(5, 4))
    losses, *alignments = above.subplots(1, 3)
    draw_losses(losses, curves, widest)
    compared = {key: compare(result, limit) for key, result in single.items()}
    resampled = compare(curves["resampled"], limit)
    for axes, name, symbol in zip(alignments, ("phi", "g"), (r"\Phi", "G"), strict=True):
        aligned = {key: getattr(comparison, f"{name}_alignment") for key, comparison in compared.items()}
        for layer in LAYERS:
            distance = np.array([[1 - aligned[w, s][layer - 1] for s in seeds] for w in widths])
            floor = 1 - getattr(resampled, f"{name}_alignment")[layer - 1]
            draw_distance(axes, f"{symbol}^{layer}", widths, distance, floor)
        axes.set(xlabel="width N", ylabel=f"$1 - A({symbol}_N, {symbol}_\\infty)$")
        axes.set(xscale="log", yscale="log")
        axes.set_title(rf"$\gamma_0 = 1$, {len(seeds)} seeds; limit resampled (dotted)")
        axes.set_xticks(widths, labels=widths)
        axes.minorticks_off()
        axes.legend()
    draw_kernels(
        below,
        {rf"$\Phi^{layer}$ at the end": (limit.phi(layer), shown.phi(layer)) for layer in LAYERS}
        | {rf"$G^{layer}$ at the end": (limit.g(layer), shown.g(layer)) for layer in LAYERS},
        f"one of N = {widest}",
    )
    setting.save(figure, "figure_1")


if __name__ == "__main__":
    main()
