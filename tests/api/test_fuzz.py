"""Requests that the OpenAPI document allows, and ones that it does not, are answered as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import fuzz


@pytest.mark.slow
def test_some_hundred_random_requests(tmp_path: Path) -> None:
    """Ten thousand: `make fuzz`."""
    outcome = fuzz(320, tmp_path)
    assert not outcome.failed, outcome.report
    assert outcome.cases >= 200
