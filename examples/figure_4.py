"""Figure 4: deep linear, L = 5. The limit and its approximations against networks of width 1000, by
gamma0."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from examples.setting import open_setting

GAMMAS = (0.25, 0.75, 1.5)
METHODS: dict[str, dict[str, Any]] = {
    "DMFT": {"method": "linear"},
    "static NTK": {"method": "static_ntk"},
    "perturbation": {"method": "perturbation"},
    "gradient independence": {"method": "gradient_independence"},
}


def main() -> None:
    setting = open_setting(__doc__)
    width = 250 if setting.quick else 1000
    problem: dict[str, Any] = {
        **setting.two_classes(20),
        "depth": 5,
        "activation": "linear",
        "learning_rate": 0.025,
        "steps": 100,
        "kernels": ["ntk"],
    }
    methods = METHODS | {f"N = {width}": {"method": "finite_width", "width": width, "ensemble": 4}}
    results = setting.solve_all(
        {
            (label, gamma0): problem | {"gamma0": gamma0} | choice
            for gamma0 in GAMMAS
            for label, choice in methods.items()
        }
    )
    figure = Figure(figsize=(4.5 * len(GAMMAS), 4.5), layout="constrained")
    for axes, gamma0 in zip(figure.subplots(1, len(GAMMAS)), GAMMAS, strict=True):
        networks = results[f"N = {width}", gamma0]
        for label in methods:
            result = results[label, gamma0]
            axes.plot(result.times, result.loss, "k--" if result is networks else "-", label=label)
            gap = float(np.abs(result.loss - networks.loss).max())
            print(
                f"gamma0 {gamma0}, {label}: final loss {result.loss[-1]:.5g}, at most {gap:.2g} from the "
                "networks'"
            )
        axes.set(
            xlabel=r"learning time $\eta t$", ylabel="loss", yscale="log", title=rf"$\gamma_0 = {gamma0}$"
        )
    axes.legend()
    setting.save(figure, "figure_4")


if __name__ == "__main__":
    main()
