"""The figures of examples/, each as a user draws it: a script in a process of its own, a running server."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.e2e.conftest import Server, start, stop

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NUMBER = r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?"

Draw = Callable[[str], str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        running = start(tmp_path_factory.mktemp("server") / "data", "--workers", "2")
        yield running
        stop(running)


@pytest.fixture
def draw(server: Server, tmp_path: Path) -> Draw:
    """Runs one script on the digits; returns what it printed, once its picture is found to be one."""

    def run(name: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", f"examples.{name}", "--quick", "--output", str(tmp_path)],
            cwd=ROOT,
            env=os.environ | {"DMFT_URL": server.url, "DMFT_API_KEY": server.key},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / name}.png"
        picture = imread(tmp_path / f"{name}.png")
        assert picture.shape[0] > 400
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 100
        return done.stdout

    return run


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]


def found(pattern: str, text: str) -> list[tuple[float, ...]]:
    """The numbers that stand for each # of a pattern, wherever it occurs in `text`."""
    matches = re.finditer(re.escape(pattern).replace(r"\#", f"({NUMBER})"), text)
    return [tuple(map(float, match.groups())) for match in matches]


def test_figure_1_kernels_approach_the_limit_as_width_grows(draw: Draw) -> None:
    text = draw("figure_1")
    losses = found("gamma0 #: final loss # +- # in the limit, # +- # at width 250", text)
    assert [gamma0 for gamma0, *_ in losses] == [0.25, 0.5, 1.0]
    for _, limit, error, networks, spread in losses:
        assert abs(limit - networks) < 4 * np.hypot(error, spread)
    layers = re.findall(r"1 - A of (?:Phi|G)\^\d by width: (.*); slope (.*); the limit resampled: (.*)", text)
    assert len(layers) == 6
    for by_width, slope, resampled in layers:
        (means,) = np.array(found("50: # +- #, 100: # +- #, 250: # +- #", by_width))[:, ::2]
        assert means[0] > means[1] > means[2] > 5 * float(resampled)
        # 1 / N, as well as five seeds tell.
        assert -1.5 < float(slope) < -0.5


def test_figure_2_deep_linear_networks_meet_the_algebraic_equations(draw: Draw) -> None:
    text = draw("figure_2")
    losses = found("L #: final loss # in the limit, # +- # at width 250", text)
    assert [depth for depth, *_ in losses] == [1, 2, 3, 5]
    for _, limit, networks, error in losses:
        assert abs(limit - networks) < 4 * error
    movement = re.findall(r"kernel movement \[(.*)\] and \[(.*)\], 1 - A \[(.*)\]", text)
    for depth, (limit, networks, apart) in zip((1, 2, 3, 5), movement, strict=True):
        moved = numbers(limit)
        assert len(moved) == depth
        assert moved == sorted(moved)
        np.testing.assert_allclose(numbers(networks), moved, rtol=0.15)
        assert max(numbers(apart)) < 0.01


def test_figure_3_ends_at_the_fixed_point(draw: Draw) -> None:
    text = draw("figure_3")
    for name in ("limit", "networks"):
        losses = found(f"gamma0 #, {name}: final loss #", text)
        assert [gamma0 for gamma0, _ in losses] == [0.25, 0.5, 1.0, 2.0]
        assert all(after < before for (_, before), (_, after) in itertools.pairwise(losses))
    limit, networks = (found(f"{name}: final loss # +-", text) for name in ("limit", "networks"))
    np.testing.assert_allclose(limit, networks, atol=5e-3)
    ends = found("off the fixed point by Phi #, by NTK #; last step #", text)
    assert len(ends) == 8
    # At gamma0 = 0.25 everything dies, and is slow to.
    for by_phi, by_ntk, _ in ends[2:]:
        assert by_phi < 2e-3
        assert by_ntk < 0.05


def test_figure_4_only_dmft_follows_networks_at_large_gamma0(draw: Draw) -> None:
    text = draw("figure_4")
    pattern = "final loss #, at most # from the networks'; 1 - A of H^l, mean over layers #"
    names = ("DMFT", "static NTK", "perturbation", "gradient independence")
    dmft, *others = (found(f"gamma0 2.0, {name}: {pattern}", text)[0] for name in names)
    for _, gap, apart in others:
        assert gap > 3 * dmft[1]
        assert apart > 10 * dmft[2]


def test_figure_5_wide_filters_approach_their_limit(draw: Draw) -> None:
    text = draw("figure_5")
    pattern = "final test loss # +- #, test error #, loss # +- #, alignment # -> #"
    for gamma0 in ("0.3", "1.0", "3.0"):
        ((limit, error, *_, before, after),) = found(f"gamma0 {gamma0}, limit: {pattern}", text)
        ((networks, spread, *_),) = found(f"gamma0 {gamma0}, 64: {pattern}", text)
        # Corrections of order 1 / N are below the spread of four networks.
        assert abs(limit - networks) < 4 * np.hypot(error, spread)
        assert after > before


def test_attention_looks_at_the_marked_token_as_networks_do(draw: Draw) -> None:
    text = draw("attention")
    pattern = "final loss # +- #, test loss #, alignment of Phi # -> #"
    for gamma0 in ("0.3", "1.0", "3.0"):
        ((limit, error, _, before, after),) = found(f"gamma0 {gamma0}, limit: {pattern}", text)
        ((networks, spread, *_),) = found(f"gamma0 {gamma0}, networks: {pattern}", text)
        assert abs(limit - networks) < 4 * np.hypot(error, spread)
        assert after > before
    assert found("lazy: final loss #, test loss #", text)
