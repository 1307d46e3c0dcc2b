"""Growing orthonormal bases, one for each replica, all of one size."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.errors import NotFinite
from dmft_engine.factorisation import eigh
from dmft_engine.state import State, Stateful


class Rows(Stateful):
    """Vectors [R, k, S] appended over time, in a buffer that doubles."""

    def __init__(self, replicas: int, samples: int, dtype: torch.dtype, device: str) -> None:
        self._buffer = torch.empty(replicas, 32, samples, dtype=dtype, device=device)
        self.size = 0
        self.all = self._buffer[:, :0]
        """[R, k, S], a view."""

    def append(self, rows: Tensor) -> None:
        """Add [R, n, S]."""
        needed = self.size + rows.shape[1]
        capacity = self._buffer.shape[1]
        if needed > capacity:
            replicas, _, samples = self._buffer.shape
            grown = self._buffer.new_empty(replicas, max(needed, 2 * capacity), samples)
            grown[:, : self.size] = self.all
            self._buffer = grown
        self._buffer[:, self.size : needed] = rows
        self._take(needed)

    def state(self) -> State:
        # With its capacity: what a product rounds to may hang on how its factors lie in memory.
        return {"rows": self.all.clone(), "capacity": self._buffer.shape[1]}

    def restore(self, state: State) -> None:
        rows = state["rows"].to(self._buffer)
        self._buffer = rows.new_empty(len(rows), state["capacity"], rows.shape[-1])
        self._buffer[:, : rows.shape[1]] = rows
        self._take(rows.shape[1])

    def _take(self, size: int) -> None:
        self.size = size
        self.all = self._buffer[:, :size]


SOON = 0.1
MOST_SOON = 16
"""When directions join, so do up to this many whose squared norm is that part of the limit: they would join
soon, one by one, and each time costs more than the room that they take."""

RESOLUTION = 100.0
"""Squared lengths are known to within the largest times this and the dtype's precision."""

MOST_ROUNDS = 50
LEAST_LEFT = 0.1
"""Gram-Schmidt ends with a round that leaves more than this of every unit vector."""


class Subspace(Stateful):
    """Orthonormal rows that span, within a tolerance, every field shown so far.

    A field is [R, P, S]: replicas, points, neurons. Directions join every replica's basis until what
    lies outside it, as a P x S matrix, has a spectral norm below `tolerance` times the longest of the
    replica's P fields. (Judging each point alone would let through what all points have in common,
    which is what learning amplifies.)
    """

    kept: ClassVar[tuple[str, ...]] = ("_rows", "dropped", "_leverage", "_levered")

    def __init__(
        self, replicas: int, samples: int, tolerance: float, dtype: torch.dtype, device: str
    ) -> None:
        self._rows = Rows(replicas, samples, dtype, device)
        self.tolerance = tolerance
        self.dropped = 0.0
        """Spectral norm of what the last observation left outside, relative to the longest field, from above:
        the tolerance, or the root of the summed squares over points where that is less."""
        # |x|^2 - |c|^2 resolves the residual only down to the square root of rounding.
        self._cheap_check = tolerance**2 > RESOLUTION * torch.finfo(dtype).eps
        self._leverage = torch.zeros(replicas, samples, dtype=dtype, device=device)
        self._levered = 0

    @property
    def size(self) -> int:
        return self._rows.size

    @property
    def basis(self) -> Tensor:
        """[R, k, S]."""
        return self._rows.all

    @property
    def leverage(self) -> Tensor:
        """How much of each neuron lies in the span: the diagonal [R, S] of the projection onto it."""
        self._leverage = self._leverage + self.basis[:, self._levered :].square().sum(1)
        self._levered = self.size
        return self._leverage

    def coordinates(self, field: Tensor) -> Tensor:
        """[R, P, k]."""
        return field @ self.basis.mT

    def residual(self, field: Tensor, coordinates: Tensor) -> Tensor:
        """[R, P, S]: what of the field lies outside the basis."""
        return torch.baddbmm(field, coordinates, self.basis, alpha=-1)

    def observe(self, field: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take a field into account.

        Returns:
            Its coordinates [R, P, k], and the directions [R, n, S] that had to join, if any.

        Raises:
            NotFinite: the field is not finite, or its square is not.
        """
        coordinates = self.coordinates(field)
        gram = _gram(field)
        limit = self.tolerance**2 * gram.diagonal(dim1=-2, dim2=-1).amax(-1)
        limit = limit.clamp_min(torch.finfo(field.dtype).tiny)
        before = self.size
        left = torch.baddbmm(gram, coordinates, coordinates.mT, alpha=-1)
        outside = left.diagonal(dim1=-2, dim2=-1).sum(-1)
        if not (self._cheap_check and _within(left, limit)):
            if not bool(limit.isfinite().all()):
                raise NotFinite
            coordinates, outside = self._extend(field, coordinates, limit)
        self.dropped = self.tolerance * float((outside / limit).max().clamp(0, 1).sqrt())
        new = self.basis[:, before:] if self.size > before else None
        return coordinates, new

    def include(self, directions: Tensor) -> None:
        """Make the span contain unit vectors [R, n, S], within the tolerance."""
        vectors, left = self._gram_schmidt(directions)
        if bool((left > LEAST_LEFT).all()):  # All are new, as most are.
            return self.append(vectors)
        limit = directions.new_full(directions.shape[:1], self.tolerance**2)
        self._extend(directions, self.coordinates(directions), limit)

    def append(self, orthonormal: Tensor) -> None:
        """Add rows [R, n, S] that are orthonormal and orthogonal to the basis already."""
        self._rows.append(orthonormal)

    def _extend(self, field: Tensor, coordinates: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        """Join directions until the residual's spectral norm is within `limit` [R] (squared).

        Returns:
            The field's coordinates [R, P, k], and the residual's squared Frobenius norm [R].
        """
        for _ in range(3):  # What one round cannot resolve beside the largest is left to the next.
            # A narrow network's fields may come to span all there is.
            room = field.shape[-1] - self.size
            joining, values = _principal(self.residual(field, coordinates), limit, room)
            outside = values[:, joining.shape[1] :].sum(-1)
            if joining.shape[1] == 0:
                break
            new = self.orthonormal_outside(joining)
            self.append(new)
            coordinates = torch.cat([coordinates, field @ new.mT], dim=-1)
            all_joined = joining.shape[1] == values.shape[1]
            if all_joined or bool((_resolution(values) <= limit).all()):
                break
        return coordinates, outside

    def orthonormal_outside(self, vectors: Tensor) -> Tensor:
        """Orthonormal rows [R, n, S] orthogonal to the basis, from vectors [R, n, S] taken in order.

        Repeated, as Gram-Schmidt must be, until a round takes little away: what it leaves is orthogonal up to
        rounding over the length that is left. A vector of which a later round leaves little was rounding of
        the first: zero, or dependent on the others. In its place stands the axis of a neuron of which least
        is known, which a further round makes orthogonal.

        Raises:
            NotFinite: the vectors are not finite.
        """
        vectors = torch.nn.functional.normalize(vectors, dim=-1, eps=torch.finfo(vectors.dtype).tiny)
        for rounds in range(MOST_ROUNDS):
            vectors, left = self._gram_schmidt(vectors)
            lost = ~(left > LEAST_LEFT)
            if not bool(lost.any()):
                return vectors
            if rounds > 0:
                vectors = torch.where(lost[..., None], self._least_known(vectors.shape[1], rounds), vectors)
        raise NotFinite

    def _gram_schmidt(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """One round. Returns orthonormal rows, and the length [R, n] that each vector had left."""
        outside = self.residual(vectors, self.coordinates(vectors))
        q, r = torch.linalg.qr(outside.mT)
        left = r.diagonal(dim1=-2, dim2=-1)
        return q.mT * torch.where(left < 0, -1.0, 1.0)[..., None], left.abs()

    def _least_known(self, count: int, skip: int) -> Tensor:
        """Axes [R, count, S] of neurons, least known first, after `skip` others."""
        order = self.leverage.argsort(dim=-1)
        chosen = order.roll(-skip, dims=-1)[:, :count]
        return torch.nn.functional.one_hot(chosen, order.shape[-1]).to(self.basis)


def _gram(rows: Tensor) -> Tensor:
    return rows @ rows.mT


def _within(gram: Tensor, limit: Tensor) -> bool:
    """Whether the spectral norms of Gram matrices [R, P, P] are surely within `limit` [R].

    Without their eigenvalues: the Frobenius norm of the fourth power is the eighth powers' sum's root, within
    P^(1/8) of the largest alone. False of what is not finite.
    """
    fourth = torch.linalg.matrix_power(gram / limit[:, None, None], 4)
    return bool((fourth.square().sum((-1, -2)) <= 1).all())


def _principal(residual: Tensor, limit: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Combinations [R, n, S] of the residuals [R, P, S], strongest first, that must join.

    n is the most that any replica needs, up to `most`: 0 when all have a spectral norm (squared) within
    `limit` [R], else with those that would join soon. Each has the sign that makes it positive at the first
    neuron: of two solves whose fields differ by a sign, the same random vector then answers the same
    direction (second_order.py).

    Returns:
        They, and all squared singular values of the residuals [R, P], largest first.
    """
    # In float64: LAPACK's eigenvectors of float32 matrices of low rank now and then fail to converge.
    values, vectors = eigh(_gram(residual).double())
    values, vectors = values.flip(-1).to(residual.dtype), vectors.flip(-1)
    must = int((values > limit[:, None]).sum(dim=1).max())
    soon = _resolution(values).maximum(SOON * limit).minimum(limit)
    would = int((values > soon[:, None]).sum(dim=1).max())
    count = min(would, must + MOST_SOON, most) if must else 0
    joining = vectors[..., :count].mT.to(residual.dtype) @ residual
    return joining * torch.where(joining[..., :1] < 0, -1.0, 1.0), values.clamp_min(0)


def _resolution(values: Tensor) -> Tensor:
    """What eigenvalues [R, P], largest first, are known within, [R]."""
    return RESOLUTION * torch.finfo(values.dtype).eps * values[:, 0]
