"""Nobody else may read what the service keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import private
from jobs.settings import Settings


def modes(top: Path) -> dict[str, int]:
    return {str(path.relative_to(top)): path.stat().st_mode & 0o777 for path in (top, *top.rglob("*"))}


def leave_open(data: Path) -> None:
    """What an earlier version left."""
    for name in ("artifacts/results/s_1.1/result.json", "logs/api.log", "redis/appendonly.aof"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("x")
    (data / "server.json").write_text("{}")
    for path in (data, *data.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_an_existing_folder_is_closed_and_its_parent_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    leave_open(data)
    tmp_path.chmod(0o755)
    private.make_own(Settings(data_dir=data))
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    for path in (data, *data.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_what_is_not_ours_keeps_its_mode(tmp_path: Path) -> None:
    leave_open(tmp_path)
    outside = tmp_path / "outside"
    outside.write_text("somebody's")
    outside.chmod(0o644)
    (tmp_path / "logs" / "link").symlink_to(outside)
    private.make_own(Settings(data_dir=tmp_path))
    assert outside.stat().st_mode & 0o777 == 0o644
    assert tmp_path.stat().st_mode & 0o777 == 0o755  # it holds more than ours: a home, or a project
    assert (tmp_path / "server.json").stat().st_mode & 0o777 == 0o600


def test_a_shared_folder_of_results_stays_shared(tmp_path: Path) -> None:
    results = tmp_path / "shared" / "results"
    results.mkdir(parents=True)
    results.chmod(0o2770)
    settings = Settings(data_dir=tmp_path / "data", artifact_dir=tmp_path / "shared", shared_artifacts=True)
    private.make_own(settings)
    assert results.stat().st_mode & 0o7777 == 0o2770
    private.make_own(settings.model_copy(update={"shared_artifacts": False}))
    assert results.stat().st_mode & 0o777 == 0o700


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "server.json"
    private.write(path, "first")
    assert path.stat().st_mode & 0o777 == 0o600

    def interrupted(_: int) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(OSError, match="the disk is gone"):
        private.write(path, "second")
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["server.json"]
