"""Figure 2: deep linear networks, P = 20. Loss by depth, how far the kernel of each layer moves, and for
L = 5 the kernels H^l along and at the end of training; by the algebraic equations and in networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmft_client import Result, compare
from examples.setting import draw_kernels, draw_loss, open_setting

DEPTHS = (1, 2, 3, 5)
DEEPEST = 5
POINTS = 20


def draw_depths(losses: Axes, movement: Axes, results: dict[Any, Result], width: int) -> None:
    for index, depth in enumerate(DEPTHS):
        color = f"C{index}"
        limit, networks = results["limit", depth], results["networks", depth]
        draw_loss(losses, limit, "-", color=color, label=f"L = {depth}")
        draw_loss(losses, networks, "--", color=color)
        layers = range(1, depth + 1)
        moved, moved_there = limit.summary.kernel_movement, networks.summary.kernel_movement
        movement.plot(layers, moved, "x-", color=color, label=f"L = {depth}")
        movement.plot(layers, moved_there, "o", color=color, fillstyle="none")
        apart = 1 - np.array(compare(networks, limit).phi_alignment)
        print(
            f"L {depth}: final loss {limit.loss[-1]:.5f} in the limit, {networks.loss[-1]:.5f} +- "
            f"{networks.loss_standard_error[-1]:.1g} at width {width}; by layer, kernel movement "
            f"{np.round(moved, 3)} and {np.round(moved_there, 3)}, 1 - A {np.round(apart, 4)}"
        )
    losses.set(xlabel=r"learning time $\eta t$", ylabel="loss", yscale="log")
    losses.set_title(f"limit (solid), width {width} (dashed)")
    movement.set(xlabel=r"layer $\ell$", ylabel=r"$|H^\ell(T) - H^\ell(0)|\ /\ |H^\ell(0)|$")
    movement.set_title(f"limit (crosses), width {width} (circles)")
    movement.set_xticks(range(1, DEEPEST + 1))


def draw_traces(axes: Axes, result: Result, line: str, named: bool) -> None:
    """tr H^l(t, t) / P by layer."""
    for layer in range(1, DEEPEST + 1):
        traces = [np.trace(result.phi(layer, t)) / POINTS for t in range(len(result.kernel_times))]
        label = f"$H^{layer}$" if named else None
        axes.plot(result.times[result.kernel_times], traces, line, color=f"C{layer + 3}", label=label)


def main() -> None:
    setting = open_setting(__doc__)
    width = 250 if setting.quick else 1000
    problem: dict[str, Any] = {
        **setting.two_classes(POINTS),
        "activation": "linear",
        "gamma0": 1.5,
        "learning_rate": 0.025,
        "steps": 100,
        "kernels": ["phi"],
        "kernel_times": [*range(0, 100, 5), 99],
    }
    methods = {
        "limit": {"method": "linear"},
        "networks": {"method": "finite_width", "width": width, "ensemble": 4},
    }
    results = setting.solve_all(
        {
            (name, depth): problem | {"depth": depth} | method
            for name, method in methods.items()
            for depth in DEPTHS
        }
    )
    limit, networks = results["limit", DEEPEST], results["networks", DEEPEST]

    figure = Figure(figsize=(13, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(5, 4))
    losses, movement, traces = above.subplots(1, 3)
    draw_depths(losses, movement, results, width)
    draw_traces(traces, limit, "-", named=True)
    draw_traces(traces, networks, "--", named=False)
    traces.set(xlabel=r"learning time $\eta t$", ylabel=r"tr $H^\ell(t, t)\ /\ P$")
    traces.set_title(f"L = {DEEPEST}: limit (solid), width {width} (dashed)")
    for axes in (losses, movement, traces):
        axes.legend()
    draw_kernels(
        below,
        {
            f"L = {DEEPEST}: $H^{layer}$ at the end": (limit.phi(layer), networks.phi(layer))
            for layer in range(1, DEEPEST + 1)
        },
        f"N = {width}",
    )
    setting.save(figure, "figure_2")


if __name__ == "__main__":
    main()
