"""Ink, paper and lines."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's colours, told apart by everybody; the first and last are swapped for the paper.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"]
_PAPER = {"light": "#ffffff", "dark": "#14161a"}
_INK = {"light": "#1c1c1c", "dark": "#e6e6e6"}

DIVERGING = "RdBu_r"
"""Of kernels, whose sign matters."""


def of_theme(theme: str) -> Any:
    """matplotlib's settings for a theme."""
    from cycler import cycler

    paper, ink = _PAPER[theme], _INK[theme]
    return {
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "axes.titlecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=_COLOURS),
        "axes.titlesize": "medium",
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": "dmft",  # the same picture twice is the same file
    }
