"""What every hidden matrix promises. A new one adds one entry to MATRICES and inherits all of this."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dmft_engine.populations.node import Node
from dmft_engine.populations.population import Population
from dmft_engine.populations.subspace import Subspace
from dmft_engine.training.optimisers import Sgd
from dmft_engine.weights.matrices import (
    DenseFixedFeedback,
    DenseMatrix,
    DenseNoFeedback,
    HiddenMatrix,
    RevealedFixedFeedback,
    RevealedMatrix,
    RevealedNoFeedback,
    matvec,
)

REPLICAS, ROWS, SAMPLES = 2, 3, 200
PLAIN = Sgd(momentum=0.0, decay=0.0)


class Kind(NamedTuple):
    """A matrix, and what distinguishes it.

    Attributes:
        make: (source, target) -> the matrix.
        samples: whether it is known along what it is shown only.
        returns: whether its way back is its transpose.
    """

    make: Callable[[Node, Node], HiddenMatrix]
    samples: bool
    returns: bool


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _square(seed: int) -> Tensor:
    return _normal(REPLICAS, SAMPLES, SAMPLES, seed=seed)


MATRICES = {
    "revealed": Kind(RevealedMatrix, samples=True, returns=True),
    "revealed, fixed feedback": Kind(RevealedFixedFeedback, samples=True, returns=False),
    "revealed, no feedback": Kind(RevealedNoFeedback, samples=True, returns=False),
    "dense": Kind(lambda s, t: DenseMatrix(s, t, _square(1)), samples=False, returns=True),
    "dense, fixed feedback": Kind(
        lambda s, t: DenseFixedFeedback(s, t, _square(1), _square(2)), samples=False, returns=False
    ),
    "dense, no feedback": Kind(lambda s, t: DenseNoFeedback(s, t, _square(1)), samples=False, returns=False),
}
every_kind = pytest.mark.parametrize("kind", MATRICES.values(), ids=MATRICES.keys())


def node(population: Population | None) -> Node:
    return Node(Subspace(REPLICAS, SAMPLES, 1e-10, torch.float64, "cpu"), population)


def nodes(kind: Kind) -> tuple[Node, Node]:
    """Of two populations, the first shown nothing but what a matrix will show it."""
    if not kind.samples:
        return node(None), node(None)
    crowds = (Population(REPLICAS, SAMPLES, (0, i), torch.float64, "cpu") for i in range(2))
    source, target = (node(crowd) for crowd in crowds)
    return source, target


def field(seed: int) -> Tensor:
    return _normal(REPLICAS, ROWS, SAMPLES, seed=100 + seed)


def step(*matrices: HiddenMatrix) -> None:
    """A new pass begins."""
    for matrix in matrices:
        matrix.start_step()
        matrix.source.start_step()
        matrix.target.start_step()


def product(matrix: HiddenMatrix, x: Tensor) -> Tensor:
    return matrix.apply(matrix.source.show(x))[0]


def there_and_back(matrix: HiddenMatrix, x: Tensor, *gradients: Tensor) -> tuple[Tensor, list[Tensor]]:
    """W x, and what comes back for each output's gradients."""
    forward, use = matrix.apply(matrix.source.show(x))
    return forward, [matrix.apply_transpose(matrix.target.show(g), use) for g in gradients]


def inner(left: Tensor, right: Tensor) -> Tensor:
    return left @ right.mT


@every_kind
def test_the_two_products_are_adjoint(kind: Kind) -> None:
    matrix = kind.make(*nodes(kind))
    x, g = field(0), field(1)
    there_and_back(matrix, x, g)
    step(matrix)
    forward, (back,) = there_and_back(matrix, x, g)  # now that both are known
    if kind.returns:
        torch.testing.assert_close(inner(g, forward), inner(back, x), rtol=0, atol=1e-9)
    else:
        assert (inner(g, forward) - inner(back, x)).abs().min() > 1e-6


@every_kind
def test_it_is_linear_and_stays_what_it_was_shown_to_be(kind: Kind) -> None:
    """What is revealed later changes no product that was known."""
    matrix = kind.make(*nodes(kind))
    x, g = field(0), field(1)
    there_and_back(matrix, x, g)
    step(matrix)
    known, (back,) = there_and_back(matrix, x, g)
    step(matrix)
    there_and_back(matrix, field(2), field(3))
    step(matrix)
    again, (back_again,) = there_and_back(matrix, 2 * x, -3 * g)
    torch.testing.assert_close(again, 2 * known, rtol=0, atol=1e-9)
    torch.testing.assert_close(back_again, -3 * back, rtol=0, atol=1e-9)


@every_kind
def test_an_update_is_the_gradient_by_autograd(kind: Kind) -> None:
    """Of sum_{mu, c} weighted g . W x, for two uses in one pass and two outputs."""
    matrix = kind.make(*nodes(kind))
    xs, gs = [field(0), field(1)], [[field(2), field(3)], [field(4), field(5)]]
    weighted = _normal(REPLICAS, 2, ROWS, seed=7)
    probe = torch.cat(xs, dim=1)
    for x, g in zip(xs, gs, strict=True):  # Everything is known before it moves.
        there_and_back(matrix, x, *g)
    step(matrix)
    before = product(matrix, probe)
    step(matrix)
    for x, g in zip(xs, gs, strict=True):
        there_and_back(matrix, x, *g)
    matrix.update(weighted, PLAIN)
    step(matrix)
    moved = product(matrix, probe) - before

    explicit = torch.zeros(REPLICAS, SAMPLES, SAMPLES, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        total = sum(
            (weighted[:, c, :, None] * g * (x @ explicit.mT)).sum()
            for x, outputs in zip(xs, gs, strict=True)
            for c, g in enumerate(outputs)
        )
        assert isinstance(total, Tensor)
        (gradient,) = torch.autograd.grad(total / SAMPLES, explicit)
    torch.testing.assert_close(moved, probe @ gradient.mT, rtol=0, atol=1e-9)


@every_kind
def test_matrices_that_share_nodes(kind: Kind) -> None:
    """Each catches up with what the other has shown, and each is a matrix of its own."""
    source, target = nodes(kind)
    first = kind.make(source, target)
    second = RevealedMatrix(source, target) if kind.samples else DenseMatrix(source, target, _square(9))
    x, g = field(0), field(1)
    for _ in range(2):
        step(first, second)
        one, _ = there_and_back(first, x, g)
        other, (back,) = there_and_back(second, x, g)
    torch.testing.assert_close(inner(g, other), inner(back, x), rtol=0, atol=1e-9)
    if kind.samples:
        assert len(source.latest) == len(target.latest) == 1, "one field, observed once"
        # Fresh columns are orthogonal; what both know of g, by their rows, is not theirs alone.
        outside = target.space.residual(one, target.space.coordinates(one))
        of_other = target.space.residual(other, target.space.coordinates(other))
        assert inner(outside, of_other).abs().max() < 1e-9 * SAMPLES
    assert (one - other).abs().max() > 0.1


@every_kind
def test_decay_and_momentum_follow_their_recursion(kind: Kind) -> None:
    """v <- mu v + G - decay theta, theta <- theta + v, with a second field that joins in between."""
    matrix = kind.make(*nodes(kind))
    rule = Sgd(momentum=0.5, decay=0.1)
    x, g = field(0), field(1)
    weighted = torch.full((REPLICAS, 1, ROWS), 0.3, dtype=torch.float64)
    there_and_back(matrix, x, g)
    step(matrix)
    theta = product(matrix, x)
    pull = ((weighted[:, 0, :, None] * g).mT @ x / SAMPLES @ x.mT).mT
    velocity = torch.zeros_like(theta)
    for turn in range(3):
        step(matrix)
        there_and_back(matrix, x, g)
        matrix.update(weighted, rule)
        velocity = 0.5 * velocity - 0.1 * theta + pull
        theta = theta + velocity
        step(matrix)
        there_and_back(matrix, field(10 + turn), field(20 + turn))
    step(matrix)
    torch.testing.assert_close(product(matrix, x), theta, rtol=0, atol=1e-9)


def test_autograd_goes_through_a_matrix_used_twice() -> None:
    """h_2 = W tanh(W x): gradients by the matrix's own transpose, against an explicit W."""
    initial = _square(3)
    place = node(None)
    matrix = DenseMatrix(place, place, initial)
    x = field(0)
    with torch.enable_grad():
        leaf = x.clone().requires_grad_(True)
        twice = matvec(matrix, torch.tanh(matvec(matrix, leaf, 1.0)), 1.0)
        (found,) = torch.autograd.grad(twice.square().sum(), leaf)
        explicit = initial / SAMPLES**0.5
        leaf = x.clone().requires_grad_(True)
        other = torch.tanh(leaf @ explicit.mT) @ explicit.mT
        (wanted,) = torch.autograd.grad(other.square().sum(), leaf)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert [len(use.g) for use in matrix.uses] == [1, 1]
