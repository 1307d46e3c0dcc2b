"""All weights of one network: input matrix, biases, hidden matrices (matrices.py) and readout."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.model.fields import Fields, Scales
from dmft_engine.populations.node import Layer, Node
from dmft_engine.state import State, Stateful
from dmft_engine.weights.matrices import HiddenMatrix
from dmft_engine.weights.parameter import Parameter, Update


class _Vectors(Stateful):
    """Vectors over the neurons [R, n, S], trained."""

    kept: ClassVar[tuple[str, ...]] = ("_weights",)

    def __init__(self, initial: Tensor) -> None:
        """Take standard normal entries."""
        self._weights = Parameter(initial, initial.shape[-1] ** 0.5)

    def parameters(self) -> list[Parameter]:
        return [self._weights]


class InputMatrix(_Vectors):
    """W^0, seen through a factor of the input kernel: h^1 = X W^0 with K^x = X X^T."""

    def __init__(self, initial: Tensor, kernel_factor: Tensor) -> None:
        """Take W^0 [R, rank, S] with standard normal entries, and X [P, rank]."""
        super().__init__(initial)
        self._factor = kernel_factor.expand(len(initial), -1, -1)

    @property
    def factor(self) -> Tensor:
        """X [R, P, rank]."""
        return self._factor

    def apply(self) -> Tensor:
        """h^1 [R, P, S]."""
        return self._factor @ self._weights.value

    def update(self, g: Tensor, weighted: Tensor, rule: Update) -> None:
        """See HiddenMatrix.update; the inputs are fixed."""
        rule(self._weights, self._factor.mT, (weighted[..., None] * g).sum(dim=1), 1.0)


class Bias(_Vectors):
    """b^l [R, 1, S], one number for each neuron, the same for all points."""

    def apply(self) -> Tensor:
        """[R, 1, S]."""
        return self._weights.value

    def update(self, g: Tensor, weighted: Tensor, rule: Update) -> None:
        """b += sum_mu weighted[c, mu] g_{mu, c}."""
        rule(self._weights, weighted.flatten(1)[:, None], g.flatten(1, 2), 1.0)


class Readout(_Vectors):
    """The last layer's weights w [R, C, A S]: a vector for each output, at each of A positions."""

    def __init__(self, initial: Tensor, positions: int = 1) -> None:
        super().__init__(initial)
        self._positions = positions

    def apply(self, x: Tensor) -> Tensor:
        """sum_a w_a . x_a for activations x [R, P A, S]: [R, P, C]."""
        return self._of_points(x) @ self._weights.value.mT

    def _of_points(self, x: Tensor) -> Tensor:
        """[R, P, A S]."""
        return x if self._positions == 1 else x.unflatten(1, (-1, self._positions)).flatten(2)

    def update(self, x: Tensor, weighted: Tensor, rule: Update) -> None:
        """w_c += sum_mu weighted[c, mu] x_mu, for activations x [R, P, A S]."""
        rule(self._weights, weighted, x, 1.0)


class RevealedReadout(Readout):
    """A readout drawn once the first activations are known, so that f(0) = 0 exactly."""

    def __init__(self, node: Node, outputs: int, positions: int = 1) -> None:
        """`node`: where it reads."""
        self._node = node
        self._outputs = outputs
        # No numbers until they are drawn: the neurons must first have fields to be independent of.
        samples = node.space.basis.shape[-1]
        super().__init__(torch.empty(0, outputs, positions * samples), positions)

    def apply(self, x: Tensor) -> Tensor:
        if self._node.draws:
            self._node.observe(x.detach())
        if not len(self._weights.value):
            drawn = self._node.population.gaussian(self._outputs * self._positions)
            self._weights.value = drawn.flatten(1).unflatten(1, (self._outputs, -1))
        return super().apply(x)


class Feedback(Stateful):
    """Fixed vectors that carry the errors of each output to one layer."""

    kept: ClassVar[tuple[str, ...]] = ("_vectors",)

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        """`draw` makes them [R, C, S]; it is called once, when that layer's activations are known."""
        self._draw = draw
        self._vectors: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """Their products with activations x [R, P, S]: [R, P, C]."""
        if self._vectors is None:
            self._vectors = self._draw()
        return x @ self._vectors.mT


_PARTS = ("nodes", "populations", "vectors", "matrices")
"""Of a network's state. Nodes come first: they tell whether anything is still drawn from populations."""


@dataclass
class Weights(Stateful):
    """All weights of one network, and the layers whose fields they make.

    Attributes:
        input: W^0.
        hidden: W^1 .. W^{L-1}.
        readout: W^L = w.
        layers: one for each hidden layer.
        scales: initialisation scales of all of them.
        biases: b^0 .. b^{L-1}, or none.
        feedback: the layers (l - 1) that get errors by fixed vectors; none: by backpropagation.
    """

    input: InputMatrix
    hidden: Sequence[HiddenMatrix]
    readout: Readout
    layers: Sequence[Layer]
    scales: Scales
    biases: Sequence[Bias] = ()
    feedback: Mapping[int, Feedback] = field(default_factory=dict)

    def parameters(self) -> list[Parameter]:
        """All that training moves."""
        vectors: list[_Vectors] = [self.input, *self.biases, self.readout]
        return [
            *(parameter for part in vectors for parameter in part.parameters()),
            *(parameter for matrix in self.hidden for parameter in matrix.parameters()),
        ]

    def state(self) -> State:
        """What is known of the network between two steps (state.py)."""
        return {name: [part.state() for part in self._parts(name)] for name in _PARTS}

    def restore(self, state: State) -> None:
        """Be what the weights were that gave this state, made for the same problem by the same options."""
        for name in _PARTS:
            for part, own in zip(self._parts(name), state[name], strict=True):
                part.restore(own)

    def _parts(self, name: str) -> Sequence[Stateful | HiddenMatrix]:
        match name:
            case "nodes":
                return [node for layer in self.layers for node in layer.nodes]
            case "populations":  # Layers may share one.
                return list(
                    {id(p): p for p in (layer.population for layer in self.layers if layer.draws)}.values()
                )
            case "vectors":
                return [self.input, *self.biases, self.readout, *self.feedback.values()]
        return self.hidden

    def signal(self, output: Tensor, phi: Sequence[Tensor]) -> Tensor:
        """What is differentiated to give g, [R, P, C]: the output, or what stands in for it."""
        if not self.feedback:
            return output
        parts = [feedback.apply(phi[layer]) for layer, feedback in self.feedback.items()]
        return self.scales.weights[-1] * torch.stack(parts).sum(0)

    def preactivation(self, layer: int, product: Tensor) -> Tensor:
        """h^{l+1} = sigma_l W^l x + sigma_b b^l, from the product sigma_l W^l x."""
        return product + self.scales.bias * self.biases[layer].apply() if self.biases else product

    @property
    def samples(self) -> int:
        """Neurons of a layer."""
        return self.layers[0].samples

    @property
    def dropped(self) -> list[tuple[float, ...]]:
        """For each hidden matrix, what its bases left out of phi and of g, relative to the longest fields."""
        return [
            (below.phi.space.dropped, above.g.space.dropped)
            for below, above in itertools.pairwise(self.layers)
        ]

    def rest(self) -> list[Tensor]:
        """What of the NTK lies outside the bases, matrix by matrix: [R, C, P, C, P]."""
        points = self.input.factor.shape[1]
        scales = self.scales.weights[1:-1]
        return [s**2 * matrix.rest(points) for s, matrix in zip(scales, self.hidden, strict=True)]

    def coordinates(self, kind: str) -> list[list[Tensor]]:
        """Of the current phi or g, layer by layer: of each output, [R, P, k]."""
        return [getattr(layer, kind).latest for layer in self.layers]

    @property
    def directions(self) -> int:
        """Directions held by all layers' spaces together."""
        return sum(layer.phi.space.size + layer.g.space.size for layer in self.layers)

    def start_step(self) -> None:
        """Forget the fields of the step before."""
        for layer in self.layers:
            for node in layer.nodes:
                node.start_step()
        for matrix in self.hidden:
            matrix.start_step()

    def finish_step(self, fields: Fields) -> None:
        """Show the layers that have still to draw the fields that no matrix has shown them."""
        for layer, phi, g in zip(self.layers, fields.phi, fields.g, strict=True):
            if layer.draws:
                layer.observe_rest(phi, g)
            if not self.hidden:  # Readout and feedback are drawn in the first step.
                for node in layer.nodes:
                    node.settle()

    def complete_coordinates(self, fields: Fields) -> None:
        """Show every layer the fields of this step that nothing has shown it, for kernels to be kept."""
        for layer, phi, g in zip(self.layers, fields.phi, fields.g, strict=True):
            layer.observe_rest(phi, g)

    def update(self, fields: Fields, weighted: Tensor, rule: Update) -> None:
        """One gradient step; `weighted` [R, C, P] is gamma0 eta / P times the errors."""
        sigma = self.scales.weights
        self.input.update(fields.g[0], sigma[0] * weighted, rule)
        for layer, matrix in enumerate(self.hidden, start=1):
            matrix.update(sigma[layer] * weighted, rule)
        for bias, g in zip(self.biases, fields.g, strict=bool(self.biases)):
            bias.update(g, self.scales.bias * weighted, rule)
        self.readout.update(fields.phi[-1], sigma[-1] * weighted, rule)
