"""Dependencies point one way (docs/architecture: README, "How the pieces fit")."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"api", "worker", "dmft_engine", "dmft_schema", "jobs", "dmft_client", "dmft_figures", "cli"}

# What a package may import of ours. The solver process alone may import the engine.
ALLOWED = {
    "dmft_schema": set(),
    "dmft_engine": {"dmft_schema"},
    "dmft_figures": {"dmft_schema"},
    "dmft_client": {"dmft_schema", "dmft_figures"},
    "jobs": {"dmft_schema"},
    "worker": {"dmft_schema", "jobs"},
    "api": {"dmft_schema", "jobs", "dmft_figures"},
    "cli": {"dmft_schema", "jobs", "worker", "api", "dmft_client", "dmft_figures"},
}
EXCEPTIONS = {("worker/solver_process.py", "dmft_engine")}

# Third parties that a package must not touch.
FORBIDDEN = {
    "dmft_schema": {"torch", "celery", "redis", "fastapi", "httpx", "scipy", "sklearn"},
    "dmft_engine": {"celery", "redis", "fastapi", "httpx", "kombu", "uvicorn", "starlette"},
    "dmft_figures": {"torch", "celery", "redis", "fastapi", "httpx", "scipy"},
    "dmft_client": {"torch", "celery", "redis", "fastapi", "scipy", "sklearn"},
    "jobs": {"torch", "celery", "fastapi"},
    "worker": {"torch", "fastapi", "uvicorn"},
    "api": {"torch"},
    "cli": {"torch"},
}
PERMITTED = {("worker/solver_process.py", "torch"), ("jobs/tickets.py", "celery")}


def imports(path: Path) -> set[str]:
    """Top-level names of every module imported anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_dependencies_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        name = str(path.relative_to(ROOT))
        for module in imports(path) - {package}:
            if module in OURS:
                assert module in ALLOWED[package] or (name, module) in EXCEPTIONS, (name, module)
            assert module not in FORBIDDEN[package] or (name, module) in PERMITTED, (name, module)


@pytest.mark.parametrize("module", ["api.main", "worker.task", "cli.server", "dmft_client"])
def test_torch_is_not_imported_by_the_way(module: str) -> None:
    """Also not through a third package: only the solver process pays for torch."""
    program = f"import sys, {module}; assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"DMFT_REDIS_URL": "redis://127.0.0.1:9", "PATH": ""},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_exported_names_exist() -> None:
    for package in ("dmft_schema", "dmft_engine", "dmft_client"):
        module = __import__(package)
        for name in module.__all__:
            assert getattr(module, name) is not None
        assert len(set(module.__all__)) == len(module.__all__)


def test_files_stay_short() -> None:
    for package in OURS | {"tests", "benchmarks", "examples"}:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
