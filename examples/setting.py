"""What the figures share: options, the CIFAR-10 images, and how solves are sent and drawn."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from numpy.typing import NDArray

from dmft_client import Client, Result


@dataclass
class Setting:
    """Parsed options and an open client.

    Attributes:
        quick: smaller widths and fewer seeds, to see the shape of a figure in a minute.
    """

    client: Client
    data: Path | None
    output: Path
    quick: bool

    def two_classes(self, points: int) -> dict[str, Any]:
        """P images of CIFAR-10's first two classes, normalised to |x|^2 = D, targets +-1.

        Without --data: the digits 0 and 1, so that the figure can be had without a download.
        """
        if self.data is None:
            return {"dataset": "digits", "classes": [0, 1], "points": points}
        images, labels = _cifar(self.data)
        half = points // 2
        chosen = np.concatenate([np.flatnonzero(labels == c)[:half] for c in (0, 1)])
        inputs = images[chosen].reshape(points, -1).astype(float)
        inputs -= inputs.mean(axis=1, keepdims=True)
        inputs *= np.sqrt(inputs.shape[1]) / np.linalg.norm(inputs, axis=1, keepdims=True)
        return {"inputs": inputs, "targets": np.repeat([1.0, -1.0], half)}

    def two_classes_of_images(self, points: int, test_points: int, side: int = 8) -> dict[str, Any]:
        """P and P' images [side, side, C] of the same two classes: means over squares of pixels, normalised
        as whole images to |x|^2 = D. The digits are 8 x 8 as they are.
        """
        if self.data is None:
            digits = {"dataset": "digits", "classes": [0, 1], "images": True}
            return digits | {"points": points, "test_points": test_points}
        images, labels = _cifar(self.data)
        if images.ndim == 2:  # rows of the Python folder, channels first
            images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        square = images.shape[1] // side
        found = [np.flatnonzero(labels == c) for c in (0, 1)]
        arrays: dict[str, Any] = {}
        for name, first, count in (("", 0, points // 2), ("test_", points // 2, test_points // 2)):
            chosen = images[np.concatenate([f[first : first + count] for f in found])].astype(float)
            pooled = chosen.reshape(len(chosen), side, square, side, square, -1).mean(axis=(2, 4))
            pooled -= pooled.mean(axis=(1, 2, 3), keepdims=True)
            norms = np.linalg.norm(pooled.reshape(len(chosen), -1), axis=1)
            arrays[f"{name}inputs"] = pooled * (pooled[0].size ** 0.5 / norms)[:, None, None, None]
            arrays[f"{name}targets"] = np.repeat([1.0, -1.0], count)
        return arrays

    def solve_all(
        self, requests: Mapping[Any, dict[str, Any]], *, partial: bool = False
    ) -> dict[Any, Result]:
        """Submit everything, then wait for one after the other.

        Args:
            requests: keywords of Client.solve, by any key.
            partial: of a solve that fails, take what it had reached.
        """
        solves = {key: self.client.solve(**keywords, name=str(key)) for key, keywords in requests.items()}
        return {key: solve.wait().result(partial=partial) for key, solve in solves.items()}

    def save(self, figure: Figure, name: str) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / f"{name}.png"
        figure.savefig(path, dpi=100)
        print(f"wrote {path}")


def draw_loss(axes: Axes, result: Result, line: str, prefix: str = "", **look: Any) -> None:
    """Loss over learning time; a band of one standard error where there is one. Of test points by "test_"."""
    loss = result.arrays[f"{prefix}loss"]
    (drawn,) = axes.plot(result.times, loss, line, **look)
    if (error := result.arrays.get(f"{prefix}loss_standard_error")) is not None:
        low, high = loss - error, loss + error
        axes.fill_between(result.times, low, high, color=drawn.get_color(), alpha=0.3, linewidth=0)


def draw_kernels(figure: FigureBase, columns: Mapping[str, tuple[NDArray, NDArray]], below: str) -> None:
    """Kernels of the limit above those of networks, each column in the limit's colours.

    Args:
        figure: to fill.
        columns: by title.
        below: names the networks.
    """
    rows = figure.subplots(2, len(columns), squeeze=False)
    for pair, (title, kernels) in zip(rows.T, columns.items(), strict=True):
        largest = np.abs(kernels[0]).max()
        for axes, kernel in zip(pair, kernels, strict=True):
            axes.imshow(kernel, cmap="RdBu_r", vmin=-largest, vmax=largest)
            axes.set(xticks=[], yticks=[])
        pair[0].set_title(title)
    for axes, name in zip(rows[:, 0], ("limit", below), strict=True):
        axes.set_ylabel(name)


def _cifar(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from an NPZ with x_train, y_train, or from CIFAR-10's Python folder."""
    if source.is_dir():
        with open(source / "data_batch_1", "rb") as stream:
            batch = pickle.load(stream, encoding="bytes")
        return np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    with np.load(source) as arrays:
        return arrays["x_train"], arrays["y_train"].ravel()


def open_setting(description: str | None) -> Setting:
    """Read the command line and connect."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="CIFAR-10: its Python folder, or an NPZ (the digits)")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder (figures)")
    parser.add_argument("--url", help="the server (the local one)")
    parser.add_argument("--quick", action="store_true", help="smaller networks, fewer seeds")
    arguments = parser.parse_args()
    client = Client(arguments.url)
    client.capabilities()  # is there a server at all? From now on it is waited for.
    return Setting(client, arguments.data, arguments.output, arguments.quick)
