"""A network that is composed of blocks: its weights, its forward and its backward pass.

The same blocks give the infinite-width limit, its approximations and finite networks: only what the builder
makes differs (weights/builder.py). Gradients come from ordinary backpropagation through them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.model.blocks.chain import Chain
from dmft_engine.model.blocks.readout import Readout
from dmft_engine.model.fields import Fields, Scales
from dmft_engine.state import State, Stateful
from dmft_engine.weights.builder import Builder
from dmft_engine.weights.matrices import HiddenMatrix
from dmft_engine.weights.parameter import Parameter, Update
from dmft_engine.weights.parts import MatrixPart, Part
from dmft_engine.weights.sites import Layer
from dmft_schema.shapes import Shape


@dataclass(frozen=True)
class ComposedFields(Fields):
    """Fields of a composed network; rows of h, phi, g and z are points at positions.

    Layer l is the l-th weight-bearing block: h^l is what it makes and g^l its gradient, phi^l is what the
    next one takes, z^l its gradient, where fields are kept.

    Attributes:
        parts: what is trained.
        read: what is read out, [R, P, S] (or [R, P, A S] by vectors for each of A positions).
    """

    parts: Sequence[Part] = ()
    read: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def readable(self) -> Tensor:
        return self.read

    def ntk(self, input_kernel: Tensor) -> Tensor:
        """K(t, t), [R, C, P, C, P]: the sum of what each part adds."""
        points = self.output.shape[1]
        total = self.parts[0].tangent(points)
        for part in self.parts[1:]:
            total = total + part.tangent(points)
        return total


_PARTS = ("nodes", "populations", "vectors", "matrices")
"""Of a network's state. Nodes come first: they tell whether anything is still drawn from populations."""


class Composition(Stateful):
    """All weights of one composed network, and the passes through it.

    Attributes:
        layers: between each weight-bearing block and the next, l = 1..L.
        samples: neurons in each population.
    """

    def __init__(self, models: Sequence[Any], shape: Shape, builder: Builder) -> None:
        """
        Args:
            models: its blocks, as the request has them (dmft_schema/blocks.py), a readout last.
            shape: of the data.
            builder: makes what they consist of.
        """
        *body, last = models
        self._builder = builder
        self._body = Chain(body, builder, Signal(shape, None))
        self._readout = Readout(last, builder, self._body.outgoing, None)
        self.layers = [Layer(below, above) for below, above in itertools.pairwise(builder.sites)]
        self.samples = builder.samples

    @property
    def readout(self) -> Part:
        return self._readout.part

    @property
    def hidden(self) -> Sequence[HiddenMatrix]:
        return self._builder.matrices

    def parameters(self) -> list[Parameter]:
        """All that training moves."""
        return [parameter for part in self._builder.parts for parameter in part.parameters()]

    def state(self) -> State:
        """What is known of the network between two steps (state.py)."""
        return {name: [part.state() for part in self._parts(name)] for name in _PARTS}

    def restore(self, state: State) -> None:
        """Be what the network was that gave this state, made for the same problem by the same options."""
        for name in _PARTS:
            for part, own in zip(self._parts(name), state[name], strict=True):
                part.restore(own)

    def _parts(self, name: str) -> Sequence[Stateful | HiddenMatrix]:
        parts: Sequence[Stateful | HiddenMatrix] = getattr(self._builder, name)
        return parts

    def coordinates(self, kind: str) -> list[list[Tensor]]:
        """Of the current phi or g, layer by layer: of each output, [R, P, k] or [R, P, A, k]."""
        points = self._builder.points
        return [
            [
                block if block.shape[1] == points else block.unflatten(1, (points, -1))
                for block in layer.coordinates(kind)
            ]
            for layer in self.layers
        ]

    @property
    def directions(self) -> int:
        """Directions held by all nodes' spaces together."""
        return sum(node.space.size for node in self._builder.nodes)

    @property
    def dropped(self) -> list[tuple[float, ...]]:
        """What the nodes of hidden matrices have left out of their fields, relative to the longest."""
        nodes = {id(n): n for m in self._builder.matrices for n in (m.source, m.target)}
        return [(node.dropped,) for node in nodes.values()]

    def rest(self) -> list[Tensor]:
        """What of the NTK lies outside the bases, matrix by matrix: [R, C, P, C, P]."""
        points = self._builder.points
        return [part.rest(points) for part in self._builder.parts if isinstance(part, MatrixPart)]

    def propagate(self, gradient_points: int) -> ComposedFields:
        """One forward and one backward pass: the fields at the current weights.

        Points from `gradient_points` on get g = 0: nothing is revealed for them.
        """
        builder = self._builder
        for node in builder.nodes:
            node.start_step()
        for matrix in builder.matrices:
            matrix.start_step()
        data = torch.empty(0, dtype=builder.dtype, device=builder.device)
        with torch.enable_grad():
            output = self._readout.forward(self._body.forward(data))
            self._backpropagate(output[:, :gradient_points].sum((0, 1)))
        fields = ComposedFields(
            h=[layer.below.h.detach() for layer in self.layers],
            phi=[layer.above.x.detach() for layer in self.layers],
            g=[layer.below.tap.g for layer in self.layers],
            z=[layer.above.taken.g for layer in self.layers if layer.above.taken is not None],
            output=output.detach(),
            scales=Scales((self._readout.part.scale,), 0.0),
            parts=builder.parts,
            read=self._readout.part.x,
        )
        self._finish_step()
        return fields

    def _backpropagate(self, outputs: Tensor) -> None:
        """Give every tap its g, output by output."""
        passed = [(tap, tap.value) for tap in self._builder.taps if tap.value is not None]
        places = [value for _, value in passed]
        found = [
            torch.autograd.grad(
                value,
                places,
                retain_graph=index + 1 < len(outputs),
                allow_unused=True,
                materialize_grads=True,
            )
            for index, value in enumerate(outputs.unbind())
        ]
        for (tap, _), gradients in zip(passed, zip(*found, strict=True), strict=True):
            tap.g = torch.stack(gradients, dim=1)

    def _finish_step(self) -> None:
        """Show nodes that have still to draw the gradients that no matrix has shown them."""
        for layer in self.layers:
            if layer.g.draws:
                layer.below.g_coordinates()
        if not self._builder.matrices:  # The readout is drawn in the first step.
            for node in self._builder.nodes:
                node.settle()

    def complete_coordinates(self, fields: Fields) -> None:
        """Show every layer's nodes the fields of this step that nothing has shown them, for kernels."""
        for layer in self.layers:
            layer.coordinates("phi"), layer.coordinates("g")

    def update(self, fields: Fields, weighted: Tensor, rule: Update) -> None:
        """One gradient step; `weighted` [R, C, P] is gamma0 eta / P times the errors."""
        weighted = _of_all_points(weighted, self._builder.points)
        for part in self._builder.parts:
            part.update(weighted, rule)


def _of_all_points(weighted: Tensor, points: int) -> Tensor:
    """[R, C, P + P'], with no errors of test points."""
    return torch.nn.functional.pad(weighted, (0, points - weighted.shape[-1]))
