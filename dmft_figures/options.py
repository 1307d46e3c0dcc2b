"""What can be chosen of a picture."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMATS = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
"""Endings of files, and their media types."""


class Options(BaseModel):
    """Choices for a picture; each kind looks at those that mean something to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: float = Field(7.0, ge=2, le=20, description="Inches.")
    height: float = Field(4.5, ge=2, le=20, description="Inches.")
    dpi: int = Field(150, ge=50, le=300, description="Pixels an inch, of PNG.")
    layer: int | None = Field(None, description="From 1; negative from the last. All layers when absent.")
    t: int = Field(-1, description="Index into the kernel or field times; negative from the end.")
    scale: Literal["log", "linear"] = Field("log", description="Of losses and eigenvalues.")
    theme: Literal["light", "dark"] = Field("light", description="Dark ink on white, or the other way.")
