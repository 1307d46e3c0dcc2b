"""Deep linear networks exactly: the algebraic equations of theory section 4, solved forward in time.

With phi(h) = h every field is Gaussian. Responses and gradient kernels lose their data index, because
z is the same for all points. Let e = gamma0 eta / P and, for layer l,

    C = A^{l-1} + e H^{l-1} Delta     [T A, T C], strictly causal
    D = B^l     + e G^{l+1} Delta     [T C, T A], strictly causal
    h = u + C g,   g = r + D h,   u ~ GP(0, H^{l-1}),   r ~ GP(0, G^{l+1})

so that h = R u + A^l r and g = B^{l-1} u + R' r with R = 1 + C B^{l-1} and R' = 1 + D A^l. All of it is
causal: at step t one sweep up the layers and one down give row t of every kernel from the rows before.
No fixed point, no matrix inverse. Cost at step t: O(L (t A)^2 (A + C)); memory O(L (T A)^2).

Here A points (test points last, their errors zero), C outputs, rows of [T A, ..] ordered time-major.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmft_engine.model.fields import Scales, layered_ntk
from dmft_engine.state import State


class ConstantKernel:
    """H^0 = K^x at all times."""

    def __init__(self, kernel: Tensor) -> None:
        self._kernel = kernel

    def row(self, time: int) -> Tensor:
        """H(t, s) for s <= t, [A, (t + 1) A]."""
        return self._kernel.repeat(1, time + 1)

    def times(self, left: Tensor, time: int) -> Tensor:
        """left [n, t A] times H(s', s) for s' < t and s <= t: [n, (t + 1) A]."""
        points = len(self._kernel)
        summed = (
            left.unflatten(1, (-1, points)).sum(1) if left.shape[1] else left.new_zeros(len(left), points)
        )
        return (summed @ self._kernel).repeat(1, time + 1)


class GrowingKernel:
    """A two-time kernel whose rows arrive in the order of time."""

    def __init__(self, steps: int, size: int, like: Tensor) -> None:
        self._size = size
        self.all = like.new_zeros(steps * size, steps * size)

    def known(self, time: int) -> Tensor:
        """H(t, s) for t, s < time, copied."""
        return self.all[: time * self._size, : time * self._size].clone()

    def set_known(self, kernel: Tensor) -> None:
        """Take what `known` gave."""
        self.all[: len(kernel), : len(kernel)] = kernel

    def set_row(self, time: int, row: Tensor) -> None:
        """Store H(t, s) for s <= t, [size, (t + 1) size], and its mirror image."""
        start, stop = time * self._size, (time + 1) * self._size
        self.all[start:stop, :stop] = row
        self.all[:start, start:stop] = row[:, :start].mT

    def row(self, time: int) -> Tensor:
        start, stop = time * self._size, (time + 1) * self._size
        return self.all[start:stop, :stop]

    def times(self, left: Tensor, time: int) -> Tensor:
        start, stop = time * self._size, (time + 1) * self._size
        return left @ self.all[:start, :stop]


class LinearLayer:
    """One layer's kernels and responses.

    Attributes:
        h: H^l, a GrowingKernel of A points.
        g: G^l, a GrowingKernel of C outputs.
        a: A^l [T A, T C] = d h / d r.
        b: B^{l-1} [T C, T A] = d g / d u.
    """

    def __init__(
        self, steps: int, points: int, outputs: int, below: GrowingKernel | ConstantKernel, like: Tensor
    ) -> None:
        self.h = GrowingKernel(steps, points, like)
        self.g = GrowingKernel(steps, outputs, like)
        self.a = like.new_zeros(steps * points, steps * outputs)
        self.b = like.new_zeros(steps * outputs, steps * points)
        self._below = below
        self._points, self._outputs = points, outputs
        self._c = like.new_zeros(steps * points, steps * outputs)
        self._own = like.new_zeros(steps * outputs, steps * outputs)  # R'
        self._bh = like.new_zeros(steps * outputs, steps * points)  # B^{l-1} H^{l-1}
        self._x = like.new_zeros(points, 0)  # row t of R H^{l-1}

    def state(self, time: int) -> State:
        """All that is known before a step."""
        n, m = time * self._points, time * self._outputs
        return {
            "h": self.h.known(time),
            "g": self.g.known(time),
            "a": self.a[:n, :m].clone(),
            "b": self.b[:m, :n].clone(),
            "c": self._c[:n, :m].clone(),
            "own": self._own[:m, :m].clone(),
            "bh": self._bh[:m, :n].clone(),
        }

    def restore(self, state: State) -> None:
        """Know what the layer knew that gave this state; there may be more steps to come than it had."""
        self.h.set_known(state["h"])
        self.g.set_known(state["g"])
        for name, matrix in (
            ("a", self.a),
            ("b", self.b),
            ("c", self._c),
            ("own", self._own),
            ("bh", self._bh),
        ):
            kept = state[name]
            matrix[: kept.shape[0], : kept.shape[1]] = kept

    def up(self, t: int, coupling: Tensor, g_above: Tensor) -> None:
        """Row t of A^l and H^l.

        Args:
            t: the step.
            coupling: row t of C, [A, t C].
            g_above: G^{l+1} [.., ..] for all times before t at least.
        """
        points, m = self._points, t * self._outputs
        n0, n = t * points, (t + 1) * points
        below = self._below.row(t)
        self._c[n0:n, :m] = coupling
        response = coupling @ self._own[:m, :m]  # A^l = C R'
        self.a[n0:n, :m] = response
        self._bh[:m, n0:n] = self.b[:m, :n0] @ below[:, :n0].mT
        self._x = below + coupling @ self._bh[:m, :n]  # R H^{l-1} = H^{l-1} + C B H^{l-1}
        # H^l = R H^{l-1} R^T + A G^{l+1} A^T
        through_u = self._x + (self._x @ self.b[:m, :n].mT) @ self._c[:n, :m].mT
        through_r = (response @ g_above[:m, :m]) @ self.a[:n, :m].mT
        self.h.set_row(t, through_u + through_r)

    def down(self, t: int, coupling: Tensor, g_above: Tensor) -> Tensor:
        """Row t of B^{l-1} and G^l.

        Args:
            t: the step.
            coupling: row t of D, [C, t A].
            g_above: G^{l+1} up to and with t.

        Returns:
            <h_mu(t) g_c(t)>, [A, C].
        """
        m0, m = t * self._outputs, (t + 1) * self._outputs
        n0, n = t * self._points, (t + 1) * self._points
        # B^{l-1} = D R = D + D C B;  R' = 1 + D A
        self.b[m0:m, :n0] = coupling + (coupling @ self._c[:n0, :m0]) @ self.b[:m0, :n0]
        self._own[m0:m, :m0] = coupling @ self.a[:n0, :m0]
        self._own[m0:m, m0:m].fill_diagonal_(1.0)
        self._bh[m0:m, :n] = self._below.times(self.b[m0:m, :n0], t)
        # G^l = B H^{l-1} B^T + R' G^{l+1} R'^T
        weighted = self._own[m0:m, :m] @ g_above[:m, :m]
        self.g.set_row(t, self._bh[m0:m, :n] @ self.b[:m, :n].mT + weighted @ self._own[:m, :m].mT)
        return self._x @ self.b[m0:m, :n].mT + self.a[n0:n, :m] @ weighted.mT


class LinearTheory:
    """A deep linear network, advanced one step at a time.

    Args:
        kernel: K^x of all points, [A, A].
        depth: hidden layers L.
        steps: T.
        outputs: C.
        responses: False drops A and B: the gradient-independence approximation (theory section 5).
    """

    def __init__(self, kernel: Tensor, depth: int, steps: int, outputs: int, responses: bool = True) -> None:
        self._kernel, self._points, self._outputs = kernel, len(kernel), outputs
        self._responses = responses
        self._time = 0
        self.layers: list[LinearLayer] = []
        for _ in range(depth):
            below = self.layers[-1].h if self.layers else ConstantKernel(kernel)
            self.layers.append(LinearLayer(steps, self._points, outputs, below, kernel))
        # G^{L+1}: the readouts of different outputs are independent.
        self._readout = torch.eye(outputs).to(kernel).repeat(steps, steps)
        self._errors = kernel.new_zeros(steps, self._points, outputs)

    def state(self) -> State:
        """All that is known between two steps."""
        return {
            "time": self._time,
            "errors": self._errors[: self._time].clone(),
            "layers": [layer.state(self._time) for layer in self.layers],
        }

    def restore(self, state: State) -> None:
        """Know what the theory knew that gave this state; there may be more steps to come than it had."""
        self._time = state["time"]
        self._errors[: self._time] = state["errors"]
        for layer, kept in zip(self.layers, state["layers"], strict=True):
            layer.restore(kept)

    def _g_above(self, index: int) -> Tensor:
        return self.layers[index + 1].g.all if index + 1 < len(self.layers) else self._readout

    def step(self) -> Tensor:
        """All kernels' rows at the current time. Returns <w_c(t) h^L_mu(t)>, [A, C]."""
        t = self._time
        past = self._errors[:t]
        m, n = t * self._outputs, t * self._points
        for index, layer in enumerate(self.layers):
            below = self.layers[index - 1].h.row(t) if index else ConstantKernel(self._kernel).row(t)
            by_time = below[:, :n].unflatten(1, (t, self._points))
            learned = torch.einsum("asb,sbc->asc", by_time, past).flatten(1)
            if index and self._responses:
                learned = learned + self.layers[index - 1].a[n : n + self._points, :m]
            layer.up(t, learned, self._g_above(index))
        top = None
        for index in reversed(range(len(self.layers))):
            above = self._g_above(index)[m : m + self._outputs, :m].unflatten(1, (t, self._outputs))
            learned = torch.einsum("csd,sbd->csb", above, past).flatten(1)
            if index + 1 < len(self.layers) and self._responses:
                learned = learned + self.layers[index + 1].b[m : m + self._outputs, :n]
            correlation = self.layers[index].down(t, learned, self._g_above(index))
            top = correlation if top is None else top
        assert top is not None
        return top

    def ntk(self) -> Tensor:
        """K(t, t) at the current time, [A, C, A, C]."""
        t, points, outputs = self._time, self._points, self._outputs
        h = [self._kernel, *(layer.h.row(t)[:, t * points :] for layer in self.layers)]
        own = slice(t * outputs, (t + 1) * outputs)
        g = [self._g_above(index)[own, own] for index in range(-1, len(self.layers))]
        # Fields are those of all points: G has no data index.
        ntk = layered_ntk(Scales.ones(len(self.layers)), h, [gram[:, None, :, None] for gram in g])
        return ntk.permute(1, 0, 3, 2).contiguous()

    def advance(self, weighted_errors: Tensor) -> None:
        """One gradient step; gamma0 eta / P times the errors, [A, C]."""
        self._errors[self._time] = weighted_errors
        self._time += 1
