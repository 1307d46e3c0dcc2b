"""From a request's data to an input kernel and targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmft_engine.errors import EngineError
from dmft_schema.arrays import FloatArray
from dmft_schema.data import Data, DigitsData, InputData, KernelData, UploadedData
from dmft_schema.scale import clip_to_semidefinite
from dmft_schema.shapes import Shape
from dmft_schema.sizes import Sizes


@dataclass(frozen=True)
class Dataset:
    """Everything the theory needs to know of the data; training points come first.

    Attributes:
        kernel: [P + P', P + P'] joint input kernel K^x.
        targets: [P, C].
        test_targets: [P', C], or None when there are no test points or their targets are unknown.
        scalar_output: targets came as [P], so results drop the output axis.
        notes: what was done to the data, for the result to say.
        inputs: [P + P', *positions, D], or None where the kernel alone is known.
    """

    kernel: FloatArray
    targets: FloatArray
    test_targets: FloatArray | None
    scalar_output: bool
    notes: tuple[str, ...] = ()
    inputs: FloatArray | None = None

    @property
    def shape(self) -> Shape:
        """What one point carries."""
        if self.inputs is None:
            return Shape((), 0)
        return Shape(self.inputs.shape[1:-1], self.inputs.shape[-1])

    @property
    def points(self) -> int:
        return self.targets.shape[0]

    @property
    def test_points(self) -> int:
        return self.kernel.shape[0] - self.points

    @property
    def outputs(self) -> int:
        return self.targets.shape[1]

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.points, self.test_points, self.outputs, self.shape)


def kernel_of_inputs(inputs: FloatArray) -> FloatArray:
    """K^x[mu, al] = x_mu . x_al / D for inputs [P, D] (theory section 1); the mean of it over positions."""
    flat = inputs.reshape(len(inputs), -1)
    return flat @ flat.T / flat.shape[1]


def standardise(inputs: FloatArray) -> FloatArray:
    """Each row with mean 0 and |x|^2 = D, so that K^x[mu, mu] = 1 (the paper's preprocessing)."""
    centred = inputs - inputs.mean(axis=1, keepdims=True)
    return centred * (np.sqrt(inputs.shape[1]) / np.linalg.norm(centred, axis=1, keepdims=True))


def _columns(targets: FloatArray) -> FloatArray:
    return targets[:, None] if targets.ndim == 1 else targets


def digits(request: DigitsData) -> Dataset:
    """The chosen classes of scikit-learn's digits, in class order, drawn by the request's seed."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(request.seed)
    count = len(request.classes)
    train, test = request.samples // count, request.test_samples // count
    chosen: list[list[int]] = [[], []]
    for digit in request.classes:
        order = generator.permutation(np.flatnonzero(labels == digit))
        chosen[0].extend(order[:train])
        chosen[1].extend(order[train : train + test])
    codes = np.array([[1.0], [-1.0]]) if count == 2 else np.eye(count)
    inputs = standardise(images[chosen[0] + chosen[1]].astype(np.float64))
    return Dataset(
        kernel=kernel_of_inputs(inputs),
        targets=np.repeat(codes, train, axis=0),
        test_targets=np.repeat(codes, test, axis=0) if test else None,
        scalar_output=count == 2,
        inputs=inputs.reshape(-1, 8, 8, 1) if request.images else inputs,
    )


def load(data: Data, uploaded: KernelData | InputData | None = None) -> Dataset:
    """Turn a validated request's data into a Dataset.

    Args:
        data: as validated.
        uploaded: the dataset that `data` names, when it names an upload.

    Raises:
        EngineError: `data` names an upload and none was given.
    """
    if isinstance(data, UploadedData):
        if uploaded is None:
            raise EngineError(f"data.dataset_id {data.dataset_id} was not resolved to its content")
        data = uploaded
    if isinstance(data, DigitsData):
        return digits(data)
    notes: tuple[str, ...] = ()
    inputs = None
    if isinstance(data, InputData):
        inputs = data.inputs
        if data.test_inputs is not None:
            inputs = np.concatenate([inputs, data.test_inputs])
        kernel = kernel_of_inputs(inputs)
    else:
        kernel, negative = clip_to_semidefinite(data.joint_kernel())
        if negative is not None:
            notes = (
                f"the input kernel's smallest eigenvalue was {negative:.2g} of its largest, as rounding in "
                "float32 leaves it; negative eigenvalues were set to zero",
            )
    test_targets = None if data.test_targets is None else _columns(data.test_targets)
    return Dataset(
        kernel=(kernel + kernel.T) / 2,
        targets=_columns(data.targets),
        test_targets=test_targets,
        scalar_output=data.targets.ndim == 1,
        notes=notes,
        inputs=inputs,
    )
