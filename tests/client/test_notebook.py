"""What notebooks show: well-formed, with the numbers, and with nothing of a user's text taken for markup."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from dmft_client import notebook
from dmft_schema import Job, JobError, JobStatus
from dmft_schema.summary import summarise
from tests.client.test_labelled import result_of
from tests.conftest import small_request

NASTY = "<script>alert(1)</script>&\"'"


class Reader(HTMLParser):
    """Collects tags and text, and checks that tags close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("case", ["dmft", "static_ntk", "no kernels"])
def test_a_result(case: str) -> None:
    result = result_of(case)
    result.diagnostics.notes.append(NASTY)
    shown = Reader(result._repr_html_())
    assert f"{result.loss[-1]:.6g}" in shown.text
    assert NASTY in shown.text
    assert "script" not in shown.tags
    assert "svg" in shown.tags


def test_a_result_that_cannot_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of("static_ntk")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        assert "svg" not in Reader(result._repr_html_()).tags
    result.arrays["loss"] = np.array([])
    result.arrays["loss_standard_error"] = np.array([])
    assert "svg" not in Reader(result._repr_html_()).tags


def test_a_solve() -> None:
    job = Job(
        id="s_1",
        status=JobStatus.FAILED,
        owner="ada",
        name=NASTY,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        request=summarise(small_request().model_dump()),
        request_hash="h",
        error=JobError(code="diverged", message=NASTY, advice="smaller steps", step=3),
    )
    shown = Reader(notebook.of_solve(job))
    assert shown.text.count(NASTY) == 2
    assert "script" not in shown.tags
    assert "smaller steps" in shown.text
