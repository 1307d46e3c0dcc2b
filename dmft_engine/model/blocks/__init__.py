"""The pieces that networks are composed of: one short file for each, one entry here."""

from __future__ import annotations

from dmft_engine.model.blocks.activation import Activation
from dmft_engine.model.blocks.attention import Attention
from dmft_engine.model.blocks.convolution import Convolution
from dmft_engine.model.blocks.dense import Dense
from dmft_engine.model.blocks.normalise import Normalise
from dmft_engine.model.blocks.pool import Pool
from dmft_engine.model.blocks.readout import Readout
from dmft_engine.model.blocks.recurrence import Recurrence
from dmft_engine.model.blocks.registry import BLOCKS
from dmft_engine.model.blocks.residual import Residual

BLOCKS |= {
    "dense": Dense,
    "convolution": Convolution,
    "activation": Activation,
    "normalise": Normalise,
    "pool": Pool,
    "attention": Attention,
    "residual": Residual,
    "recurrence": Recurrence,
    "readout": Readout,
}

__all__ = ["BLOCKS"]
