"""Pictures of results: the same for the API, the client and the command line. Needs matplotlib.

    figure = draw("loss", {"rich": arrays}, Options(scale="log"))

Each kind is one function of one module over a result's arrays (docs/results.md); an open NPZ will do, and
only what a picture needs is read of it.
"""

from dmft_figures.draw import KINDS, NothingToDraw, draw, render
from dmft_figures.options import FORMATS, Options

__all__ = ["FORMATS", "KINDS", "NothingToDraw", "Options", "draw", "render"]
