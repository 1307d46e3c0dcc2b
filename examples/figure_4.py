"""Figure 4: deep linear, L = 5, P = 20. The limit and its approximations against networks, by gamma0: the
loss, and how well the kernels H^l align with the networks', over all entries and times."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmft_client import Result, compare
from examples.setting import draw_loss, open_setting

GAMMAS = (0.25, 0.5, 1.0, 1.5, 2.0)
SHOWN = (0.5, 1.0, 2.0)
THEORIES: dict[str, dict[str, Any]] = {
    "DMFT": {"method": "linear"},
    "static NTK": {"method": "static_ntk"},
    "perturbation": {"method": "perturbation"},
    "gradient independence": {"method": "gradient_independence"},
}


def draw_losses(axes: Axes, results: dict[Any, Result], gamma0: float, width: int) -> None:
    networks = results["networks", gamma0]
    for label in THEORIES:
        draw_loss(axes, results[label, gamma0], "-", label=label)
    draw_loss(axes, networks, "--", color="black", label=f"N = {width}")
    # A theory that explodes leaves the picture.
    axes.set(yscale="log", ylim=(networks.loss.min() / 3, 2))
    axes.set(xlabel=r"learning time $\eta t$", title=rf"$\gamma_0 = {gamma0}$")


def distance(name: str, theory: Result, networks: Result) -> float:
    """1 - A of H^l, mean over layers; NaN if either diverged."""
    reached = min(len(theory.loss), len(networks.loss))
    whole = theory.complete and networks.complete
    apart = 1 - float(np.mean(compare(theory, networks).phi_alignment)) if whole else np.nan
    gap = np.abs(theory.loss[:reached] - networks.loss[:reached]).max()
    print(
        f"{name}: final loss {theory.loss[-1]:.3g}, at most {gap:.2g} from the networks'; 1 - A of H^l, mean "
        f"over layers {apart:.1e}" + ("" if whole else f"; diverged after {reached} steps")
    )
    return apart


def main() -> None:
    setting = open_setting(__doc__)
    width, ensemble = (250, 4) if setting.quick else (1000, 8)
    problem: dict[str, Any] = {
        **setting.two_classes(20),
        "depth": 5,
        "activation": "linear",
        "learning_rate": 0.025,
        "steps": 100,
        "kernels": ["phi"],
        "kernel_times": [*range(0, 100, 10), 99],
    }
    methods = THEORIES | {"networks": {"method": "finite_width", "width": width, "ensemble": ensemble}}
    results = setting.solve_all(
        {
            (label, gamma0): problem | {"gamma0": gamma0} | method
            for gamma0 in GAMMAS
            for label, method in methods.items()
        },
        partial=True,
    )

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    *losses, kernels = figure.subplots(1, len(SHOWN) + 1)
    for axes, gamma0 in zip(losses, SHOWN, strict=True):
        draw_losses(axes, results, gamma0, width)
    losses[0].set_ylabel("loss")
    losses[-1].legend()
    apart: dict[str, list[float]] = {label: [] for label in THEORIES}
    for gamma0 in GAMMAS:
        networks = results["networks", gamma0]
        print(
            f"gamma0 {gamma0}, networks: final loss {networks.loss[-1]:.3g} +- "
            f"{networks.loss_standard_error[-1]:.1g}"
        )
        for label in THEORIES:
            name = f"gamma0 {gamma0}, {label}"
            apart[label].append(distance(name, results[label, gamma0], networks))
    for label in THEORIES:
        kernels.plot(GAMMAS, apart[label], "o-", label=label)
    kernels.set(xlabel=r"$\gamma_0$", ylabel=r"$1 - A(H^\ell, H_N^\ell)$, mean over $\ell$", yscale="log")
    kernels.set_title(f"kernels against N = {width}")
    setting.save(figure, "figure_4")


if __name__ == "__main__":
    main()
