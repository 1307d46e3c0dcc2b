"""A weight-bearing block's linear map: from the data or from neurons, with or without a bias."""

from __future__ import annotations

from torch import Tensor

from dmft_engine.weights.builder import Builder, Neurons
from dmft_engine.weights.windows import WHOLE, Window


class Linear:
    """sigma_w W x / sqrt(fan-in) + sigma_b b; with a window, a filter's sum over its offsets.

    Attributes:
        exit: where gradients of what it makes pass.
    """

    def __init__(
        self,
        builder: Builder,
        source: Neurons | None,
        target: Neurons,
        rows: Tensor | None,
        weight_scale: float,
        bias_scale: float,
        window: Window = WHOLE,
    ) -> None:
        """
        Args:
            builder: makes its parts.
            source: whose fields it takes; None: it takes the data.
            target: whose fields it makes.
            rows: the data that it takes, [P A, D], or None where their kernel alone is known.
            weight_scale, bias_scale: sigma_w and sigma_b; no bias if that is 0.
            window: from which rows to which.
        """
        exit = self.exit = builder.node(target)
        if source is None:
            self._site = builder.site(exit=exit)
            self._input = builder.input(target, rows, weight_scale, self._site.tap)
            self._matrix = None
        else:
            entry = builder.node(source)
            self._site = builder.site(entry, exit)
            # 1 / sqrt(k^d) of a filter with k^d offsets
            self._matrix = builder.matrix(entry, exit, weight_scale / window.forward.count**0.5, window)
        self._bias = builder.bias(target, bias_scale, self._site.tap) if bias_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """[R, rows, S] -> [R, rows', S']."""
        x = self._site.enter(x)
        h = self._input.forward() if self._matrix is None else self._matrix.forward(x)
        return self._site.leave(h if self._bias is None else self._bias.forward(h))
