"""The single-neuron equations of one layer, solved forward in time (theory sections 1 and 3).

Given kernels and errors, the fields of one neuron of layer l are

    h(t) = u(t) + sum_{s<t}  C(t, s) g(s),      u ~ GP(0, covariance from below)
    z(t) = r(t) + sum_{s<=t} D(t, s) phi(h(s)),  r ~ GP(0, covariance from above),   g = phi'(h) z

The equations are causal, so one sweep over time solves them exactly, for many neurons at once. Their
linearisation runs along in the same products: a random probe v = +-1 in r (or u) gives the mean response
as an average of (response to v) v^T over neurons.

Flat indices: "points" rows are (t, mu), T A of them; "gradient" rows are (t, c, mu), T Q with Q = C A.
Arrays are [R, S, .]: replicas, neurons.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dmft_engine.model.activations import Activation


@dataclass(frozen=True)
class Couplings:
    """What enters one layer's equations, for each replica.

    Attributes:
        c: [R, T A, T Q], strictly causal.
        d: [R, T Q, T A], causal with an equal-time part.
    """

    c: Tensor
    d: Tensor


@dataclass(frozen=True)
class Moments:
    """Sums over neurons of one layer.

    Attributes:
        phi: sum of phi phi^T, [R, T A, T A].
        g: sum of g g^T, [R, T Q, T Q].
        a: sum of d phi / d r, [R, T A, T Q], or None.
        b: sum of d g / d u, [R, T Q, T A], or None.
    """

    phi: Tensor
    g: Tensor
    a: Tensor | None
    b: Tensor | None

    def __add__(self, other: Moments) -> Moments:
        def added(mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
            return None if mine is None or theirs is None else mine + theirs

        return Moments(self.phi + other.phi, self.g + other.g, added(self.a, other.a), added(self.b, other.b))


def sweep(
    activation: Activation,
    couplings: Couplings,
    u: Tensor,
    r: Tensor,
    steps: int,
    probe_r: Tensor | None,
    probe_u: Tensor | None,
) -> Moments:
    """Solve the equations of a set of neurons.

    Args:
        activation: phi; three times differentiable wherever a response is asked for.
        couplings: C and D.
        u: [R, S, T A].
        r: [R, S, T Q].
        steps: T.
        probe_r: [R, S, T Q] of +-1, for the response A = d phi / d r; None leaves it out.
        probe_u: [R, S, T A] of +-1, for the response B = d g / d u; None leaves it out.
    """
    _, samples, width = u.shape
    points, gradients = width // steps, r.shape[-1] // steps
    outputs = gradients // points
    # Fields first, then each linearised copy: they share every matrix product.
    sources = [(u, r)]
    if probe_r is not None:
        sources.append((torch.zeros_like(u), probe_r))
    if probe_u is not None:
        sources.append((probe_u, torch.zeros_like(r)))
    phi = torch.cat([source[0] for source in sources], dim=1)
    g = torch.cat([source[1] for source in sources], dim=1)
    own = slice(0, samples)
    copies = [slice(i * samples, (i + 1) * samples) for i in range(1, len(sources))]
    slopes, bends = torch.empty_like(u), torch.empty_like(r)  # phi', and phi'' z

    for t in range(steps):
        here, here_g = slice(t * points, (t + 1) * points), slice(t * gradients, (t + 1) * gradients)
        past, past_g = slice(0, (t + 1) * points), slice(0, t * gradients)
        h = phi[..., here] + g[..., past_g] @ couplings.c[:, here, past_g].mT
        value, first, second = activation.with_two_derivatives(h[:, own])
        phi[:, own, here] = value
        for copy in copies:
            phi[:, copy, here] = first * h[:, copy]
        z = g[..., here_g] + phi[..., past] @ couplings.d[:, here_g, past].mT
        slope, bend = first.repeat(1, 1, outputs), second.repeat(1, 1, outputs) * z[:, own]
        g[:, own, here_g] = slope * z[:, own]
        for copy in copies:
            g[:, copy, here_g] = slope * z[:, copy] + bend * h[:, copy].repeat(1, 1, outputs)
        slopes[..., here], bends[..., here_g] = first, bend

    def by_output(field: Tensor) -> Tensor:
        """[.., T A] -> [.., T Q], the same for each output."""
        split = field.unflatten(-1, (steps, 1, points))
        return split.expand(*split.shape[:-2], outputs, points).flatten(-3)

    fields, gradients_own = phi[:, own], g[:, own]
    a = b = None
    # What the source reaches in one step is averaged as it is; the probe's noise is that of the rest alone.
    if probe_r is not None:
        tall = by_output(slopes)
        direct = slopes * ((tall * probe_r) @ couplings.c.mT)
        a = (phi[:, copies[0]] - direct).mT @ probe_r + couplings.c * (slopes.mT @ tall)
    if probe_u is not None:
        tall, probe = by_output(slopes), by_output(probe_u)
        through_z = tall * ((slopes * probe_u) @ couplings.d.mT)
        through_h = bends * by_output((bends * probe) @ couplings.c.mT)
        rest = g[:, copies[-1]] - bends * probe - through_z - through_h
        both_bend = (by_output(couplings.c.mT).mT * (bends.mT @ bends)).unflatten(
            -1, (steps, outputs, points)
        )
        b = rest.mT @ probe_u + couplings.d * (tall.mT @ slopes) + both_bend.sum(-2).flatten(-2)
        shape = (steps, outputs, points)
        b.unflatten(1, shape).unflatten(-1, (steps, points)).diagonal(dim1=1, dim2=4).diagonal(
            dim1=2, dim2=3
        ).add_(bends.sum(1).unflatten(-1, shape).permute(0, 2, 1, 3))
    return Moments(fields.mT @ fields, gradients_own.mT @ gradients_own, a, b)
