"""The commands of daily work, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cli.main import main
from dmft_client import Result
from tests.e2e.conftest import Server
from tests.serving import SMALL

pytestmark = pytest.mark.slow


Run = Callable[..., str]


@pytest.fixture
def run(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Run:
    """Runs `dmft` in an empty folder, as a user of the server: what it prints, or says if it is to fail."""
    monkeypatch.setenv("DMFT_URL", server.url)
    monkeypatch.setenv("DMFT_API_KEY", server.key)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main(words) == status, capsys.readouterr()
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    return run


FORMATS = {
    "r.json": json.dumps(SMALL),
    "r.toml": """
[data]
kernel = [[1.0, 0.2], [0.2, 1.0]]
targets = [1.0, -1.0]
[training]
steps = 5
[method]
name = "static_ntk"
""",
    "r.yaml": """
data: {kernel: [[1.0, 0.2], [0.2, 1.0]], targets: [1.0, -1.0]}
training: {steps: 5}
method: {name: static_ntk}
""",
}


def test_a_day(run: Run) -> None:
    """Submit from every format and from options, look, compare, draw, convert, cancel, delete."""
    for file, text in FORMATS.items():
        Path(file).write_text(text)
        run("solve", file, "-s", f"name={file}", "-s", 'tags=["day"]', "-o", f"{file}.npz")
    arrays = [Result.load(f"{file}.npz").loss for file in FORMATS]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    np.testing.assert_array_equal(arrays[0], arrays[2])
    words = ["-s", "dataset=digits", "-s", "points=6", "-s", "network.depth=2", "-s", "gamma0=0.5"]
    words += [
        "-s",
        "steps=5",
        "-s",
        "samples=512",
        "-s",
        "tolerance=0.1",
        "-s",
        "name=rich",
        "-s",
        'tags=["day"]',
    ]
    rich = run("solve", *words, "--detach").strip()
    assert run("watch", rich).startswith(f"{rich} succeeded, loss 0.")
    events = [json.loads(line) for line in run("watch", rich, "--json").splitlines()]
    assert events[-1]["data"]["status"] == "succeeded"

    listed = run("list", "--tag", "day").splitlines()
    assert [line.split()[3] for line in listed[2:]] == ["rich", *reversed(FORMATS)]
    described = json.loads(run("list", "--tag", "day", "--json", "-n", "1"))
    assert [job["id"] for job in described] == [rich]
    shown = run("show", rich)
    assert "gamma0 0.5" in shown
    assert "points 6" in shown
    assert json.loads(run("show", rich, "--json"))["request"]["network"]["depth"] == 2

    run("solve", *words, "-s", "seed=1", "-s", "name=again", "-o", "again.npz")
    table = run("compare", rich, "again.npz")
    assert "beside rich" in table
    assert "0.9" in table.splitlines()[-1]
    assert run("plot", rich, "again.npz", "--layer", "2", "-o", "two.svg").strip() == "wrote two.svg"
    assert "<svg" in Path("two.svg").read_text()
    run("plot", rich)
    assert Path("dmft.png").read_bytes().startswith(b"\x89PNG")

    for ending in ("npz", "nc", "csv"):
        run("download", rich, "-o", f"r.{ending}")
    loss = Result.load("r.npz").loss
    with xr.open_dataset("r.nc", engine="h5netcdf") as dataset:
        np.testing.assert_array_equal(dataset.loss, loss)
    assert Path("r.csv").read_text().startswith("step,learning_time,loss")
    run("download", "r.npz", "-o", "s.nc")

    long = run("solve", *words, "-s", "steps=20000", "--detach").strip()
    assert run("cancel", long).split()[0] == long
    assert "cancelled" in run("watch", long, status=1)
    assert run("delete", rich, long).splitlines() == [f"{rich} deleted", f"{long} deleted"]
    assert "no solve" in run("show", rich, status=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["solve"], "give a file, or fields"),
        (["solve", "-s", "gama0=1", "-s", "dataset=digits"], "did you mean gamma0"),
        (["solve", "-s", "gamma0"], "FIELD=VALUE"),
        (["solve", "-s", "dataset=digits", "-s", "network.dept=2"], "network.dept"),
        (["solve", "-s", "network.depth=2", "-s", "network.depth.x=1"], "has no fields"),
        (["solve", "-s", "dataset=digits", "-s", "activation=swish"], "network.activation"),
        (["solve", "bad.toml"], "is not TOML"),
        (["solve", "bad.yaml"], "is not YAML"),
        (["solve", "list.json"], "holds a list"),
        (["solve", "binary.json"], "UTF-8"),
        (["compare", "one.npz"], "two or more"),
        (["compare", "none.npz", "none2.npz"], "cannot read none.npz"),
        (["plot", "s_none"], "no solve"),
        (["plot", "s_none", "-o", "x.gif"], "must end in"),
        (["download", "s_none", "-o", "x.zarr"], "must end in"),
        (["watch", "s_none"], "no solve"),
        (["cancel", "s_none"], "no solve"),
        (["delete", "s_none"], "no solve"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said(words: list[str], said: str, run: Run) -> None:
    Path("bad.toml").write_text("[")
    Path("bad.yaml").write_text("{")
    Path("list.json").write_text("[]")
    Path("binary.json").write_bytes(b"\xff\xfe\x00")
    assert said in run(*words, status=1)


def test_as_a_process(run: Run) -> None:
    command = [sys.executable, "-m", "cli.main", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == json.loads(run("list", "--json"))
