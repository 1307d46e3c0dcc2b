"""What a client asks for: data, network, training, method, outputs."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import Field, model_validator

from dmft_schema import limits
from dmft_schema.base import StrictModel, fields_of, refused
from dmft_schema.data import Data, UploadedData
from dmft_schema.large import canonical
from dmft_schema.methods import DmftMethod, Method
from dmft_schema.network import MlpNetwork, Network
from dmft_schema.outputs import Outputs
from dmft_schema.shapes import ShapeError
from dmft_schema.support import check_shape, check_size, check_support, check_targets
from dmft_schema.training import Training


class SolveRequest(StrictModel):
    """One solve: the body of POST /v1/solves."""

    data: Data
    network: Network = MlpNetwork()
    training: Training = Training()
    method: Method = DmftMethod(name="dmft")
    outputs: Outputs = Outputs()
    name: str | None = Field(None, max_length=limits.MAX_NAME_LENGTH)
    tags: list[Annotated[str, Field(min_length=1, max_length=limits.MAX_TAG_LENGTH)]] = Field(
        default=[], max_length=limits.MAX_TAGS
    )
    priority: int = Field(
        0,
        ge=-limits.MAX_PRIORITY,
        le=limits.MAX_PRIORITY,
        description="Order among your own queued jobs; higher first.",
    )
    reuse: bool = Field(True, description="Accept a finished result of the same request.")

    @model_validator(mode="before")
    @classmethod
    def _default_method(cls, value: Any) -> Any:
        # {"method": {"tolerance": 1e-3}} means dmft, the default, with one option changed.
        method = value.get("method") if isinstance(value, dict) else None
        if isinstance(method, dict) and "name" not in method:
            return {**value, "method": {"name": "dmft", **method}}
        return value

    @model_validator(mode="after")
    def _fits(self) -> SolveRequest:
        check_support(self)
        times = self.outputs.kernel_times
        if times == []:
            raise ValueError('outputs.kernel_times must be "all" or name at least one step')
        self._check_steps("outputs.kernel_times", [] if times == "all" else times)
        self._check_steps("outputs.field_times", self.outputs.field_times)
        if not isinstance(self.data, UploadedData):
            sizes = self.data.sizes
            try:
                check_shape(self, sizes)
            except ShapeError as error:
                raise refused(str(error), ("network", *error.place)) from None
            check_size(self, sizes)
            check_targets(self, sizes)
        return self

    def _check_steps(self, field: str, steps: list[int]) -> None:
        count = self.training.steps
        for step in steps:
            if not -count <= step < count:
                raise ValueError(f"{field} names step {step}, but there are {count} steps")

    def content_hash(self, *numerics: str) -> str:
        """SHA-256 over all that the numbers of the result depend on, and `numerics` besides.

        Name, tags, priority and reuse are left out: they change nothing that is computed.
        """
        left_out = {"name", "tags", "priority", "reuse"}
        content = {name: value for name, value in fields_of(self) if name not in left_out}
        digest = hashlib.sha256(b"[")
        for piece in canonical(content):
            digest.update(piece)
        for name in numerics:
            digest.update(b"," + json.dumps(name).encode())
        digest.update(b"]")
        return digest.hexdigest()
