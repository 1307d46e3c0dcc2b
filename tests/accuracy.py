"""The table of docs/accuracy.md: tests that compare a solver with something else say how far they were apart.

`make accuracy` runs them with `--accuracy docs/accuracy.md`, which writes the table between its two markers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import ArrayLike

BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEADER = """
| what | judged by | largest error | error bar there | test |
|---|---|---|---|---|
"""


class Row(NamedTuple):
    what: str
    judge: str
    error: float
    claimed: float | None
    test: str

    @property
    def severity(self) -> float:
        return self.error / self.claimed if self.claimed else self.error

    def __str__(self) -> str:
        claimed = "none claimed" if self.claimed is None else f"{self.claimed:.1e}"
        return f"| {self.what} | {self.judge} | {self.error:.1e} | {claimed} | {self.test} |"


Accuracy = Callable[..., None]
PROPERTY = "accuracy"


class Table:
    """The rows of a run, whose tests may have run in several processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Row] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._rows += [Row(*row) for name, row in report.user_properties if name == PROPERTY]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus != 0:
            return
        before, rest = self._path.read_text().split(BEGIN)
        _, after = rest.split(END)
        worst: dict[tuple[str, str, str], Row] = {}
        for row in sorted(self._rows, key=lambda row: row.severity):
            worst[row.what, row.judge, row.test] = row
        table = "\n".join(str(worst[key]) for key in sorted(worst))
        self._path.write_text(f"{before}{BEGIN}\n{HEADER}{table}\n\n{END}{after}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accuracy", help="document whose table of errors is to be written")


def pytest_configure(config: pytest.Config) -> None:
    path: str | None = config.getoption("--accuracy")
    if path is not None and not hasattr(config, "workerinput"):  # xdist's workers have one
        config.pluginmanager.register(Table(Path(path)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--accuracy") is not None:
        items[:] = [item for item in items if "accuracy" in getattr(item, "fixturenames", ())]


@pytest.fixture
def accuracy(request: pytest.FixtureRequest) -> Accuracy:
    """accuracy(what, judge, error, claimed=None, scale=1.0): one row of the table.

    `error` is an array of differences, `claimed` the error bars that go with them: one standard error, and
    truncation besides. The row shows the largest error, or with error bars the one largest over its own; of
    rows that say the same, the worst. Both are divided by `scale`.
    """

    def record(
        what: str, judge: str, error: ArrayLike, claimed: ArrayLike | None = None, scale: float = 1.0
    ) -> None:
        errors = np.abs(np.asarray(error, dtype=float)).ravel() / scale
        bar = None
        worst = int(errors.argmax())
        if claimed is not None:
            bars = np.broadcast_to(np.asarray(claimed, dtype=float), np.shape(error)).ravel() / scale
            ratio = np.divide(errors, bars, out=np.zeros_like(errors), where=bars > 0)
            worst = int(ratio.argmax())
            bar = float(bars[worst])
        place = request.node.nodeid.split("/")[-1].split("[")[0].replace(".py::", ": ")
        # A property of the report reaches the process that writes the table, whichever ran the test.
        row = Row(what, judge, float(errors[worst]), bar, place)
        request.node.user_properties.append((PROPERTY, list(row)))

    return record
