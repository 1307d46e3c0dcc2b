"""Memory that a solve takes, known before it starts, and what would fit where it does not.

Bases of the revealing methods grow as training goes on. How far is an estimate (`directions`), made from
solves of images and random points; all else is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from dmft_schema import limits
from dmft_schema.blocks import ResidualBlock
from dmft_schema.closing import SAMPLED_REPLICAS, KernelEntries
from dmft_schema.layout import Layout, Link, spread
from dmft_schema.methods import (
    AlternatingMethod,
    FiniteWidthMethod,
    LinearMethod,
    PerturbationMethod,
    StaticNtkMethod,
)
from dmft_schema.sizes import Sizes
from dmft_schema.support import KINKED_ACTIVATIONS, SolveAsked, has_algebraic_theory

GIGABYTE = 1e9
PROCESS_BYTES = 5e8
"""A solver process with torch, before it has anything to solve, and what its allocator keeps."""

FIELDS_KNOWN = 0.45
"""The same for fields alone, where random vectors make room for them."""

GROWING = 3.0
"""Memory for bases over their size: they grow by doubling, and what is made on the way is there besides."""

MOST_KNOWN = 0.8
"""Known directions over neurons of a replica, past which too little is left to be orthogonal to."""

CHUNK_BYTES = {"alternating": 1 << 28, "finite_width": 1 << 30, "static": 1 << 26}
"""Samples, networks or quadrature nodes worked on side by side stay below this; the rest wait their turn."""


@dataclass(frozen=True)
class Demand:
    """All that the memory of a solve depends on.

    Attributes:
        layout: what a network of blocks holds; None of mlp and residual networks.
        kind: the way to solve it: revealing, perturbation, alternating, algebraic, static or dense.
        points, test_points, outputs, steps, depth: P, P', C, T, L.
        shared: all layers have the same neurons.
        richness: directions that fields visit over what they visit for smooth phi at gamma0 = 1.
        kinked: phi' jumps, so that every step's gradients are new directions.
        times: kernel times, K.
        kernels, ntk, responses: how many of phi and g are kept, whether the ntk and the responses are.
        copies: tensors held for each trained one: itself, a velocity, slopes.
        itemsize: bytes of a number.
        samples, replicas, tolerance: of the method; for dense networks width times ensemble, and ensemble.
        entries: of kernels at t = 0.
    """

    kind: str
    points: int
    test_points: int
    outputs: int
    steps: int
    depth: int
    shared: bool
    richness: float
    kinked: bool
    times: int
    kernels: int
    ntk: bool
    responses: bool
    copies: int
    itemsize: int
    samples: int | None
    replicas: int
    tolerance: float
    layout: Layout | None = None
    entries: KernelEntries = field(default_factory=KernelEntries)

    @classmethod
    def of(cls, asked: SolveAsked, data: Sizes) -> Demand:
        method, network, outputs = asked.method, asked.network, asked.outputs
        wanted = outputs.kernel_times
        flows = asked.training.dynamics == "gradient_flow"
        samples, replicas = getattr(method, "samples", None), getattr(method, "replicas", 1)
        if isinstance(method, FiniteWidthMethod):
            samples, replicas = method.width * method.ensemble, method.ensemble
        linear = network.activations == {"linear"}
        return cls(
            kind=_kind(asked, data),
            points=data.points,
            test_points=data.test_points,
            outputs=data.outputs,
            steps=asked.training.steps,
            depth=network.recorded,
            shared=network.architecture == "residual" or network.uses(ResidualBlock),
            richness=(0.2 if linear else 1.0) * _richness(network.gamma0),
            kinked=bool(network.activations & set(KINKED_ACTIVATIONS)),
            times=asked.training.steps if wanted == "all" else len(set(wanted)),
            kernels=len({"phi", "g"} & set(outputs.kernels)),
            ntk="ntk" in outputs.kernels,
            responses=outputs.responses,
            copies=1 + (asked.training.momentum > 0) + 6 * flows,
            itemsize=4 if method.dtype == "float32" else 8,
            samples=samples,
            replicas=replicas,
            tolerance=getattr(method, "tolerance", 1e-3),
            layout=Layout.of(network, data.shape),
            entries=KernelEntries.of(network.blocks, network.check_shape(data.shape)),
        )

    @property
    def reveals(self) -> bool:
        """Whether there are hidden matrices, known only along what training visits."""
        return self.kind in ("revealing", "perturbation") and self.depth > 1

    @property
    def all_points(self) -> int:
        return self.points + self.test_points

    @property
    def directions(self) -> tuple[float, float]:
        """Directions of one layer's phi and g at the end of training, in the mean over layers.

        Measured (tanh, erf, gelu, sin; P = 10 to 100; tolerance 0.01 to 0.1): as many for each point,
        growing as the logarithm of the tolerance.
        """
        # Where nothing is revealed as training goes on, only kernels need bases.
        steps = float(self.steps if self.reveals else self.times)
        phi = self.richness * (9.0 if self.kinked else 3.3) * math.log(0.2 / self.tolerance)
        g = self.richness * 4.1 * math.log(0.33 / self.tolerance)
        if self.kinked:
            g = steps
        phi, g = (min(max(directions, 1.0), steps) for directions in (phi, g))
        return self.all_points * phi, self.points * self.outputs * g

    @property
    def known(self) -> float:
        """Directions known in one population: phi, g, columns from below and rows from above."""
        if self.layout is not None:
            return self._most_known(self.layout)
        if not self.reveals:
            # At t = 0, when the last is drawn: inputs, phi and readouts.
            return 2 * self.all_points + self.outputs
        return 2 * sum(self.directions) * (self.depth if self.shared else 1)

    def directions_of(self, link: Link) -> tuple[float, float]:
        """Directions of the fields that a matrix reads, and of the gradients that come back to it."""
        phi, g = self.directions
        rough = self.layout.roughness if self.layout else 1.0
        phi, g = phi * rough * spread(link.rows_in), g * rough * spread(link.rows_out)
        steps = self.steps
        most = steps * self.all_points * link.rows_in, steps * self.points * self.outputs * link.rows_out
        if link.source is None:
            return float(min(self.all_points * link.rows_in, link.inputs or most[0])), min(g, most[1])
        return min(phi, most[0]), min(g, most[1])

    def _most_known(self, layout: Layout) -> float:
        """Fields of the population that most matrices read or write at, and readouts. Random vectors make
        room for fields (populations/population.py), up to half a population."""
        fields = [float(self.outputs)] * layout.populations
        for link in layout.links:
            phi, g = self.directions_of(link)
            fields[link.target] += g * link.own_exit
            fields[link.source if link.source is not None else link.target] += phi
        return max(fields) * MOST_KNOWN / FIELDS_KNOWN

    @property
    def enough_samples(self) -> int:
        """Samples over all replicas that have room for what is known; a replica has a multiple of 256, and
        whole heads."""
        needed = max(self.known / MOST_KNOWN, limits.DEFAULT_SAMPLES / self.replicas)
        unit = math.lcm(256, self.layout.group if self.layout else 1)
        most = max(1, limits.MAX_SAMPLES // self.replicas // unit)
        return unit * min(-int(-needed // unit), most) * self.replicas


def _richness(gamma0: float) -> float:
    return float(min(max(gamma0, 0.04), 1.0) ** 0.5 * min(max(gamma0, 1.0), 8.0) ** 0.25)


def _kind(asked: SolveAsked, data: Sizes) -> str:
    if asked.network.gamma0 == 0:
        return "static"
    match asked.method:
        case FiniteWidthMethod():
            return "dense"
        case AlternatingMethod():
            return "alternating"
        case LinearMethod():
            return "algebraic"
        case StaticNtkMethod():
            return "static"
        case PerturbationMethod():
            return "static" if has_algebraic_theory(asked) and data.outputs == 1 else "perturbation"
    algebraic = asked.method.name == "gradient_independence" and has_algebraic_theory(asked)
    return "algebraic" if algebraic and not asked.outputs.field_times else "revealing"


def _revealing_blocks(d: Demand, layout: Layout) -> float:
    samples = (d.samples or d.enough_samples) / d.replicas
    room = min(1.0, MOST_KNOWN * samples / d.known)
    held = layout.populations * min(d.known, samples) * samples
    working = 0.0
    largest = 1.0
    for link in layout.links:
        phi, g = (k * room for k in d.directions_of(link))
        largest = max(largest, phi, g)
        if link.source is None:
            held += (phi + g) * samples
            continue
        # Bases, and for each offset columns, rows and what couples them.
        held += (1 + link.matrices) * (phi + g) * samples + (3 + d.copies) * link.matrices * phi * g
        rows = d.all_points * max(link.rows_in, link.rows_out)
        working = max(working, rows * link.matrices * max(phi, g))
    return d.replicas * (GROWING * held + working + _passing(d, layout) * samples) * d.itemsize + _records(
        d, largest, largest
    )


def _passing(d: Demand, layout: Layout) -> float:
    """Numbers for each neuron that a pass through the network and back holds."""
    return d.all_points * (layout.rows + layout.scores) * 2 * (1 + d.outputs)


def _revealing(d: Demand) -> float:
    if d.layout is not None:
        return _revealing_blocks(d, d.layout)
    samples = (d.samples or d.enough_samples) / d.replicas
    phi, g = d.directions
    # Never more than a population has room for.
    room = min(1.0, MOST_KNOWN * samples / d.known if d.reveals else samples / max(phi, g))
    phi, g = phi * room, g * room
    # phi, g, columns and rows, and once more among the population's known directions.
    bases = 4 * d.depth * (phi + g) * samples
    fields = 5 * d.depth * d.all_points * (1 + d.outputs) * samples
    cores = (3 + d.copies) * d.depth * phi * g
    return d.replicas * (bases + fields + cores) * d.itemsize + _records(d, phi, g)


def _records(d: Demand, phi: float, g: float) -> float:
    """Kernels as factors: all layers while training goes on, one a few times more when it is written."""
    positions = d.layout.most_rows if d.layout else 1
    factors = d.times * d.points * positions * max(phi, d.outputs * g) * d.replicas * d.itemsize
    total = (d.kernels * d.depth + 3 * (d.kernels > 0)) * factors
    if d.responses:
        total += 3 * d.depth * d.steps * d.points * (1 + d.outputs) * (phi + g) * d.replicas * d.itemsize
        total += 4 * d.depth * d.replicas * (d.times * d.points) ** 2 * d.outputs * 8
    return total


def _perturbation(d: Demand) -> float:
    # Two runs, each of whose ntks are kept at every step.
    ntks = 4 * d.replicas * d.steps * (d.all_points * d.outputs) ** 2 * 8
    # First and second orders of the fields, by tolerances far below both.
    return _revealing(replace(d, tolerance=0.01, richness=1.0)) + ntks


def _alternating(d: Demand) -> float:
    points, gradients = d.steps * d.all_points, d.steps * d.all_points * d.outputs
    layer = points**2 + gradients**2 + 2 * points * gradients
    # Old and new kernels of every layer; couplings, a covariance and its factor in float64 of one.
    working = 2 * points * gradients * d.itemsize + 3 * max(points, gradients) ** 2 * 8
    return d.replicas * (2 * d.depth * layer * d.itemsize + working) + 2 * CHUNK_BYTES["alternating"]


def _algebraic(d: Demand) -> float:
    points, outputs = d.steps * d.all_points, d.steps * d.outputs
    layers = d.depth * (points**2 + 2 * outputs**2 + 4 * points * outputs)
    return 8 * (layers + 4 * (d.times * d.all_points) ** 2)


def _static(d: Demand) -> float:
    kernels = 6 * (d.depth + 1) * d.all_points**2 + 4 * (d.all_points * d.outputs) ** 2
    if d.entries.sampled:
        kernels *= SAMPLED_REPLICAS
    rows = d.all_points * (d.layout.most_rows if d.layout is not None else 1)
    # Averages are taken of a portion of all pairs at a time, 128 bytes each (theory/point_pairs.py).
    portion = min(1.0, rows**2 * 128 / CHUNK_BYTES["static"])
    return 8 * (kernels + d.entries.held(d.all_points)) + 4 * portion * CHUNK_BYTES["static"]


def _dense(d: Demand) -> float:
    assert d.samples is not None
    width = d.samples / d.replicas
    if d.layout is not None:
        return _dense_blocks(d, d.layout, width)
    phi, g = (min(k, width) for k in replace(d, tolerance=1e-3).directions)
    member = d.depth * width * (width * (d.copies + 1) + 2 * (phi + g) + 8 * d.all_points * (1 + d.outputs))
    together = max(1.0, min(d.replicas, CHUNK_BYTES["finite_width"] / (d.depth * width**2 * d.itemsize)))
    return member * together * d.itemsize + _records(d, phi, g)


def _dense_blocks(d: Demand, layout: Layout, width: float) -> float:
    found = [replace(d, tolerance=1e-3).directions_of(link) for link in layout.links]
    phi, g = (min(max(k), width) for k in zip(*found, strict=True))
    matrices = max(1, layout.matrices)
    passing = _passing(d, layout) * width
    member = matrices * width**2 * (d.copies + 2) + passing + 2 * layout.layers * (phi + g) * width
    # As the engine groups them (methods/finite_width.py).
    entries = width * (matrices * width + 8 * layout.layers * d.all_points * layout.most_rows)
    together = max(1.0, min(d.replicas, CHUNK_BYTES["finite_width"] / (entries * d.itemsize)))
    return member * together * d.itemsize + _records(d, phi, g)


_BYTES: dict[str, Callable[[Demand], float]] = {
    "revealing": _revealing,
    "perturbation": _perturbation,
    "alternating": _alternating,
    "algebraic": _algebraic,
    "static": _static,
    "dense": _dense,
}


def memory_bytes(d: Demand) -> float:
    """What a solve takes at its peak, in bytes, an estimate from above."""
    trajectory = 4 * d.steps * d.all_points * d.outputs * d.replicas * 8
    ntk = d.ntk * d.times * (d.points * d.outputs) ** 2 * (2 * d.itemsize + 32)
    dense = d.times * d.points * d.outputs <= limits.MAX_KERNEL_ENTRIES
    written = 2 * d.kernels * d.depth * (d.times * d.points * d.outputs) ** 2 * 8 if dense else 0
    return PROCESS_BYTES + trajectory + ntk + written + _BYTES[d.kind](d)


def _smaller(d: Demand) -> Iterator[tuple[str, Demand]]:
    """What a user might ask for instead, the least sacrifice first."""
    for times in (d.times // 2, d.times // 10, 2):
        if 1 < times < d.times:
            yield f"{times} outputs.kernel_times", replace(d, times=times)
    for words, smaller in _coarser(d):
        yield words, smaller
    for words, smaller in _coarser(d):
        yield f"{words} and 2 outputs.kernel_times", replace(smaller, times=min(2, d.times))


def _coarser(d: Demand) -> Iterator[tuple[str, Demand]]:
    if d.kind == "dense" and d.samples:
        width = d.samples // d.replicas
        for part in (2, 4, 8):
            if width < part:
                break
            yield f"method.width {width // part}", replace(d, samples=width // part * d.replicas)
    if d.kind in ("revealing", "perturbation", "alternating"):
        samples = d.samples and 2 * d.samples // d.replicas
        if d.replicas > 2:
            yield "method.replicas 2", replace(d, replicas=2, samples=samples)
        for tolerance in (0.03, 0.05, 0.1) if d.kind == "revealing" else ():
            if tolerance > d.tolerance:
                few = replace(d, replicas=2, samples=None, tolerance=tolerance)
                yield f"method.tolerance {tolerance:g}, method.replicas 2", few


def _fewer_points(d: Demand, limit: float) -> int:
    """Most training points that would fit with everything else as it is; 0 if none."""
    fits, fails = 0, d.points
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if memory_bytes(replace(d, points=middle)) <= limit:
            fits = middle
        else:
            fails = middle
    return fits


def _what_would_fit(d: Demand, limit: float) -> str:
    """Advice: requests like this one that fit into `limit` bytes."""
    found = next((words for words, smaller in _smaller(d) if memory_bytes(smaller) <= limit), None)
    points = _fewer_points(d, limit)
    options = [words for words in (found, f"{points} training points" if points else None) if words]
    return f"It would fit with {', or with '.join(options)}." if options else "Use a much smaller problem."


@dataclass(frozen=True)
class Shortage:
    """Why a solve does not fit, and what would."""

    message: str
    advice: str


def in_gigabytes(size: float) -> str:
    """Bytes in words: 0.6 GB, 190 GB."""
    return f"{size / GIGABYTE:.{0 if size >= 10 * GIGABYTE else 1}f} GB"


def shortage(demand: Demand, limit: float) -> Shortage | None:
    """What stands against a solve in `limit` bytes; None if nothing does."""
    needed = memory_bytes(demand)
    if needed <= limit:
        return None
    return Shortage(
        f"this solve needs about {in_gigabytes(needed)} of memory (limit: {in_gigabytes(limit)})",
        _what_would_fit(demand, limit),
    )
