"""Several threads only for long operations, and by the problem alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info

from dmft_engine import Problem
from dmft_engine.threads import computing_with, threads_for
from tests.problems import request, sphere


def threads(points: int = 10, steps: int = 50, **method: Any) -> int:
    asked = request(sphere(points, 2 * points), training={"steps": steps}, method=method)
    return threads_for(Problem.from_request(asked), 8)


@pytest.mark.parametrize(
    ("few", "many"),
    [
        ({"points": 10, "name": "dmft", "steps": 1000}, {"points": 500, "name": "dmft", "tolerance": 0.1}),
        ({"name": "finite_width", "width": 500}, {"name": "finite_width", "width": 8000, "points": 60}),
        ({"points": 10, "name": "static_ntk"}, {"points": 1500, "name": "static_ntk"}),
        ({"points": 2, "name": "alternating"}, {"points": 40, "name": "alternating"}),
    ],
)  # fmt: skip
def test_small_problems_take_one_thread(few: dict[str, Any], many: dict[str, Any]) -> None:
    assert (threads(**few), threads(**many)) == (1, 8)


def test_the_libraries_below_numpy_are_held_to_it_too() -> None:
    import numpy as np

    np.linalg.eigvalsh(np.eye(3))
    before = torch.get_num_threads()
    try:
        with computing_with(1):
            assert torch.get_num_threads() == 1
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
    finally:
        torch.set_num_threads(before)
