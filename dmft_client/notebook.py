"""How solves and results show themselves in notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from dmft_schema import Job

if TYPE_CHECKING:
    from dmft_client.result import Result


def of_solve(job: Job) -> str:
    """A solve as it was when the server was last asked."""
    progress = job.progress
    bar = f'<progress value="{progress.fraction:.3f}" max="1"></progress>'
    rows = [
        ("solve", escape(job.id)),
        ("name", escape(job.name or "")),
        ("status", escape(job.status.value + (f": {job.waiting_reason}" if job.waiting_reason else ""))),
        ("method", escape(job.request.method.name)),
        ("progress", f"{bar} step {progress.step} of {progress.steps}"),
        ("loss", "" if progress.loss is None else f"{progress.loss:.6g}"),
        ("error", escape(f"{job.error.message} {job.error.advice}") if job.error else ""),
    ]
    return _table(rows)


def of_result(result: Result) -> str:
    """A result's numbers, and its loss curve where matplotlib is installed."""
    summary, diagnostics = result.summary, result.diagnostics
    movement = summary.kernel_movement
    rows = [
        ("method", escape(diagnostics.method) + ("" if result.complete else ", what was reached")),
        ("final loss", escape(_final_loss(result))),
        ("kernel-target alignment", _number(summary.kernel_target_alignment)),
        ("kernel movement", "" if movement is None else " ".join(f"{value:.3g}" for value in movement)),
        ("arrays", escape(", ".join(sorted(result.arrays)))),
        ("notes", "<br>".join(map(escape, diagnostics.notes))),
        ("seconds", f"{diagnostics.wall_seconds:.2f}"),
    ]
    return f'<div style="display:flex;gap:2em;align-items:center">{_table(rows)}{_curve(result)}</div>'


def _final_loss(result: Result) -> str:
    if not len(result.loss):
        return ""
    error = result.loss_standard_error
    return f"{result.loss[-1]:.6g}" + ("" if error is None else f" ± {error[-1]:.2g}")


def _number(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.4g}"


def _curve(result: Result) -> str:
    if not len(result.loss) or not np.isfinite(result.loss).all():
        return ""
    try:
        from dmft_figures import Options, render

        picture = render(
            "loss", {result.diagnostics.method: result.arrays}, "svg", Options(width=4, height=2.5)
        )
    except ModuleNotFoundError:  # numbers are enough without matplotlib
        return ""
    return picture[picture.index(b"<svg") :].decode()


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{text}</td></tr>'
        for name, text in rows
        if text
    )
    return f"<table>{cells}</table>"
