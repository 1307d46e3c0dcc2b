"""The one owner of random numbers: standard normals from scrambled Sobol points or a generator."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from dmft_engine.state import Stateful


def seed_of(*path: int) -> int:
    """A 63-bit seed that is a function of `path` alone; different paths of one length give independent seeds.

    numpy takes zeros at the end of a path for nothing: (7,) and (7, 0, 0, 0) are the same.
    """
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0] >> 1)


class SobolNormals(Stateful):
    """Standard normals for one population: one Sobol dimension for each vector drawn.

    Where neurons meet in a nonlinearity, as those of a head do, points are drawn over groups of them, with a
    dimension for each neuron of a group: neighbouring points of one sequence are anticorrelated (section 12).

    Every replica has its own scrambling, which makes replicas independent: each is a function of its own
    random numbers. That neuron 5 of one may look like neuron 5 of another (up to 0.99 between vectors) is
    chance in labels that mean nothing, and nothing is ever summed over pairs of them (docs/accuracy.md).

    Dimensions are drawn in blocks that double, because how many
    a solve needs is known only at its end; scrambling acts on each dimension alone, so blocks scrambled
    separately have the law of one big draw.
    """

    kept: ClassVar[tuple[str, ...]] = ("_dimension", "_blocks", "_pending")

    def __init__(
        self,
        replicas: int,
        samples: int,
        seed: tuple[int, ...],
        dtype: torch.dtype,
        device: str,
        group: int = 1,
    ) -> None:
        """`group`: neurons that meet, side by side; samples is a multiple of it."""
        self._group = group
        self._replicas = replicas
        self._samples = samples // group
        self._seed = seed
        self._dtype = dtype
        self._device = device
        self._dimension = 0
        self._blocks = 0
        self._pending = torch.empty(replicas, 0, self._samples, dtype=dtype, device=device)

    def draw(self, count: int) -> Tensor:
        """The next `count` vectors of each replica, [R, count, S]."""
        if self._group == 1:
            return self._take(count)
        # [R, count, group, S / group]
        drawn = self._take(count * self._group).unflatten(1, (count, self._group))
        return drawn.transpose(2, 3).flatten(2)

    def _take(self, count: int) -> Tensor:
        if self._pending.shape[1] < count:
            self._pending = torch.cat([self._pending, self._next_block(count)], dim=1)
        drawn, self._pending = self._pending[:, :count], self._pending[:, count:]
        return drawn

    def _next_block(self, count: int) -> Tensor:
        start = self._dimension
        stop = start + max(count, start, 16)
        if stop > SobolEngine.MAXDIM:
            # Past the tabulated direction numbers the dimensions start over under a new scrambling.
            start, stop = 0, max(count, 16)
        block = []
        for replica in range(self._replicas):
            engine = SobolEngine(stop, scramble=True, seed=seed_of(*self._seed, replica, self._blocks))
            points = engine.draw(self._samples, dtype=torch.float64)[:, start:stop]
            # The grid of 2^-30 includes 0, whose quantile is infinite; its cell's middle is not.
            block.append(torch.special.ndtri(points + 2.0**-31).T)
        self._dimension = stop
        self._blocks += 1
        return torch.stack(block).to(self._device, self._dtype).contiguous()
