"""Figure 3: one hidden layer of ReLUs with L2 regularisation lambda = 1, to the fixed point, by gamma0.

The paper sums the loss over points and this service takes its mean: lambda = 1 there is `weight_decay` 1 / P
here, at P times the learning rate. (`weight_decay` 1 is lambda = P: at these gamma0 everything dies of it.)

At a fixed point the readout's gradient gives f = Phi (Phi + lambda I)^-1 y with the last Phi, and all
gradients together give f = K (K + 2 lambda I)^-1 y with the last NTK, the network being homogeneous of
degree 2. Both are printed. The second needs phi' where training ends, but weight decay drives ReLUs onto
their kinks, h_mu = 0 for points mu of the other class: there phi' goes on switching, at any learning rate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmft_client import Result
from dmft_schema.observables import kernel_target_alignment
from examples.setting import draw_kernels, draw_loss, open_setting

GAMMAS = (0.25, 0.5, 1.0, 2.0)
POINTS = 10
LAMBDA = 1.0
TARGETS = np.repeat([1.0, -1.0], POINTS // 2)


def ridge(kernel: NDArray, penalty: float) -> NDArray:
    """K (K + penalty I)^-1 y."""
    return kernel @ np.linalg.solve(kernel + penalty * np.eye(POINTS), TARGETS)


def off_the_fixed_point(result: Result) -> tuple[NDArray, NDArray]:
    """[P] f at the end minus what the last Phi says of it, and minus what the last NTK says."""
    f = result.predictions[-1]
    return f - ridge(result.phi(1), LAMBDA), f - ridge(result.ntk(), 2 * LAMBDA)


def describe(result: Result) -> str:
    start, end = result.phi(1, 0), result.phi(1)
    by_phi, by_ntk = (np.abs(deviation).max() for deviation in off_the_fixed_point(result))
    last_step = np.abs(np.diff(result.predictions[-2:], axis=0)).max()
    return (
        f"final loss {result.loss[-1]:.4f} +- {result.loss_standard_error[-1]:.1g}, tr Phi "
        f"{np.trace(start):.2f} -> {np.trace(end):.2g}, alignment with the targets "
        f"{kernel_target_alignment(start, TARGETS):.3f} -> {kernel_target_alignment(end, TARGETS):.3f}; off "
        f"the fixed point by Phi {by_phi:.1e}, by NTK {by_ntk:.1e}; last step {last_step:.0e}"
    )


def main() -> None:
    setting = open_setting(__doc__)
    steps, width, samples = (80, 1000, 4096) if setting.quick else (200, 2500, 32768)
    problem: dict[str, Any] = {
        **setting.two_classes(POINTS),
        "depth": 1,
        "activation": "relu",
        "weight_decay": LAMBDA / POINTS,
        "learning_rate": 0.5,
        "steps": steps,
        "kernels": ["phi", "ntk"],
        "kernel_times": [*range(0, steps, 10), steps - 1],
    }
    methods = {
        # Without hidden matrices the tolerance does nothing but round the recorded Phi.
        "limit": {"method": "dmft", "tolerance": 0.05, "samples": samples},
        "networks": {"method": "finite_width", "width": width, "ensemble": 4},
    }
    results = setting.solve_all(
        {
            (name, gamma0): problem | {"gamma0": gamma0} | method
            for name, method in methods.items()
            for gamma0 in GAMMAS
        }
    )

    figure = Figure(figsize=(13, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(5, 4))
    losses, alignments, ends = above.subplots(1, 3)
    for index, gamma0 in enumerate(GAMMAS):
        for name, line in (("limit", "-"), ("networks", "--")):
            result = results[name, gamma0]
            draw_loss(
                losses,
                result,
                line,
                color=f"C{index}",
                label=rf"$\gamma_0 = {gamma0}$" if name == "limit" else None,
            )
            times = range(len(result.kernel_times))
            aligned = [kernel_target_alignment(result.phi(1, t), TARGETS) for t in times]
            alignments.plot(result.times[result.kernel_times], aligned, line, color=f"C{index}")
            print(f"gamma0 {gamma0}, {name}: {describe(result)}")
        for deviation, marker in zip(off_the_fixed_point(results["limit", gamma0]), "ox", strict=True):
            ends.plot(results["limit", gamma0].predictions[-1], deviation, marker, color=f"C{index}")
    losses.set(xlabel=r"learning time $\eta t$", ylabel="loss")
    losses.set_title(f"limit (solid), width {width} (dashed)")
    losses.legend()
    alignments.set(xlabel=r"learning time $\eta t$", ylabel=r"$y^T \Phi y\ /\ |y|^2 |\Phi|$")
    alignments.set_title(r"alignment of $\Phi$ with the targets")
    ends.set(xlabel="f at the end, limit", ylabel="f - kernel regression")
    ends.set_title(r"$\Phi(\Phi + \lambda I)^{-1} y$ (dots), $K(K + 2\lambda I)^{-1} y$ (crosses)")
    draw_kernels(
        below,
        {
            rf"$\gamma_0 = {gamma0}$: $\Phi$ at the end": (
                results["limit", gamma0].phi(1),
                results["networks", gamma0].phi(1),
            )
            for gamma0 in GAMMAS
        },
        f"N = {width}",
    )
    setting.save(figure, "figure_3")


if __name__ == "__main__":
    main()
