"""Figure 5: convolutional networks of several widths by gamma0, and what the paper could not draw, the limit
of infinitely many channels.

Test loss, test error and the alignment of the NTK with the targets against learning time. Two filters of
size 3 and stride 2, gelu, the spatial mean, images of 8 x 8. (The paper has three filters of stride 1, ReLU,
32 x 32 and ten thousand images. A limit visits a direction for each point and position that differs from
the others, of ReLU new ones at every step.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmft_client import Result, nn
from dmft_schema.observables import kernel_target_alignment
from examples.setting import draw_loss, open_setting

GAMMAS = (0.3, 1.0, 3.0)


def network() -> list[Any]:
    filters = nn.serial(nn.conv(3, stride=2), nn.act("gelu"))
    return nn.serial(filters, filters, nn.readout("mean"))


def signs(predictions: NDArray) -> NDArray:
    """The targets: one half of the points is of either class."""
    return np.repeat([1.0, -1.0], predictions.shape[1] // 2)


def alignments(result: Result) -> NDArray:
    """[K] of the NTK with the targets, at the kernel times."""
    times = range(len(result.kernel_times))
    targets = signs(result.predictions)
    return np.array([kernel_target_alignment(result.ntk(t), targets) for t in times])


def test_errors(result: Result) -> NDArray:
    """[T] part of the test points whose prediction, in the mean over members, has the wrong sign."""
    predictions = result.test_predictions
    assert predictions is not None
    return np.asarray((predictions * signs(predictions) <= 0).mean(axis=1))


def describe(result: Result) -> str:
    assert result.test_loss is not None
    test_error = result.arrays["test_loss_standard_error"]
    aligned = alignments(result)
    return (
        f"final test loss {result.test_loss[-1]:.4f} +- {test_error[-1]:.1g}, "
        f"test error {test_errors(result)[-1]:.3f}, "
        f"loss {result.loss[-1]:.5f} +- {result.loss_standard_error[-1]:.1g}, "
        f"alignment {aligned[0]:.4f} -> {aligned[-1]:.4f}"
    )


def main() -> None:
    setting = open_setting(__doc__)
    points, tests, widths, steps = (4, 10, (16, 64), 25) if setting.quick else (8, 20, (32, 128, 512), 50)
    problem: dict[str, Any] = {
        **setting.two_classes_of_images(points, tests),
        "network": network(),
        "learning_rate": 0.4,
        "steps": steps,
        "kernels": ["ntk"],
    }
    limit = {"method": "dmft", "tolerance": 0.1, "replicas": 2, "samples": 4096 if setting.quick else 8192}
    methods: dict[Any, dict[str, Any]] = {
        width: {"method": "finite_width", "width": width, "ensemble": 4} for width in widths
    } | {"limit": limit}
    results = setting.solve_all(
        {
            (name, gamma0): problem | {"gamma0": gamma0} | method
            for name, method in methods.items()
            for gamma0 in GAMMAS
        }
    )

    figure = Figure(figsize=(13, 10), layout="constrained")
    rows = figure.subplots(len(GAMMAS), 3, sharex=True)
    for (losses, errors, aligned), gamma0 in zip(rows, GAMMAS, strict=True):
        for index, name in enumerate(methods):
            result = results[name, gamma0]
            is_limit = name == "limit"
            look: dict[str, Any] = {"color": "black" if is_limit else f"C{index}"}
            line = "-" if is_limit else "--"
            draw_loss(losses, result, line, "test_", label="limit" if is_limit else f"N = {name}", **look)
            errors.plot(result.times, test_errors(result), line, **look)
            aligned.plot(result.times[result.kernel_times], alignments(result), line, **look)
            print(f"gamma0 {gamma0}, {name}: {describe(result)}")
        losses.set(ylabel=rf"test loss, $\gamma_0 = {gamma0}$")
        errors.set(ylabel="test error", ylim=(-0.02, 0.52))
        aligned.set(ylabel=r"$y^T K y\ /\ |y|^2 |K|$")
    rows[0, 0].legend()
    for axes, title in zip(rows[0], ("test loss", "test error", "alignment of the NTK"), strict=True):
        axes.set_title(title)
    for axes in rows[-1]:
        axes.set_xlabel(r"learning time $\eta t$")
    setting.save(figure, "figure_5")


if __name__ == "__main__":
    main()
