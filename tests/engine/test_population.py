"""Random vectors of a population: orthogonal to all that is known, also when little room is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dmft_engine import Problem
from dmft_engine.populations.population import Exhausted, Population
from dmft_engine.populations.subspace import Subspace
from dmft_engine.record.trajectory import Trajectory
from dmft_engine.training.dynamics import trainer
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.training_run import TrainingRun
from dmft_engine.weights.initialisation import joint_kernel, revealed_weights
from tests.engine.test_dmft import PRECISE, joint_t_quantile, tanh
from tests.problems import request, run


def departure(basis: torch.Tensor) -> float:
    """Largest deviation of a basis [R, k, S] from orthonormality."""
    identity = torch.eye(basis.shape[1], dtype=basis.dtype)
    return float((basis @ basis.mT - identity).abs().max())


def population(samples: int = 64) -> Population:
    return Population(2, samples, (0,), torch.float64, "cpu")


def test_a_neuron_that_is_known_by_itself_does_not_take_over() -> None:
    """One neuron's leverage is 1 up to 1e-8: nothing is left of it, and the others share what is drawn."""
    crowd = population(samples=256)
    spike = torch.zeros(2, 1, 256, dtype=torch.float64)
    spike[..., 0], spike[..., 1] = 1, 1e-4
    crowd.include(spike / spike.norm(dim=-1, keepdim=True))
    for _ in range(20):
        assert crowd.fresh(2).square().max() < 0.15
    assert departure(crowd.known.basis) < 1e-13


def test_dependent_directions_leave_the_basis_orthonormal() -> None:
    space = Subspace(1, 50, 1e-9, torch.float64, "cpu")
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(1, 4, 50, generator=generator, dtype=torch.float64)
    for size in (1.0, 1e-4, 1e-7, 1e-8):
        space.observe(field + size * torch.randn(1, 4, 50, generator=generator, dtype=torch.float64))
        assert departure(space.basis) < 1e-12


def test_directions_that_are_nearly_wanted_join_with_one_that_is() -> None:
    """A field whose parts outside the basis are 2, 0.5 and 0.1 tolerances long, along three axes."""
    space = Subspace(1, 8, 0.03, torch.float32, "cpu")
    first = torch.eye(8)[None, :3]
    space.observe(first)
    assert space.size == 3

    def outside(*lengths: float) -> torch.Tensor:
        return first + 0.03 * torch.diag_embed(torch.tensor([lengths]), offset=3)[:, :3, :8]

    # Nothing joins for itself below the tolerance.
    space.observe(outside(0.9, 0.5, 0.1, 0, 0))
    assert space.size == 3
    assert 0 < space.dropped < 0.04
    space.observe(outside(2.0, 0.5, 0.1, 0, 0))
    assert space.size == 5
    assert space.dropped < 0.0035


def test_one_hidden_layer_reveals_nothing_as_training_goes_on() -> None:
    """ReLUs visit new directions at every step, of which only kernels that were asked for need to know."""
    sections: dict[str, Any] = {
        "network": {"depth": 1, "activation": "relu"},
        "training": {"steps": 300, "learning_rate": 0.1},
    }
    data = {"dataset": "digits", "classes": [0, 1], "samples": 10}
    bare = run(data, **sections, outputs={"kernels": []})
    assert bare.diagnostics.samples == 4096
    assert bare.diagnostics.basis_sizes == {"phi_1": 10, "g_1": 10}
    wanted = {"kernels": ["phi", "g", "ntk"], "kernel_times": [0, 150, 299]}
    result = run(data, **sections, outputs=wanted)
    np.testing.assert_array_equal(result.arrays["loss"], bare.arrays["loss"])
    assert result.diagnostics.basis_sizes["g_1"] <= 40
    # What the bases recorded, against Gram matrices of the fields themselves.
    own = Problem.from_request(request(data, **sections)).data.kernel
    kernels = {name: np.einsum("tmtn->tmn", result.arrays[f"{name}_1"]) for name in ("phi", "g")}
    together = kernels["g"] * own + kernels["phi"]
    np.testing.assert_allclose(together, result.arrays["ntk"], rtol=0, atol=1e-3 * np.abs(together).max())


def test_fields_that_span_all_neurons() -> None:
    """A narrow network of ReLUs visits new directions at every step, until there are no more."""
    space = Subspace(2, 20, 1e-3, torch.float32, "cpu")
    generator = torch.Generator().manual_seed(1)
    for _ in range(9):
        field = torch.randn(2, 3, 20, generator=generator)
        coordinates, _ = space.observe(field)
        torch.testing.assert_close(coordinates @ space.basis, field, rtol=0, atol=1e-4)
    assert space.size == 20
    result = run(
        {"dataset": "digits", "classes": [0, 1], "samples": 10},
        network={"depth": 1, "activation": "relu"},
        training={"steps": 30},
        method={"name": "finite_width", "width": 64, "ensemble": 2, "dtype": "float32"},
    )
    assert result.arrays["loss"][-1] < 0.5 * result.arrays["loss"][0]


def test_directions_that_join_where_little_room_is_left() -> None:
    """Several at once, of replicas that do not need them all: at this width they once found no place."""
    result = run(
        {"dataset": "digits", "classes": [0, 1], "samples": 10},
        network={"depth": 1, "activation": "relu"},
        training={"steps": 80, "learning_rate": 0.5, "weight_decay": 0.1},
        method={"name": "finite_width", "width": 100, "ensemble": 4},
        outputs={"kernels": ["ntk"], "kernel_times": [-1]},
    )
    assert np.isfinite(result.arrays["loss"]).all()


def test_a_full_population_says_so() -> None:
    crowd = population(samples=10)
    crowd.fresh(8)
    with pytest.raises(Exhausted) as full:
        crowd.fresh(1)
    assert full.value.known == 9


def test_a_solve_that_fills_its_populations_keeps_them_orthonormal() -> None:
    """Real data, few samples: stand-out neurons are known almost by themselves."""
    sections: dict[str, Any] = {
        "training": {"steps": 40},
        "method": {"name": "dmft", "samples": 3400, "dtype": "float64"},
    }
    problem = Problem.from_request(
        request({"dataset": "digits", "classes": [0, 1], "samples": 16}, **sections)
    )
    weights = revealed_weights(problem, 4, 850, 0.01, 0, torch.float64, "cpu", True)
    run = TrainingRun(
        problem,
        weights,
        Trajectory.empty(problem, 850),
        Reporter(40, None, None),
        "exact",
        joint_kernel(problem, "cpu"),
    )
    training = trainer(run)
    with torch.no_grad():
        while not training.done:
            training.advance()
    for layer in weights.layers:
        assert departure(layer.population.known.basis) < 1e-12
    # phi and g, columns of the matrix from below and rows of that above: nothing is known twice.
    below, middle, above = weights.layers
    known = sum(node.space.size for node in (*middle.nodes, below.phi, above.g))
    assert middle.population.known.size <= known
    assert middle.population.known.size > 0.5 * middle.population.samples


@pytest.mark.slow
def test_few_samples_are_noisy_and_not_wrong() -> None:
    """600 neurons in each replica, 70% of them known at the end, on the reference problem."""
    seeds = 12
    runs = [tanh(seed, samples=2400) for seed in range(seeds)]
    losses = np.array([run["loss"] for run in runs])
    spread = losses.std(axis=0, ddof=1)
    for t, (loss, error) in PRECISE.items():
        own = np.hypot(spread[t] / seeds**0.5, error)
        truncation = np.mean([run["loss_truncation_error"][t] for run in runs])
        assert abs(losses[:, t].mean() - loss) < joint_t_quantile(seeds, len(PRECISE)) * own + truncation, t
    reported = np.sqrt(np.mean([run["loss_standard_error"] ** 2 for run in runs], axis=0))
    assert 1 / 1.6 < np.exp(np.log(reported[5:] / spread[5:]).mean()) < 1.6
