"""Figure 2: deep linear networks, P = 20. Loss by depth against wide networks, and the movement of the
kernels of every layer."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from examples.setting import open_setting

DEPTHS = (1, 2, 3, 5)


def main() -> None:
    setting = open_setting(__doc__)
    width = 250 if setting.quick else 1000
    problem: dict[str, Any] = {
        **setting.two_classes(20),
        "activation": "linear",
        "gamma0": 1.5,
        "learning_rate": 0.025,
        "steps": 100,
    }
    results = setting.solve_all(
        {("limit", depth): problem | {"depth": depth, "method": "linear"} for depth in DEPTHS}
        | {
            ("network", depth): problem
            | {"depth": depth, "method": "finite_width", "width": width, "ensemble": 4, "kernels": ["phi"]}
            for depth in DEPTHS
        }
    )
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, depth in enumerate(DEPTHS):
        limit, network = results["limit", depth], results["network", depth]
        left.plot(limit.times, limit.loss, color=f"C{index}", label=f"L = {depth}")
        left.plot(network.times, network.loss, "--", color=f"C{index}")
        layers = range(1, depth + 1)
        right.plot(layers, limit.summary.kernel_movement, "o-", color=f"C{index}", label=f"L = {depth}")
        right.plot(layers, network.summary.kernel_movement, "x", color=f"C{index}")
        print(
            f"L {depth}: final loss {limit.loss[-1]:.5g} in the limit, {network.loss[-1]:.5g} +- "
            f"{network.loss_standard_error[-1]:.1g} at width {width}; kernel movement "
            f"{[round(m, 3) for m in limit.summary.kernel_movement]}"
        )
    left.set(
        xlabel=r"learning time $\eta t$",
        ylabel="loss",
        yscale="log",
        title=f"limit (solid), width {width} (dashed)",
    )
    right.set(xlabel="layer", ylabel=r"$|H(T) - H(0)| / |H(0)|$", title=f"limit (line), width {width} (x)")
    for axes in (left, right):
        axes.legend()
    setting.save(figure, "figure_2")


if __name__ == "__main__":
    main()
