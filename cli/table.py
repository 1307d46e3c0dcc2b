"""Results as a table of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dmft_client import Result


def with_error(value: float, error: float | None) -> str:
    """A number and its standard error, to the two digits of the error that mean anything."""
    if error is None or not np.isfinite(error):
        return f"{value:.6g}"
    if error == 0:
        return f"{value:.6g} ± 0"
    decimals = int(np.clip(1 - np.floor(np.log10(error)), 0, 12))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned under their headings."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def of_results(results: Mapping[str, Result]) -> str:
    """Loss at the start, the middle and the end of training, and what became of the kernels."""
    rows = []
    for label, result in results.items():
        loss, error = result.loss, result.loss_standard_error
        steps = (0, len(loss) // 2, len(loss) - 1)
        cells = [with_error(loss[t], None if error is None else error[t]) for t in steps]
        summary = result.summary
        movement = summary.kernel_movement
        rows.append(
            [
                label,
                *cells,
                "" if summary.kernel_target_alignment is None else f"{summary.kernel_target_alignment:.4f}",
                "" if movement is None else " ".join(f"{m:.3f}" for m in movement),
                f"{result.diagnostics.wall_seconds:.2f}",
            ]
        )
    header = [
        "method",
        "loss, start",
        "loss, middle",
        "loss, end",
        "target alignment",
        "kernel movement",
        "seconds",
    ]
    return lines(header, rows)
