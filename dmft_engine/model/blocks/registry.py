"""Blocks by their names in JSON."""

from __future__ import annotations

from typing import Any

from dmft_engine.model.blocks.base import Block

BLOCKS: dict[str, type[Block]] = {}
"""Name -> class. One entry here, and one model in dmft_schema/blocks.py, adds one."""


def maker_of(model: Any) -> type[Block]:
    """The class of the block that a request's model names.

    A model from outside these packages brings its own, as its attribute `engine`.
    """
    known = BLOCKS.get(model.block)
    return model.engine if known is None else known
