"""What of a composed network is trained: each part has a place in the pass, an update, a term of the NTK."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dmft_engine.weights.matrices import HiddenMatrix, by_row, matvec
from dmft_engine.weights.parameter import Parameter, Update
from dmft_engine.weights.tangent import tangent_kernel
from dmft_engine.weights.weights import Bias, InputMatrix, Readout


class Tap:
    """A place in the pass where gradients are wanted.

    Attributes:
        value: the field [R, rows, S] that passed; None where none does.
        g: its gradients [R, C, rows, S], once they are known.
    """

    value: Tensor | None = None
    g: Tensor

    def mark(self, field: Tensor) -> Tensor:
        """The same field, as it passes here."""
        marked = field.view_as(field) if field.requires_grad else field.requires_grad_(True)
        self.value = marked
        return marked


class Part(Protocol):
    """Weights with a place in the pass."""

    def update(self, weighted: Tensor, rule: Update) -> None:
        """One gradient step; `weighted` [R, C, P] is gamma0 eta / P times the errors."""

    def tangent(self, points: int) -> Tensor:
        """Its term of the NTK of P points, [R, C, P, C, P]."""

    def parameters(self) -> list[Parameter]:
        """All that training moves."""


class MatrixPart:
    """sigma W x / sqrt(N), W a hidden matrix or a filter."""

    def __init__(self, matrix: HiddenMatrix, scale: float) -> None:
        self._matrix = matrix
        self._scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """[R, rows, S] -> [R, rows', S']."""
        return matvec(self._matrix, x, self._scale)

    def update(self, weighted: Tensor, rule: Update) -> None:
        self._matrix.update(self._scale * weighted, rule)

    def tangent(self, points: int) -> Tensor:
        return self._scale**2 * self._matrix.tangent(points)

    def rest(self, points: int) -> Tensor:
        """What of `tangent` lies outside the bases."""
        return self._scale**2 * self._matrix.rest(points)

    def parameters(self) -> list[Parameter]:
        return self._matrix.parameters()


class InputPart:
    """sigma W^0 x: the data's rows, seen through a factor of their kernel."""

    def __init__(self, matrix: InputMatrix, scale: float, tap: Tap) -> None:
        self._matrix = matrix
        self._scale = scale
        self._tap = tap

    def forward(self) -> Tensor:
        """[R, rows, S]."""
        return self._scale * self._matrix.apply()

    def update(self, weighted: Tensor, rule: Update) -> None:
        g = self._tap.g
        self._matrix.update(g, by_row(self._scale * weighted, g[:, 0]), rule)

    def tangent(self, points: int) -> Tensor:
        return self._scale**2 * tangent_kernel(self._matrix.factor, self._tap.g, points, neurons=1)

    def parameters(self) -> list[Parameter]:
        return self._matrix.parameters()


class BiasPart:
    """h + sigma b, the same at all rows."""

    def __init__(self, bias: Bias, scale: float, tap: Tap) -> None:
        self._bias = bias
        self._scale = scale
        self._tap = tap

    def forward(self, h: Tensor) -> Tensor:
        return h + self._scale * self._bias.apply()

    def update(self, weighted: Tensor, rule: Update) -> None:
        g = self._tap.g
        self._bias.update(g, by_row(self._scale * weighted, g[:, 0]), rule)

    def tangent(self, points: int) -> Tensor:
        # sum_{a, a'} g_a . g_a' / S
        summed = self._tap.g.unflatten(2, (points, -1)).sum(3)
        one = summed.new_ones(1, points, 1)
        return self._scale**2 * tangent_kernel(one, summed, points, neurons=1)

    def parameters(self) -> list[Parameter]:
        return self._bias.parameters()


class GainPart:
    """gain * x, neuron by neuron; gains begin at 1, as those of torch.nn's normalisations do.

    Attributes:
        tap: where the product passes.
    """

    def __init__(self, gain: Bias, tap: Tap) -> None:
        self._gain = gain
        self.tap = tap
        self._x: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self._x = x.detach()
        return self.tap.mark(x * self._gain.apply())

    def _products(self, points: int) -> Tensor:
        """sum_a g_{mu a} x_{mu a}, neuron by neuron, [R, C, P, S]."""
        return (self.tap.g * self._x[:, None]).unflatten(2, (points, -1)).sum(3)

    def update(self, weighted: Tensor, rule: Update) -> None:
        self._gain.update(self._products(weighted.shape[-1]), weighted, rule)

    def tangent(self, points: int) -> Tensor:
        summed = self._products(points)
        return tangent_kernel(summed.new_ones(1, points, 1), summed, points, neurons=1)

    def parameters(self) -> list[Parameter]:
        return self._gain.parameters()


class ReadoutPart:
    """sigma w . x / sqrt(A) from A positions of each point; of one, w . x."""

    def __init__(self, readout: Readout, scale: float, positions: int) -> None:
        self._readout = readout
        self.scale = scale / positions**0.5
        self._positions = positions
        self.x: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """gamma0 N f of all points, [R, P, C]."""
        self.x = x.detach().unflatten(1, (-1, self._positions)).flatten(2)
        return self.scale * self._readout.apply(x)

    def update(self, weighted: Tensor, rule: Update) -> None:
        self._readout.update(self.x, self.scale * weighted, rule)

    def tangent(self, points: int) -> Tensor:
        outputs = self._readout.parameters()[0].value.shape[1]
        neurons = self.x.shape[-1] // self._positions
        gram = self.scale**2 * self.x @ self.x.mT / neurons
        identity = torch.eye(outputs, dtype=gram.dtype, device=gram.device)
        return gram[:, None, :, None, :] * identity[None, :, None, :, None]

    def parameters(self) -> list[Parameter]:
        return self._readout.parameters()
