"""Fields of single neurons, and the responses A and B."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from dmft_engine.record.responses import DEPENDENT
from tests.accuracy import Accuracy
from tests.engine.test_alternating import REPLICAS, alternating, setting
from tests.problems import run, sphere


def revealed(problem: dict[str, Any], **outputs: Any) -> dict[str, np.ndarray]:
    method = {"name": "dmft", "readout": "ntk", "samples": 32768, "replicas": REPLICAS, "tolerance": 3e-3}
    return run(**problem, method=method, outputs=outputs).arrays


def product_and_error(arrays: dict[str, np.ndarray], name: str, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """A G^{l+1} or B Phi^l, and a bound of its error: errors of sums are at most sums of errors."""
    kernel_name = f"g_{layer + 1}" if name == "a" else f"phi_{layer}"
    kernel = arrays[kernel_name]
    size = int(np.prod(kernel.shape[: kernel.ndim // 2]))
    flat = kernel.reshape(size, size)
    response = arrays[f"{name}_{layer}"].reshape(-1, size)
    error = arrays[f"{name}_{layer}_standard_error"].reshape(-1, size)
    relative = arrays[f"{kernel_name}_standard_error"].max() / np.abs(flat).max()
    return response @ flat, error @ np.abs(flat) + relative * np.abs(response) @ np.abs(flat)


def known_part(arrays: dict[str, np.ndarray], name: str, layer: int, outputs: int) -> np.ndarray:
    """A or B before equal times, projected on the combinations of earlier fields that do not vanish."""
    kernel = arrays[f"g_{layer + 1}" if name == "a" else f"phi_{layer}"]
    response = arrays[f"{name}_{layer}"].copy()
    steps = len(response)
    columns = 4 * (outputs if name == "a" else 1)
    flat_kernel = kernel.reshape(steps * columns, -1)
    flat = response.reshape(steps, -1, steps * columns)
    for t in range(1, steps):
        values, vectors = np.linalg.eigh(flat_kernel[: t * columns, : t * columns])
        kept = vectors[:, values > DEPENDENT * values[-1]]
        flat[t, :, : t * columns] = flat[t, :, : t * columns] @ kept @ kept.T
    return flat.reshape(response.shape)


@pytest.mark.parametrize(("activation", "outputs"), [("tanh", 1), ("softplus", 1), ("tanh", 2)])
def test_responses_of_dmft_meet_those_of_alternating(
    activation: str, outputs: int, accuracy: Accuracy
) -> None:
    """What acts on the fields, A G and B Phi, within both errors, and so what of A and B can be known."""
    problem = setting(activation, 3, steps=12)
    if outputs == 2:
        problem["data"]["targets"] = np.eye(2)[[0, 1, 1, 0]].tolist()
    found = revealed(problem, responses=True)
    expected = alternating(problem, samples=16384, responses=True)
    quantile = stats.t.ppf(1 - 0.001 / (2 * 48**2 * outputs), REPLICAS - 1)
    for layer in (1, 2):
        for name in ("a", "b"):
            key = f"{name}_{layer}"
            assert found[key].shape == expected[key].shape
            (mine, my_error), (other, other_error) = (
                product_and_error(arrays, name, layer) for arrays in (found, expected)
            )
            product = "A G" if name == "a" else "B Phi"
            accuracy(
                f"responses of `dmft`, {activation} L = 3, {outputs} output(s): {product}",
                "`alternating`",
                mine - other,
                np.hypot(my_error, other_error) + 1e-6,
            )
            assert (np.abs(mine - other) <= quantile * np.hypot(my_error, other_error) + 1e-6).all()
            assert np.linalg.norm(mine - other) < 0.05 * np.linalg.norm(other)
            error = np.hypot(*(np.linalg.norm(a[f"{key}_standard_error"]) for a in (found, expected)))
            known = known_part(expected, name, layer, outputs)
            assert np.linalg.norm(found[key] - known) < 3 * error
            assert error < 0.2 * np.linalg.norm(known)


def test_responses_of_dmft_meet_the_algebra(monkeypatch: pytest.MonkeyPatch, accuracy: Accuracy) -> None:
    """Without noise, nothing needs to be left out."""
    monkeypatch.setattr("dmft_engine.record.responses.DEPENDENT", 1e-14)
    problem = setting("linear", 3, steps=15)
    method = {"name": "dmft", "readout": "ntk", "samples": 2048, "tolerance": 1e-8, "dtype": "float64"}
    found = run(**problem, method=method, outputs={"responses": True}).arrays
    exact = run(**problem, method={"name": "linear", "readout": "ntk"}, outputs={"responses": True}).arrays
    for layer in (1, 2):
        # Summed over the data index that a linear network's responses lack.
        a = found[f"a_{layer}"].sum(3)
        accuracy(
            "responses of `dmft`, linear L = 3, float64: A, over its largest entry",
            "`linear`",
            a - exact[f"a_{layer}"],
            scale=np.abs(a).max(),
        )
        np.testing.assert_allclose(a, exact[f"a_{layer}"], atol=1e-4 * np.abs(a).max())
        phi = exact[f"phi_{layer}"].reshape(60, 60)
        mine = found[f"b_{layer}"].reshape(60, 60) @ phi
        expected = exact[f"b_{layer}"].reshape(15, 60) @ phi
        for point in range(4):
            own = mine.reshape(15, 4, 60)[:, point]
            np.testing.assert_allclose(own, expected, atol=1e-4 * np.abs(expected).max())


def test_responses_at_chosen_times_are_those_of_all() -> None:
    problem = setting("tanh", 2, steps=8)
    whole = revealed(problem, responses=True)
    chosen = revealed(problem, responses=True, kernel_times=[2, -1])
    for name in ("a_1", "b_1"):
        np.testing.assert_allclose(chosen[name], whole[name][[2, 7]][:, :, [2, 7]], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("method", ["dmft", "finite_width", "gradient_independence"])
def test_fields_are_those_of_the_kernels(method: str, outputs: int) -> None:
    """Of all neurons, fields average to the kernels of the same result."""
    neurons = 512
    options: dict[str, Any] = (
        {"width": 128, "ensemble": 4} if method == "finite_width" else {"samples": neurons, "replicas": 2}
    )
    data = sphere(3, 6)
    if outputs == 2:
        data["targets"] = np.eye(2)[[0, 1, 1]].tolist()
    arrays = run(
        data,
        network={"depth": 2, "activation": "tanh"},
        training={"steps": 6},
        method={"name": method, **options},
        outputs={"field_times": [0, -1], "field_neurons": neurons},
    ).arrays
    assert arrays["field_times"].tolist() == [0, 5]
    points = (3, 2) if outputs == 2 else (3,)
    for layer in (1, 2):
        h, phi = arrays[f"fields_h_{layer}"], arrays[f"fields_phi_{layer}"]
        z, g = arrays[f"fields_z_{layer}"], arrays[f"fields_g_{layer}"]
        assert h.shape == phi.shape == (2, 3, neurons)
        assert z.shape == g.shape == (2, *points, neurons)
        np.testing.assert_allclose(phi, np.tanh(h), atol=1e-6)
        slope = 1 - phi**2
        np.testing.assert_allclose(g, z * (slope if outputs == 1 else slope[:, :, None]), atol=1e-5)
        for row, step in enumerate((0, 5)):
            gram = phi[row] @ phi[row].T / neurons
            np.testing.assert_allclose(arrays[f"phi_{layer}"][step, :, step], gram, rtol=1e-3, atol=1e-4)
        counts, edges = arrays[f"histogram_h_{layer}"], arrays[f"histogram_bins_h_{layer}"]
        assert counts.shape == (2, 64)
        np.testing.assert_allclose((counts * np.diff(edges)).sum(1), 1.0)
        mean_square = (counts * np.diff(edges) * ((edges[:, 1:] + edges[:, :-1]) / 2) ** 2).sum(1)
        np.testing.assert_allclose(mean_square, (h**2).mean((1, 2)), rtol=0.02)


def test_fields_at_the_start_are_gaussian() -> None:
    """u ~ N(0, Phi^{l-1}) at t = 0: all neurons of layer 1 pass a Kolmogorov-Smirnov test."""
    arrays = run(
        {"kernel": [[1.0]], "targets": [1.0]},
        network={"depth": 2, "activation": "tanh"},
        training={"steps": 2},
        method={"name": "dmft", "samples": 4096},
        outputs={"field_times": [0], "field_neurons": 4096},
    ).arrays
    for name in ("fields_h_1", "fields_z_2"):
        assert stats.kstest(arrays[name][0, 0], "norm").pvalue > 1e-3
