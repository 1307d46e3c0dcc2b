"""One iteration of the paper's Algorithm 1 (theory section 3): kernels -> samples -> kernels.

R replicas are iterated side by side, each with kernels of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.factorisation import cholesky, kernel_factor
from dmft_engine.model.activations import ACTIVATIONS
from dmft_engine.model.fields import Scales, layered_ntk
from dmft_engine.model.recipe import Recipe
from dmft_engine.populations.sampling import SobolNormals, seed_of
from dmft_engine.problem import Problem
from dmft_engine.state import State, Stateful
from dmft_engine.theory.gaussian_kernels import Inputs, initial_kernels
from dmft_engine.theory.single_neuron import Couplings, Moments, sweep
from dmft_engine.training.rollout import Rollout, advanced
from dmft_engine.weights.initialisation import joint_kernel
from dmft_schema.memory import CHUNK_BYTES
from dmft_schema.network import LayeredNetwork


@dataclass(frozen=True)
class Kernels:
    """One layer's order parameters, for each replica (flat indices of single_neuron.py).

    Attributes:
        phi: [R, T A, T A].
        g: [R, T Q, T Q].
        a: A^l [R, T A, T Q]; zero for the last layer, which needs none.
        b: B^{l-1} [R, T Q, T A]; zero for the first layer, which needs none.
    """

    phi: Tensor
    g: Tensor
    a: Tensor
    b: Tensor

    def damped(self, new: Kernels, damping: float) -> Kernels:
        return Kernels(*(torch.lerp(n, o, damping) for o, n in zip(self.all, new.all, strict=True)))

    def change(self, new: Kernels) -> float:
        """Largest |new - old|_F / |old|_F of phi and g over replicas."""
        pairs = ((self.phi, new.phi), (self.g, new.g))
        return max(float(((n - o).norm(dim=(1, 2)) / o.norm(dim=(1, 2))).max()) for o, n in pairs)

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.phi, self.g, self.a, self.b


class Draws:
    """Random numbers of all neurons: the same in every iteration.

    Attributes:
        replicas: R.
        samples: S, neurons in each replica.
    """

    def __init__(self, replicas: int, samples: int, seed: int) -> None:
        self.replicas = replicas
        self.samples = samples
        self._seed = seed

    def chunks(self, width: int) -> list[slice]:
        """Parts of every replica that are solved one after another."""
        size = max(1, CHUNK_BYTES["alternating"] // (64 * self.replicas * width))
        return [slice(start, min(start + size, self.samples)) for start in range(0, self.samples, size)]

    def given(self, layer: int, skip: int, width: int) -> Tensor:
        """Normals [R, S, width] for a covariance that is known: Sobol points, of unit sample covariance.

        `skip` of the layer's normals are taken already; all of them are independent.
        """
        like = (self.replicas, self.samples, (self._seed, layer), torch.float64, "cpu")
        drawn = SobolNormals(*like).draw(skip + width).mT
        if skip + width <= self.samples:
            root = cholesky(drawn.mT @ drawn / self.samples)
            drawn = torch.linalg.solve_triangular(root, drawn.mT, upper=False).mT
        return drawn[..., skip:]

    def normals(self, layer: int, kind: int, part: slice, width: int) -> Tensor:
        """Independent standard normals [R, S', width] for one part."""
        generator = torch.Generator().manual_seed(seed_of(self._seed, layer, kind, part.start))
        return torch.randn(self.replicas, part.stop - part.start, width, generator=generator)


class Iteration(Stateful):
    """The state of the iteration.

    Attributes:
        layers: order parameters, l = 1..L.
        predictions: f rolled out with their NTK, [R, T, A, C].
        rollout: judges the predictions.
    """

    kept: ClassVar[tuple[str, ...]] = ("predictions", "rollout", "_weighted")

    def __init__(self, problem: Problem, device: str, dtype: torch.dtype, draws: Draws) -> None:
        """Start from the lazy limit: kernels of initialisation at all times, no responses.

        Args:
            problem: its method is not looked at.
            device, dtype: of samples and kernels.
            draws: the neurons' random numbers.
        """
        self._problem = problem
        network = problem.network
        assert isinstance(network, LayeredNetwork)
        self._activation = ACTIVATIONS[network.activation]
        self._scales = Scales.of(network)
        self._depth = network.depth
        self._steps = problem.training.steps
        self._points = len(problem.data.kernel)
        self._outputs = problem.data.outputs
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._kernel = joint_kernel(problem, device)
        self._draws = draws
        self.rollout = Rollout(problem, self._like)
        self.layers: list[Kernels] = []
        self.predictions = self._like
        self._weighted = self._like
        self._start()

    def state(self) -> State:
        layers = [[kernel.clone() for kernel in layer.all] for layer in self.layers]
        return super().state() | {"layers": layers}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.layers = [Kernels(*(kernel.clone() for kernel in layer)) for layer in state["layers"]]

    def advance(self, damping: float) -> float:
        """Iterate once. Returns how far the estimates lie from the kernels they were made with."""
        estimated = [self._estimate(layer) for layer in range(1, self._depth + 1)]
        moved = max(old.change(new) for old, new in zip(self.layers, estimated, strict=True))
        self.layers = [old.damped(new, damping) for old, new in zip(self.layers, estimated, strict=True)]
        self._roll_out()
        return moved

    def loss(self) -> NDArray:
        """[T], the mean over replicas."""
        return self.rollout.losses(self.predictions).mean(0).cpu().numpy()

    def _start(self) -> None:
        lazy = initial_kernels(self._problem.network.blocks, Inputs(self._kernel))
        replicas, steps = self._draws.replicas, self._steps
        identity = torch.eye(self._outputs).to(self._kernel)

        def at_all_times(kernel: Tensor) -> Tensor:
            return kernel.repeat(steps, steps).expand(replicas, -1, -1).to(self._like)

        points, gradients = steps * self._points, steps * self._points * self._outputs
        self.layers = [
            Kernels(
                at_all_times(phi),
                at_all_times(torch.kron(identity, g)),
                self._like.new_zeros(replicas, points, gradients),
                self._like.new_zeros(replicas, gradients, points),
            )
            for phi, g in zip(lazy.phi, lazy.g, strict=True)
        ]
        self._roll_out()

    def _below(self, layer: int) -> Tensor:
        """sigma^2 Phi^{l-1} + sigma_b^2, the covariance of u^l, [R or 1, T A, T A]."""
        if layer == 1:
            phi = self._kernel.repeat(self._steps, self._steps)[None].to(self._like)
        else:
            phi = self.layers[layer - 2].phi
        return self._scales.weights[layer - 1] ** 2 * phi + self._scales.bias**2

    def _above(self, layer: int) -> Tensor:
        """sigma^2 G^{l+1}, the covariance of r^l, [R or 1, T Q, T Q]."""
        if layer == self._depth:
            one = torch.eye(self._outputs).to(self._like)
            g = torch.kron(one, self._like.new_ones(self._points, self._points))
            g = g.repeat(self._steps, self._steps)[None]
        else:
            g = self.layers[layer].g
        return self._scales.weights[layer] ** 2 * g

    def _couplings(self, layer: int) -> Couplings:
        """C = sigma^2 (A^{l-1} + e Phi^{l-1} Delta) and D = sigma^2 (B^l + e G^{l+1} Delta)."""
        by_gradient = self._weighted.permute(0, 1, 3, 2).flatten(1)  # [R, T C A]
        by_time = (self._steps, self._points)
        learned = (
            self._below(layer).unflatten(-1, by_time)[:, :, :, None]
            * by_gradient.unflatten(-1, (self._steps, self._outputs, self._points))[:, None]
        )
        c = self._causal(learned.flatten(2))
        if layer > 1:
            c += self._scales.weights[layer - 1] ** 2 * self.layers[layer - 2].a
        # Summed over the output of the gradient: what phi_alpha(s) is multiplied with.
        d = (
            (self._above(layer) * by_gradient[:, None])
            .unflatten(-1, (self._steps, self._outputs, self._points))
            .sum(3)
            .flatten(2)
        )
        d = self._causal(d)
        if layer < self._depth:
            d += self._scales.weights[layer] ** 2 * self.layers[layer].b
        return Couplings(c, d)

    def _causal(self, response: Tensor, equal_time: bool = False) -> Tensor:
        """Zero where the column's time is not before the row's.

        With `equal_time` (B), what a point does to itself at the same time is kept.
        """
        blocks = response.unflatten(1, (self._steps, -1)).unflatten(3, (self._steps, -1))
        time = torch.arange(self._steps, device=response.device)
        allowed = (time[:, None] > time[None, :])[:, None, :, None]
        if equal_time:
            same_time = (time[:, None] == time[None, :])[:, None, :, None]
            same_point = torch.eye(self._points, device=response.device).bool().repeat(self._outputs, 1)
            allowed = allowed | (same_time & same_point[:, None, :])
        return (blocks * allowed).flatten(3).flatten(1, 2)

    def _estimate(self, layer: int) -> Kernels:
        """The layer's order parameters from its own samples."""
        couplings = self._couplings(layer)
        width = self._steps * self._points * self._outputs
        from_below = self._source(layer, 0, self._below(layer), given=layer == 1)
        from_above = self._source(layer, 1, self._above(layer), given=layer == self._depth)
        total: Moments | None = None
        for part in self._draws.chunks(width):
            probes = (self._draws.normals(layer, kind, part, width).to(self._like).sign() for kind in (2, 3))
            probe_r, probe_u = probes
            found = sweep(
                self._activation,
                couplings,
                from_below(part),
                from_above(part),
                self._steps,
                probe_r if layer < self._depth else None,
                probe_u[..., : self._steps * self._points] if layer > 1 else None,
            )
            total = found if total is None else total + found
        assert total is not None
        samples = self._draws.samples
        old = self.layers[layer - 1]
        return Kernels(
            total.phi / samples,
            total.g / samples,
            old.a if total.a is None else self._causal(total.a / samples),
            old.b if total.b is None else self._causal(total.b / samples, equal_time=True),
        )

    def _source(self, layer: int, kind: int, covariance: Tensor, given: bool) -> Callable[[slice], Tensor]:
        """Gaussian fields [R, S', n] of a part of the neurons, with the covariance [R or 1, n, n].

        One that is given is the same at all times. One that is estimated moves from
        iteration to iteration: its factor must move continuously for the random numbers to be common,
        which Cholesky's does and eigenvectors do not.
        """
        if given:
            at_one_time = covariance[0, : covariance.shape[1] // self._steps]
            factor = kernel_factor(at_one_time[:, : len(at_one_time)].double())
            # With one layer, both of its covariances are given.
            taken = self._points + 1 if layer == 1 and kind == 1 else 0
            sampled = self._draws.given(layer, taken, factor.shape[1]).to(factor) @ factor.mT
            constant = sampled.repeat(1, 1, self._steps).to(self._like)
            return lambda part: constant[:, part]
        # An average over samples is positive up to its rounding, whose size is known only roughly.
        rounding = torch.finfo(self._like.dtype).eps
        lower = cholesky(covariance.double(), rounding).to(self._like)
        return lambda part: self._draws.normals(layer, kind, part, lower.shape[-1]).to(self._like) @ lower.mT

    def ntk(self) -> Tensor:
        """K(t, t), [R, T, A, C, A, C]."""
        points, gradients = (self._points,), (self._outputs, self._points)
        phi = [self._equal_time(layer.phi, points) for layer in self.layers]
        inputs = self._kernel.to(self._like).expand(1, self._steps, -1, -1)
        # Readouts of different outputs are independent.
        last = torch.eye(self._outputs).to(self._like)[None, None, :, None, :, None]
        g = [*(self._equal_time(layer.g, gradients) for layer in self.layers), last]
        total = layered_ntk(self._scales, [inputs, *phi], g)
        return total.expand(self._draws.replicas, *total.shape[1:]).permute(0, 1, 3, 2, 5, 4)

    def _equal_time(self, kernel: Tensor, shape: tuple[int, ...]) -> Tensor:
        """K(t, t) [R, T, *shape, *shape] of a two-time kernel."""
        blocks = kernel.unflatten(1, (self._steps, -1)).unflatten(3, (self._steps, -1))
        same = blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1)
        return same.unflatten(3, shape).unflatten(2, shape)

    def _roll_out(self) -> None:
        """f(t+1) = f(t) + (eta / P) K(t, t) Delta(t), and e Delta(t) for the next iteration."""
        problem = self._problem
        recipe = Recipe(problem.training, problem.data.points)
        ntk = self.ntk()
        if not self.predictions.numel():
            self.rollout.judge_rate(ntk[0, 0].permute(1, 0, 3, 2))
        f = self._like.new_zeros(self._draws.replicas, self._points, self._outputs)
        predictions, weighted = [], []
        for step in range(self._steps):
            self.rollout.checked_loss(f, step)
            predictions.append(f)
            pull = self.rollout.pull(f, recipe.weighting(step, f))
            weighted.append(problem.network.gamma0 * pull)
            f = advanced(f, ntk[:, step], pull)
        self.predictions = torch.stack(predictions, dim=1)
        self._weighted = torch.stack(weighted, dim=1)
