"""Pictures: every kind of every result, the same bytes twice, and as when somebody looked at them."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dmft_client.plots import compare_figure, plot
from dmft_figures import FORMATS, KINDS, NothingToDraw, Options, render
from tests.client.test_labelled import result_of

KEPT = Path(__file__).parent / "data" / "figures"
SMALL = Options(width=5, height=3.5, dpi=60)
MOST_DIFFERENT = 3.0
"""Root mean square of the difference of two pictures, of 255: fonts differ a little between machines."""


def curves_of(seed: float = 0.0) -> dict[str, NDArray]:
    """A result made by formulae, so that pictures depend on no solver."""
    steps, points, kept = 40, 4, [0, 20, 39]
    times = 0.1 * np.arange(steps)
    loss = np.exp(-times * (1 + seed)) + 0.01
    base = np.cos(np.subtract.outer(np.arange(points), np.arange(points)) + seed)
    growth = np.sqrt(1 + np.array(kept) / 20)
    phi = np.einsum("t,ab,s->tasb", growth, base, growth) + np.eye(points)[None, :, None, :]
    edges = np.linspace(-3, 3, 65)
    density = np.exp(-((edges[1:] - 0.05) ** 2)[None] / (1 + np.arange(2))[:, None])
    arrays = {
        "times": times,
        "loss": loss,
        "loss_standard_error": 0.05 * loss,
        "test_loss": 1.5 * loss,
        "kernel_times": np.array(kept),
        "ntk": np.array([g * base + np.eye(points) for g in growth]),
        "field_times": np.array([0, 39]),
    }
    for layer in (1, 2):
        arrays |= {f"phi_{layer}": layer * phi, f"g_{layer}": phi / layer}
        for field in "hz":
            arrays[f"histogram_{field}_{layer}"] = density
            arrays[f"histogram_bins_{field}_{layer}"] = np.stack([edges, edges])
    return arrays


def pixels(picture: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=np.float64)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_look_as_they_did(kind: str, count: int, theme: str) -> None:
    if theme == "dark" and (count, kind) != (1, "summary"):
        pytest.skip("one dark picture is enough")
    results = {f"run {index}": curves_of(0.3 * index) for index in range(count)}
    drawn = render(kind, results, "png", SMALL.model_copy(update={"theme": theme}))
    file = KEPT / f"{kind}_{count}_{theme}.png"
    if not file.exists():
        KEPT.mkdir(exist_ok=True)
        file.write_bytes(drawn)
        pytest.fail(f"{file} was not there; look at it")
    now, kept = pixels(drawn), pixels(file.read_bytes())
    assert now.shape == kept.shape
    assert np.sqrt(np.square(now - kept).mean()) < MOST_DIFFERENT
    assert now.std() > 10  # something is drawn


@pytest.mark.parametrize("case", ["dmft", "fields, outputs", "no kernels", "static_ntk", "test points"])
def test_every_kind_of_every_result(case: str) -> None:
    """A picture, or what to ask for: no warning of matplotlib's, no error of another kind."""
    arrays = result_of(case).arrays
    for kind, (layer, scale) in product(KINDS, ((None, "log"), (-1, "linear"))):
        options = SMALL.model_copy(update={"layer": layer, "scale": scale})
        needs = {"loss": "times", "summary": "times", "fields": "field_times"}.get(kind, "kernel_times")
        if needs in arrays:
            assert b"<svg" in render(kind, {case: arrays}, "svg", options)
        else:
            with pytest.raises(NothingToDraw, match="ask for outputs"):
                render(kind, {case: arrays}, "svg", options)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_picture_is_the_same_bytes(format: str) -> None:
    first, second = (render("summary", {"run": curves_of()}, format, SMALL) for _ in range(2))
    assert first == second
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[format])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("kernels", {"layer": 3}), ("alignment", {"layer": 0}), ("fields", {"layer": 7}), ("kernels", {"t": 3})],
)
def test_what_is_not_there_is_named(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(NothingToDraw, match=r"layer|outside"):
        render(kind, {"run": curves_of()}, "png", SMALL.model_copy(update=options))


@pytest.mark.parametrize("loss", [np.zeros(40), np.full(40, 1e-300), np.full(40, 1e200)])
def test_losses_of_any_size(loss: NDArray) -> None:
    arrays = curves_of() | {"loss": loss, "loss_standard_error": 0 * loss}
    for scale in ("log", "linear"):
        assert render("loss", {"run": arrays}, "png", SMALL.model_copy(update={"scale": scale}))


def test_the_client_draws_the_same() -> None:
    result = result_of("dmft")
    assert len(plot(result).axes) == 1
    assert len(plot({"a": result, "b": result}, "kernels", layer=1).axes) == 4  # two maps, two colour bars
    assert compare_figure({"a": result, "b": result}, 2).axes[0].get_yscale() == "log"
