"""Figure 3: one hidden layer of ReLUs with weight decay lambda = 1. Loss and kernel on the way to the
fixed point, by gamma0."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from examples.setting import open_setting

GAMMAS = (0.5, 1.0, 2.0, 4.0)


def main() -> None:
    setting = open_setting(__doc__)
    steps, width = (100, 500) if setting.quick else (300, 2000)
    problem: dict[str, Any] = {
        **setting.two_classes(10),
        "depth": 1,
        "activation": "relu",
        "weight_decay": 1.0,
        "learning_rate": 0.05,
        "steps": steps,
    }
    results = setting.solve_all(
        {("limit", gamma0): problem | {"gamma0": gamma0} for gamma0 in GAMMAS}
        | {
            ("network", gamma0): problem
            | {"gamma0": gamma0, "method": "finite_width", "width": width, "ensemble": 4, "kernels": ["phi"]}
            for gamma0 in GAMMAS
        }
    )
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, gamma0 in enumerate(GAMMAS):
        for name, style in (("limit", "-"), ("network", "--")):
            result = results[name, gamma0]
            trace = [np.trace(result.phi(1, t)) for t in range(steps)]
            label = rf"$\gamma_0 = {gamma0}$" if name == "limit" else None
            left.plot(result.times, result.loss, style, color=f"C{index}", label=label)
            right.plot(result.times, trace, style, color=f"C{index}", label=label)
            last = float(np.abs(np.diff(result.loss[-2:]))[0])
            print(
                f"gamma0 {gamma0}, {name}: loss {result.loss[-1]:.5f} (moved {last:.1g} in the last step), "
                f"tr Phi {trace[-1]:.4f}"
            )
    left.set(xlabel=r"learning time $\eta t$", ylabel="loss", title=f"limit (solid), width {width} (dashed)")
    right.set(xlabel=r"learning time $\eta t$", ylabel=r"tr $\Phi$", yscale="log")
    for axes in (left, right):
        axes.legend()
    setting.save(figure, "figure_3")


if __name__ == "__main__":
    main()
