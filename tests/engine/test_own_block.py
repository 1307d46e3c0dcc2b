"""A block from another package: one class, found by its entry point, solved and refused like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SOURCE = '''
from typing import Literal
from pydantic import Field
from dmft_schema.blocks import Block
from dmft_schema.shapes import Shape, ShapeError

class Thin(Block):
    """Every `step`-th position."""

    block: Literal["thin"] = "thin"
    step: int = Field(2, ge=1)

    def shape_after(self, shape: Shape) -> Shape:
        if len(shape.positions) != 1:
            raise ShapeError(f"thin needs a sequence, [times, N]; it got {shape}")
        return shape.at((-(-shape.positions[0] // self.step),))

    def forward(self, x):
        return x[:, :, :: self.step]
'''

ASKS = """
import json
from dmft_engine import Problem, solve
from dmft_schema import Capabilities, SolveRequest

DENSE, TANH = {"block": "dense"}, {"block": "activation", "name": "tanh"}
inputs = [[[0.5, 1.0], [9.0, 9.0], [-1.0, 0.2]], [[1.0, -0.4], [7.0, 7.0], [0.3, 0.8]]]

def loss(inputs, *thin, **method):
    layers = [DENSE, *thin, TANH, DENSE, TANH, {"block": "readout"}]
    request = SolveRequest.model_validate({
        "data": {"inputs": inputs, "targets": [1, -1]},
        "network": {"architecture": "composed", "layers": layers},
        "training": {"steps": 4},
        "method": method,
    })
    return solve(Problem.from_request(request)).arrays["loss"].tolist()

found = []
for method in ({"name": "dmft", "samples": 512}, {"name": "finite_width", "width": 32}):
    thinned = loss(inputs, {"block": "thin"}, **method)
    without = loss([[x[0], x[2]] for x in inputs], **method)
    found.append([thinned, without])
errors = []
for thin in ({"block": "thin", "step": 0}, {"block": "thin", "x": 1}):
    try:
        loss(inputs, thin, name="dmft")
    except ValueError as error:
        errors.append(str(error))
print(json.dumps([found, errors, Capabilities.of_contract("x").blocks["thin"]]))
"""


def test_a_block_of_another_package_is_one_class(tmp_path: Path) -> None:
    """Thinning a sequence is leaving out the times between."""
    (tmp_path / "mylab.py").write_text(SOURCE)
    info = tmp_path / "mylab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dmft.blocks]\nthin = mylab:Thin\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{ASKS}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found, errors, options = json.loads(run.stdout)
    for thinned, without in found:
        assert max(abs(a - b) for a, b in zip(thinned, without, strict=True)) < 1e-5
    assert "layers.1.step" in errors[0]
    assert "layers.1.x" in errors[1]
    assert options["step"]["minimum"] == 1
