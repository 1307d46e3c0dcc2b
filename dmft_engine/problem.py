"""What a solver is given: the data as arrays, the rest as the contract's models."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dmft_engine import data as data_module
from dmft_engine.data import Dataset
from dmft_schema import InputData, KernelData, Network, Outputs, SolveRequest, Training
from dmft_schema.methods import Method


@dataclass(frozen=True)
class Problem:
    """One solve. `network`, `training`, `method` and `outputs` are documented in dmft_schema."""

    data: Dataset
    network: Network
    training: Training
    method: Method
    outputs: Outputs = field(default_factory=Outputs)

    @classmethod
    def from_request(cls, request: SolveRequest, uploaded: KernelData | InputData | None = None) -> Problem:
        """The problem that a validated request describes.

        Raises:
            EngineError: the request names an uploaded dataset and `uploaded` is None.
        """
        return cls(
            data=data_module.load(request.data, uploaded),
            network=request.network,
            training=request.training,
            method=request.method,
            outputs=request.outputs,
        )

    @property
    def kernel_steps(self) -> np.ndarray:
        """[K] increasing steps at which kernels are kept."""
        steps = self.training.steps
        if self.outputs.kernel_times == "all":
            return np.arange(steps)
        return np.unique([step % steps for step in self.outputs.kernel_times])

    @property
    def field_steps(self) -> list[int]:
        """Increasing steps at which fields are kept."""
        return sorted({step % self.training.steps for step in self.outputs.field_times})
