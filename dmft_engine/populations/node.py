"""Nodes: the places in a network where matrices read and write."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.populations.population import Population
from dmft_engine.populations.subspace import Subspace
from dmft_engine.state import State, Stateful


class Seen:
    """A field of the current step, and its coordinates in its node's basis once somebody asks for them."""

    def __init__(self, node: Node, field: Tensor) -> None:
        """`field` [R, rows, S]."""
        self._node = node
        self.field = field

    @cached_property
    def coordinates(self) -> Tensor:
        """[R, rows, k], k being the directions known after this field was observed."""
        return self._node.observe(self.field)


class Node(Stateful):
    """A population at a place in the network, where one field passes in a step (or one for each output).

    It observes that field, once, and its basis grows; the matrices that read or write here, any number of
    them, reveal what they lack when they next see that it has.

    Attributes:
        space: spans the fields observed here.
        latest: coordinates observed since the step began, one tensor for each field.
        dropped: the most that was left outside the basis of a field since the step began (Subspace.dropped).
    """

    kept: ClassVar[tuple[str, ...]] = ("space",)

    def __init__(self, space: Subspace, population: Population | None) -> None:
        """`population`: whose neurons they are; None for a dense network, of which all is drawn."""
        self.space = space
        self._population = population
        self._shown: list[Seen] = []
        self.latest: list[Tensor] = []
        self.dropped = 0.0

    @property
    def population(self) -> Population:
        assert self._population is not None, "the neurons of a dense network are no samples"
        return self._population

    @property
    def draws(self) -> bool:
        """Whether random vectors are still to be drawn that must be independent of the fields here."""
        return self._population is not None

    def state(self) -> State:
        return super().state() | {"draws": self.draws}

    def restore(self, state: State) -> None:
        super().restore(state)
        if not state["draws"]:
            self.settle()
        self.start_step()

    def settle(self) -> None:
        """Nothing more is drawn here: what is known of the neurons matters no longer."""
        self._population = None

    def start_step(self) -> None:
        """Forget the fields of the step before."""
        self._shown.clear()
        self.latest.clear()
        self.dropped = 0.0

    def show(self, field: Tensor) -> Seen:
        """The field [R, rows, S] as seen here: whoever shows the same one again is given the same answer."""
        for seen in self._shown:
            if _same(seen.field, field):
                return seen
        self._shown.append(Seen(self, field))
        return self._shown[-1]

    def observe(self, field: Tensor) -> Tensor:
        """Take a field [R, rows, S] into account. Returns its coordinates [R, rows, k].

        Raises:
            Exhausted: the population has too few neurons for what is new.
            NotFinite: the field is not finite.
        """
        coordinates, new = self.space.observe(field)
        if new is not None and self._population is not None:
            self._population.include(new)
        self.latest.append(coordinates)
        self.dropped = max(self.dropped, self.space.dropped)
        return coordinates


class Layer:
    """The two nodes of one layer; kernels are Gram matrices of coordinates there.

    Attributes:
        phi: where the next matrix reads the activations phi(h(t)).
        g: where the matrix below writes; the field that passes is its gradient g(t), output by output.
    """

    def __init__(
        self,
        replicas: int,
        samples: int,
        tolerance: float,
        dtype: torch.dtype,
        device: str,
        population: Population | None = None,
    ) -> None:
        """`population`: whose neurons they are; None for a dense network."""
        self.samples = samples
        self.phi = Node(Subspace(replicas, samples, tolerance, dtype, device), population)
        self.g = Node(Subspace(replicas, samples, tolerance, dtype, device), population)

    @property
    def population(self) -> Population:
        return self.phi.population

    @property
    def draws(self) -> bool:
        return self.phi.draws

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.phi, self.g

    def observe_rest(self, phi: Tensor, g: Tensor) -> None:
        """Show it the fields of this step, phi [R, P, S] and g [R, C, P, S], that nothing has shown it."""
        if not self.phi.latest:
            self.phi.observe(phi)
        if not self.g.latest:
            for output in g.unbind(1):
                self.g.observe(output)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether they are one array; `one` is still held, so that nothing else can lie in its place."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
