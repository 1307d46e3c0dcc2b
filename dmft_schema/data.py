"""The four ways to give a problem its data: a kernel, inputs, a named dataset, an upload."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from dmft_schema import limits
from dmft_schema.arrays import FloatArray
from dmft_schema.base import Inputs, Matrix, StrictModel, Targets
from dmft_schema.scale import check_positive_semidefinite, check_scale_of_inputs, check_scale_of_targets
from dmft_schema.shapes import Shape
from dmft_schema.sizes import Sizes

DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
"""Images of each class 0..9 in scikit-learn's digits; a test compares it with the library."""


def _check_rows(array: FloatArray, rows: int, name: str, of: str) -> None:
    if array.shape[0] != rows:
        raise ValueError(f"{name} has {array.shape[0]} rows, but {of} has {rows}")


def _check_outputs(targets: FloatArray, test_targets: FloatArray | None) -> None:
    if targets.ndim == 2 and targets.shape[1] > limits.MAX_OUTPUTS:
        raise ValueError(f"targets has {targets.shape[1]} outputs (limit: {limits.MAX_OUTPUTS})")
    check_scale_of_targets(targets, "targets")
    if test_targets is not None:
        if test_targets.shape[1:] != targets.shape[1:]:
            raise ValueError("test_targets must have as many outputs for each point as targets")
        check_scale_of_targets(test_targets, "test_targets")


def _check_points(points: int, limit: int) -> None:
    if points > limit:
        raise ValueError(f"the data has {points} points, training and test together (limit: {limit})")


def kinds_of_targets(targets: FloatArray) -> list[str]:
    """What targets can mean beside real numbers: signs (all +1 or -1), simplex (rows of probabilities)."""
    kinds = []
    if (np.abs(targets) == 1).all():
        kinds.append("signs")
    several = targets.ndim == 2 and targets.shape[1] > 1
    if several and (targets >= 0).all() and np.allclose(targets.sum(1), 1, rtol=0, atol=1e-6):
        kinds.append("simplex")
    return kinds


def _outputs(targets: FloatArray) -> int:
    return 1 if targets.ndim == 1 else int(targets.shape[1])


class SizedData(StrictModel):
    """Data whose sizes are known."""

    @property
    def sizes(self) -> Sizes:
        raise NotImplementedError

    @property
    def points(self) -> int:
        return self.sizes.points

    @property
    def test_points(self) -> int:
        return self.sizes.test_points


class KernelData(SizedData):
    """An input kernel K^x[mu, al] = x_mu . x_al / D and the targets (theory section 1)."""

    kernel: Matrix = Field(description="[P, P] kernel of the training inputs, symmetric and PSD.")
    targets: Targets = Field(description="[P] or [P, C].")
    cross_kernel: Matrix | None = Field(None, description="[P', P] kernel between test and training inputs.")
    test_kernel: Matrix | None = Field(None, description="[P', P'] kernel of the test inputs.")
    test_targets: Targets | None = Field(None, description="[P'] or [P', C].")

    @property
    def sizes(self) -> Sizes:
        tests = 0 if self.test_kernel is None else len(self.test_kernel)
        return Sizes(
            len(self.kernel), tests, _outputs(self.targets), Shape((), 0), kinds_of_targets(self.targets)
        )

    def joint_kernel(self) -> FloatArray:
        """[P + P', P + P']: training points first, then test points."""
        if self.test_kernel is None or self.cross_kernel is None:
            return self.kernel
        return np.block([[self.kernel, self.cross_kernel.T], [self.cross_kernel, self.test_kernel]])

    @model_validator(mode="after")
    def _consistent(self) -> KernelData:
        _check_points(self.points + self.test_points, limits.MAX_KERNEL_POINTS)
        if self.kernel.shape[0] != self.kernel.shape[1]:
            raise ValueError(f"kernel must be square; got shape {list(self.kernel.shape)}")
        _check_rows(self.targets, self.points, "targets", "kernel")
        _check_outputs(self.targets, self.test_targets)
        if (self.cross_kernel is None) != (self.test_kernel is None):
            raise ValueError("cross_kernel and test_kernel must be given together")
        if self.test_kernel is None:
            if self.test_targets is not None:
                raise ValueError("test_targets needs cross_kernel and test_kernel")
            check_positive_semidefinite(self.kernel, "kernel")
            return self
        assert self.cross_kernel is not None
        if self.test_kernel.shape[0] != self.test_kernel.shape[1]:
            raise ValueError(f"test_kernel must be square; got shape {list(self.test_kernel.shape)}")
        if self.cross_kernel.shape != (self.test_points, self.points):
            raise ValueError(
                f"cross_kernel must have shape [P', P] = [{self.test_points}, {self.points}]; "
                f"got {list(self.cross_kernel.shape)}"
            )
        if self.test_targets is not None:
            _check_rows(self.test_targets, self.test_points, "test_targets", "test_kernel")
        check_positive_semidefinite(self.kernel, "kernel")
        check_positive_semidefinite(
            self.joint_kernel(), "the joint kernel of kernel, cross_kernel and test_kernel"
        )
        return self


class InputData(SizedData):
    """Inputs x_mu, used as they are: vectors in R^D, sequences of them, or images."""

    inputs: Inputs = Field(
        description="Training inputs: [P, D] vectors, [P, times, D] sequences or [P, H, W, C] images."
    )
    targets: Targets = Field(description="[P] or [P, C].")
    test_inputs: Inputs | None = Field(None, description="Test inputs, P' of the same shape.")
    test_targets: Targets | None = Field(None, description="[P'] or [P', C].")

    @property
    def sizes(self) -> Sizes:
        tests = 0 if self.test_inputs is None else len(self.test_inputs)
        *positions, dimension = self.inputs.shape[1:]
        shape = Shape(tuple(positions), dimension)
        return Sizes(len(self.inputs), tests, _outputs(self.targets), shape, kinds_of_targets(self.targets))

    @model_validator(mode="after")
    def _consistent(self) -> InputData:
        _check_points(self.points + self.test_points, limits.MAX_POINTS)
        shape = self.sizes.shape
        dimension = int(np.prod(self.inputs.shape[1:]))
        if dimension > limits.MAX_INPUT_DIMENSION:
            advice = "make them smaller" if shape.positions else "send the kernel instead"
            raise ValueError(
                f"inputs have {dimension} dimensions (limit: {limits.MAX_INPUT_DIMENSION}); {advice}"
            )
        check_scale_of_inputs(self.inputs, "inputs")
        _check_rows(self.targets, self.points, "targets", "inputs")
        _check_outputs(self.targets, self.test_targets)
        if self.test_inputs is None:
            if self.test_targets is not None:
                raise ValueError("test_targets needs test_inputs")
            return self
        if self.test_inputs.shape[1:] != self.inputs.shape[1:]:
            if not shape.positions and self.test_inputs.ndim == 2:
                raise ValueError(
                    f"test_inputs have {self.test_inputs.shape[1]} dimensions, but inputs have {dimension}"
                )
            raise ValueError(
                f"test_inputs have points of shape {list(self.test_inputs.shape[1:])}, but inputs of {shape}"
            )
        check_scale_of_inputs(self.test_inputs, "test_inputs", smallest=0.0)
        if self.test_targets is not None:
            _check_rows(self.test_targets, self.test_points, "test_targets", "test_inputs")
        return self


class DigitsData(SizedData):
    """Scikit-learn's 8x8 digits, each image standardised to |x|^2 = D = 64 as the paper does for CIFAR.

    Two classes give targets +1 (first class) and -1; C > 2 classes give one-hot targets [P, C].
    Samples are split evenly over the classes, in class order, and drawn by `seed`.
    """

    dataset: Literal["digits"]
    classes: list[int] = Field(
        default=[0, 1], min_length=2, max_length=10, description="Distinct digits 0..9."
    )
    images: bool = Field(
        False,
        exclude_if=lambda images: not images,
        description="Points of shape [8, 8, 1] rather than [64].",
    )
    samples: int = Field(20, ge=2, description="Training points over all classes.")
    test_samples: int = Field(0, ge=0, description="Test points over all classes.")
    seed: int = Field(0, ge=0, lt=2**32)

    @property
    def sizes(self) -> Sizes:
        two = len(self.classes) == 2
        outputs, kind = (1, "signs") if two else (len(self.classes), "simplex")
        shape = Shape((8, 8), 1) if self.images else Shape((), 64)
        return Sizes(self.samples, self.test_samples, outputs, shape, [kind])

    @field_validator("classes")
    @classmethod
    def _known(cls, classes: list[int]) -> list[int]:
        if any(not 0 <= c <= 9 for c in classes):
            raise ValueError("classes must be digits from 0 to 9")
        if len(set(classes)) != len(classes):
            raise ValueError("classes must be distinct")
        return classes

    @model_validator(mode="after")
    def _available(self) -> DigitsData:
        count = len(self.classes)
        for field, number in (("samples", self.samples), ("test_samples", self.test_samples)):
            if number % count:
                raise ValueError(f"{field} must be a multiple of the number of classes, {count}")
        smallest = min(DIGITS_PER_CLASS[c] for c in self.classes)
        if (self.samples + self.test_samples) // count > smallest:
            raise ValueError(
                f"samples + test_samples asks for {(self.samples + self.test_samples) // count} "
                f"images of each class (limit for these classes: {smallest})"
            )
        return self


class UploadedData(StrictModel):
    """A dataset uploaded with POST /v1/datasets, by its content hash."""

    dataset_id: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the upload.")


def _data_kind(value: Any) -> str | None:
    keys = value if isinstance(value, dict) else getattr(value, "__pydantic_fields_set__", ())
    for key, kind in (
        ("kernel", "kernel"),
        ("inputs", "inputs"),
        ("dataset", "dataset"),
        ("dataset_id", "dataset_id"),
    ):
        if key in keys:
            return kind
    return None


Data = Annotated[
    Annotated[KernelData, Tag("kernel")]
    | Annotated[InputData, Tag("inputs")]
    | Annotated[DigitsData, Tag("dataset")]
    | Annotated[UploadedData, Tag("dataset_id")],
    Discriminator(
        _data_kind,
        custom_error_type="data_kind",
        custom_error_message=(
            "data must have one of: kernel and targets; inputs and targets; dataset; dataset_id"
        ),
    ),
]
