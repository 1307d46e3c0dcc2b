"""The sampled neurons of one layer, and all that is known of them (theory section 2)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.populations.sampling import SobolNormals
from dmft_engine.populations.subspace import Subspace
from dmft_engine.state import Stateful
from dmft_schema.memory import MOST_KNOWN

MOST_REMEMBERED = 0.5
"""Known directions over neurons, past which random vectors of a population that forgets are orthogonal to all
that is known, but not remembered: room is left for fields."""

MOST_TOGETHER = 512
"""Random vectors that are made orthogonal to each other at once by a population that forgets."""

MOST_SPREAD = 16.0
"""Largest variance that a neuron is drawn with, over the even one."""


class Exhausted(Exception):
    """A population has too few neurons for the directions that training visits.

    Attributes:
        known: directions that would have been known.
    """

    def __init__(self, known: int) -> None:
        super().__init__(f"{known} known directions")
        self.known = known


class Population(Stateful):
    """S sampled neurons in each of R replicas, where random vectors are independent of all that is known.

    Attributes:
        known: spans everything revealed here: phi, g and every Gaussian vector drawn. One that forgets keeps
            those vectors only while there is plenty of room.
    """

    kept: ClassVar[tuple[str, ...]] = ("known", "_normals")

    def __init__(
        self,
        replicas: int,
        samples: int,
        seed: tuple[int, ...],
        dtype: torch.dtype,
        device: str,
        group: int = 1,
        forgets: bool = False,
    ) -> None:
        """
        Args:
            replicas, samples: R and S.
            seed: see seed_of.
            dtype, device: of every tensor.
            group: neurons that meet in a nonlinearity, see SobolNormals.
            forgets: whether random vectors give way to fields; where many matrices read and write at few
                nodes, as a filter's do, they would fill the population by themselves.
        """
        self.samples = samples
        self._forgets = forgets
        exact = torch.finfo(dtype).eps ** 0.6
        self.known = Subspace(replicas, samples, exact, dtype, device)
        self._normals = SobolNormals(replicas, samples, seed, dtype, device, group)

    def include(self, directions: Tensor) -> None:
        """Unit vectors [R, n, S] are known from now on.

        Raises:
            Exhausted: they are too many.
        """
        self._check_room(directions.shape[1])
        self.known.include(directions)

    def fresh(self, count: int) -> Tensor:
        """Gaussian vectors [R, count, S] of length 1, independent of all that is known here.

        Independence means zero correlation in the limit, so they are made exactly orthogonal to
        everything known and of exact length: this removes most of the Monte Carlo noise.

        Raises:
            Exhausted: too few neurons for the directions already known.
        """
        if self._forgets:
            parts = [self._next(part) for part in _parts(count)]
            return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        self._check_room(count)
        return self._next(count)

    def _next(self, count: int) -> Tensor:
        drawn = self._normals.draw(count) * self._spread()[:, None]
        vectors = self.known.orthonormal_outside(drawn)
        if not self._forgets or self.known.size + count <= MOST_REMEMBERED * self.samples:
            self.known.append(vectors)
        return vectors

    def _spread(self) -> Tensor:
        """Standard deviation [R, S] to draw each neuron with, so that projection leaves all equal.

        Projecting out the known directions takes most from the neurons that stand out in them, those
        with large fields. Left alone, a fresh vector's variance would be correlated with the fields it
        must be independent of: a bias of order (known directions) / S.
        """
        leverage = self.known.leverage.clamp(0, 1)
        kept = 1 - leverage
        shared = leverage * kept
        # var_i = kept_i^2 d_i + sum_{j != i} P_ij^2 d_j, the sum by its mean over i. A neuron that is known
        # almost by itself cannot be given its share: without a limit it would be all that is drawn.
        even = 1 / kept.mean(-1, True)
        variance = even.expand_as(kept)
        for _ in range(4):
            mean = (variance * shared).sum(-1, True) / shared.sum(-1, True).clamp_min(1e-30)
            wanted = (1 - shared * mean) / kept.clamp_min(1e-3).square()
            variance = wanted.clamp(min=0).minimum(MOST_SPREAD * even)
        return variance.sqrt()

    def gaussian(self, count: int) -> Tensor:
        """The same with standard normal entries: [R, count, S] of length sqrt(S)."""
        return self.fresh(count) * self.samples**0.5

    def _check_room(self, count: int) -> None:
        if self.known.size + count > MOST_KNOWN * self.samples:
            raise Exhausted(self.known.size + count)


def _parts(count: int) -> list[int]:
    """Sizes of pieces that are drawn one after another."""
    whole, rest = divmod(count, MOST_TOGETHER)
    return [MOST_TOGETHER] * whole + ([rest] if rest or not whole else [])
