"""What blocks are built with: neurons, nodes, matrices and vectors, of the limit or of a finite network.

Blocks are written once; whether a matrix is revealed as training visits it or drawn whole is known here only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dmft_engine.factorisation import kernel_factor
from dmft_engine.populations.node import Node
from dmft_engine.populations.population import Population
from dmft_engine.populations.sampling import seed_of
from dmft_engine.populations.subspace import Subspace
from dmft_engine.problem import Problem
from dmft_engine.state import Stateful
from dmft_engine.weights.matrices import DenseMatrix, HiddenMatrix, RevealedMatrix
from dmft_engine.weights.parts import (
    BiasPart,
    GainPart,
    InputPart,
    MatrixPart,
    Part,
    ReadoutPart,
    Tap,
)
from dmft_engine.weights.sites import Site
from dmft_engine.weights.weights import Bias, InputMatrix, Readout, RevealedReadout
from dmft_engine.weights.windows import WHOLE, Window

DENSE_RECORD_TOLERANCE = 1e-3
"""Tolerance of the bases that a dense network's kernels are recorded in."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """Those of a population; two fields can be added only where their neurons are the same.

    Attributes:
        population: the samples; None of a dense network.
    """

    population: Population | None


class Builder(ABC):
    """Makes what a network consists of, and keeps lists of it.

    Attributes:
        points: all points, test points last.
        outputs: C.
        samples: S neurons in each population.
        nodes, populations, vectors, matrices: all that have a state.
        parts: all that is trained.
        sites: the weight-bearing blocks, in order, the readout last.
        taps: where gradients are wanted.
        device, dtype: of every tensor.
    """

    def __init__(
        self, problem: Problem, replicas: int, samples: int, tolerance: float, dtype: torch.dtype, device: str
    ) -> None:
        self.points = problem.data.points + problem.data.test_points
        self.outputs = problem.data.outputs
        self.samples = samples
        self.device = device
        self.dtype = dtype
        self._data = problem.data
        self._keeps_fields = bool(problem.outputs.field_times)
        self._replicas = replicas
        self._tolerance = tolerance
        self.nodes: list[Node] = []
        self.populations: list[Population] = []
        self.vectors: list[Stateful] = []
        self.matrices: list[HiddenMatrix] = []
        self.parts: list[Part] = []
        self.sites: list[Site] = []
        self.taps: list[Tap] = []

    @abstractmethod
    def neurons(self, group: int = 1) -> Neurons:
        """New ones; `group` of them, side by side, may meet in a nonlinearity."""

    @abstractmethod
    def _normal(self, neurons: Neurons, count: int) -> Tensor:
        """Standard normal vectors [R, count, S] over neurons."""

    @abstractmethod
    def _hidden(self, source: Node, target: Node, window: Window) -> HiddenMatrix: ...

    @abstractmethod
    def _readout(self, node: Node, positions: int) -> Readout: ...

    def node(self, neurons: Neurons | None) -> Node:
        """A place where fields of these neurons are read or written; None: where they are only recorded."""
        space = Subspace(self._replicas, self.samples, self._tolerance, self.dtype, self.device)
        self.nodes.append(Node(space, neurons.population if neurons else None))
        return self.nodes[-1]

    def site(self, entry: Node | None = None, exit: Node | None = None) -> Site:
        """Of the next weight-bearing block, with the nodes where its own matrices see the field that it
        takes and the gradient of what it makes, if they do."""
        taken = self.tap() if self._keeps_fields else None
        self.sites.append(Site(entry or self.node(None), exit or self.node(None), self.tap(), taken))
        return self.sites[-1]

    def tap(self) -> Tap:
        self.taps.append(Tap())
        return self.taps[-1]

    def matrix(self, source: Node, target: Node, scale: float = 1.0, window: Window = WHOLE) -> MatrixPart:
        """A hidden matrix from one node to another, sigma W x / sqrt(N), or a filter (windows.py)."""
        matrix = self._hidden(source, target, window)
        self.matrices.append(matrix)
        part = MatrixPart(matrix, scale)
        self.parts.append(part)
        return part

    def input(self, neurons: Neurons, rows: Tensor | None, scale: float, tap: Tap) -> InputPart:
        """sigma W^0 x of the data's rows [P A, D] / sqrt(D), or by their kernel; `tap` is where it ends."""
        factor = self._factor(rows).to(self.dtype)
        matrix = InputMatrix(self._normal(neurons, factor.shape[1]), factor)
        self.vectors.append(matrix)
        part = InputPart(matrix, scale, tap)
        self.parts.append(part)
        return part

    def bias(self, neurons: Neurons, scale: float, tap: Tap) -> BiasPart:
        """h + sigma b; `tap` is where it ends."""
        bias = Bias(self._normal(neurons, 1))
        self.vectors.append(bias)
        part = BiasPart(bias, scale, tap)
        self.parts.append(part)
        return part

    def gain(self) -> GainPart:
        """gain * x, with gains that begin at 1."""
        ones = torch.ones(self._replicas, 1, self.samples, dtype=self.dtype, device=self.device)
        gain = Bias(ones)
        self.vectors.append(gain)
        part = GainPart(gain, self.tap())
        self.parts.append(part)
        return part

    def offset(self, tap: Tap) -> BiasPart:
        """h + b, with b that begins at 0; `tap` is where h passes, whose gradient is that of the sum."""
        zeros = torch.zeros(self._replicas, 1, self.samples, dtype=self.dtype, device=self.device)
        bias = Bias(zeros)
        self.vectors.append(bias)
        part = BiasPart(bias, 1.0, tap)
        self.parts.append(part)
        return part

    def readout(self, node: Node, scale: float, positions: int = 1) -> ReadoutPart:
        """sigma w . x from one row of each point, or from all of several positions."""
        readout = self._readout(node, positions)
        self.vectors.append(readout)
        part = ReadoutPart(readout, scale, positions)
        self.parts.append(part)
        return part

    def inputs(self) -> Tensor | None:
        """The data [P A, D] in float64, positions fastest; None where only their kernel is known."""
        if self._data.inputs is None:
            return None
        flat = self._data.inputs.reshape(-1, self._data.inputs.shape[-1])
        return torch.tensor(flat, dtype=torch.float64, device=self.device)

    def _factor(self, rows: Tensor | None) -> Tensor:
        """X with X X^T = the kernel of the rows, no wider than it must be."""
        if rows is None:
            kernel = torch.as_tensor(self._data.kernel, dtype=torch.float64, device=self.device)
            return kernel_factor(kernel)
        rows = rows / rows.shape[1] ** 0.5
        rows = rows[:, rows.abs().amax(0) > 0]
        return rows if rows.shape[1] <= rows.shape[0] else kernel_factor(rows @ rows.mT)


class LimitBuilder(Builder):
    """Of the infinite-width limit: populations of S samples, matrices revealed as training visits them."""

    def __init__(
        self,
        problem: Problem,
        replicas: int,
        samples: int,
        tolerance: float,
        seed: int,
        dtype: torch.dtype,
        device: str,
        responses: bool,
    ) -> None:
        """Without `responses`, of its gradient-independence approximation."""
        super().__init__(problem, replicas, samples, tolerance, dtype, device)
        self._seed = seed
        self._responses = responses

    def neurons(self, group: int = 1) -> Neurons:
        seed = (self._seed, len(self.populations))
        made = Population(self._replicas, self.samples, seed, self.dtype, self.device, group, forgets=True)
        self.populations.append(made)
        return Neurons(made)

    def _normal(self, neurons: Neurons, count: int) -> Tensor:
        assert neurons.population is not None
        return neurons.population.gaussian(count)

    def _hidden(self, source: Node, target: Node, window: Window) -> HiddenMatrix:
        return RevealedMatrix(source, target, self._responses, window)

    def _readout(self, node: Node, positions: int) -> Readout:
        return RevealedReadout(node, self.outputs, positions)


class NetworkBuilder(Builder):
    """Of finite networks, one for each member of an ensemble, each drawn from its own seed."""

    def __init__(
        self, problem: Problem, width: int, members: range, seed: int, dtype: torch.dtype, device: str
    ) -> None:
        super().__init__(problem, len(members), width, DENSE_RECORD_TOLERANCE, dtype, device)
        self._generators = [torch.Generator().manual_seed(seed_of(seed, member)) for member in members]

    def _draw(self, *shape: int) -> Tensor:
        # Drawn on the CPU in float64, so that a seed means the same network on every device.
        drawn = [torch.randn(*shape, generator=g, dtype=torch.float64) for g in self._generators]
        return torch.stack(drawn).to(self.device, self.dtype)

    def neurons(self, group: int = 1) -> Neurons:
        return Neurons(None)

    def _normal(self, neurons: Neurons, count: int) -> Tensor:
        return self._draw(count, self.samples)

    def _hidden(self, source: Node, target: Node, window: Window) -> HiddenMatrix:
        initial = self._draw(self.samples, self.samples * window.forward.count)
        return DenseMatrix(source, target, initial, window)

    def _readout(self, node: Node, positions: int) -> Readout:
        return Readout(self._draw(self.outputs, positions * self.samples), positions)
