"""Full disks, as filesystems that are full."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dmft_schema import JobStatus
from jobs import storage
from jobs.artifacts import RESULT_NPZ, Artifacts
from jobs.errors import StorageFull
from jobs.settings import Settings
from jobs.store import JobStore
from tests import small_disk
from tests.conftest import small_request
from worker.solver import SolverPool
from worker.supervisor import Supervisor

FILLERS = [small_disk.fill, small_disk.use_up_inodes]


def test_a_full_disk_is_recognised_through_other_exceptions() -> None:
    closing = ValueError("while closing")  # as zipfile does
    closing.__context__ = OSError(errno.ENOSPC, "no space")
    assert storage.is_full(closing)
    assert not storage.is_full(OSError(errno.EACCES, "denied"))
    assert not storage.is_full(None)


@pytest.mark.parametrize("fill", FILLERS)
def test_shortage_comes_and_goes(tmp_path: Path, fill: Callable[[Path], Path]) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        assert storage.shortage(disk / "not" / "made", 2**30) is None
        filler = fill(disk)
        lacking = storage.shortage(disk / "not" / "made", 2**30)
        assert lacking is not None
        assert "left" in lacking or "files" in lacking
        shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
        assert storage.shortage(disk, 2**30) is None


def test_the_limit_is_the_setting_where_the_disk_is_large(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert storage.shortage(tmp_path, 0) is None
    with small_disk.mounted(tmp_path / "disk", 8) as disk:
        (disk / "half").write_bytes(bytes(4 * 2**20))
        assert storage.shortage(disk, free) is None  # a tenth of 8 MB is less than half of it
        (disk / "most").write_bytes(bytes(int(3.5 * 2**20)))
        assert storage.shortage(disk, free) is not None
        assert storage.shortage(disk, 100_000) is None


@pytest.mark.parametrize("fill", FILLERS)
def test_an_upload_to_a_full_disk_leaves_nothing(tmp_path: Path, fill: Callable[[Path], Path]) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        artifacts = Artifacts(disk / "artifacts")  # no watch on free space: the write itself fails
        assert artifacts.put_dataset("first", "ada", "content", {})
        before = sorted(disk.rglob("*"))
        filler = fill(disk)
        with pytest.raises(StorageFull):
            artifacts.put_dataset("second", "ada", "x" * 100_000, {})
        assert artifacts.dataset_file("first").read_text() == "content"
        shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
        assert sorted(disk.rglob("*")) == before
        assert artifacts.put_dataset("second", "ada", "x" * 100_000, {})


def test_an_upload_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        artifacts = Artifacts(disk, min_free_bytes=2**30)
        (disk / "most").write_bytes(bytes(int(3.8 * 2**20)))
        with pytest.raises(StorageFull, match="are left"):
            artifacts.put_dataset("second", "ada", "x", {})


def test_nothing_is_taken_while_there_is_no_room_and_it_goes_on_by_itself(
    tmp_path: Path, store: JobStore, settings: Settings
) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        here = settings.model_copy(update={"artifact_dir": disk})
        store = JobStore(store._redis, here)
        job = store.submit(small_request(), "ada", request_hash="h").job
        filler = small_disk.fill(disk)
        with pytest.raises(StorageFull):
            store.submit(small_request(), "ada", request_hash="h")
        assert store.claim("w") is None
        waits = store.get(job.id)
        assert waits.status == "queued"
        assert "storage is full" in str(waits.waiting_reason)
        filler.unlink()
        claim = store.claim("w")
        assert claim is not None
        assert claim.id == job.id


@pytest.mark.slow
@pytest.mark.parametrize("fill", FILLERS)
def test_a_solve_that_finds_the_disk_full_goes_back_uncounted_and_completes_later(
    tmp_path: Path, store: JobStore, settings: Settings, pool: SolverPool, fill: Callable[[Path], Path]
) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        here = settings.model_copy(update={"artifact_dir": disk})
        store = JobStore(store._redis, here)

        class FilledAfterClaim(JobStore):
            """The disk is filled by others just when the job has been claimed."""

            def claim(self, worker: str, facts=None):  # type: ignore[no-untyped-def]
                claim = super().claim(worker, facts)
                if claim is not None:
                    self.filler = fill(disk)
                return claim

        unlucky = FilledAfterClaim(store._redis, here)
        job = store.submit(small_request(), "ada", request_hash="h").job
        Supervisor(unlucky, Artifacts.of(here), pool, here, "w").work()
        back = store.get(job.id)
        assert (back.status, back.attempts) == (JobStatus.QUEUED, 0)
        assert "storage is full" in str(back.waiting_reason)
        assert not list(disk.glob("results/*"))
        filler = unlucky.filler
        shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
        Supervisor(store, Artifacts.of(here), pool, here, "w").work()
        done = store.get(job.id)
        assert (done.status, done.attempts) == (JobStatus.SUCCEEDED, 1)


@pytest.mark.slow
def test_a_result_larger_than_the_disk_fails_and_says_so(
    tmp_path: Path, store: JobStore, settings: Settings, pool: SolverPool
) -> None:
    with small_disk.mounted(tmp_path / "disk", 1) as disk:
        here = settings.model_copy(update={"artifact_dir": disk})
        kernel = [[1.0 if i == j else 0.0 for j in range(40)] for i in range(40)]
        request = small_request(
            data={"kernel": kernel, "targets": [1.0] * 40},
            method={"name": "finite_width", "width": 32, "ensemble": 1},
            training={"steps": 20},
        )
        store = JobStore(store._redis, here)
        job = store.submit(request, "ada", request_hash="h").job
        Supervisor(store, Artifacts.of(here), pool, here, "w").work()
        failed = store.get(job.id)
        assert failed.status is JobStatus.FAILED
        assert failed.error is not None
        assert (failed.error.code, failed.attempts) == ("storage_full", here.max_attempts)
        assert "kernel" in failed.error.advice
        assert not list(disk.glob("results/*"))


def test_many_simultaneous_identical_uploads_all_succeed(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "a")
    outcomes: list[bool | Exception] = []
    start = threading.Barrier(24)

    def upload(owner: str) -> None:
        start.wait()
        try:
            outcomes.append(artifacts.put_dataset("id", owner, "content" * 1000, {"points": 2}))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=upload, args=[f"user{i % 2}"]) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["False"] * 22 + ["True"] * 2
    assert artifacts.dataset_file("id").read_text() == "content" * 1000
    assert not list((tmp_path / "a" / "staging").iterdir())


def test_files_are_private_or_the_groups(tmp_path: Path) -> None:
    for shared, folders, files in ((False, 0o700, 0o600), (True, 0o2770, 0o660)):
        root = tmp_path / str(shared)
        artifacts = Artifacts(root, shared=shared)
        artifacts.put_dataset("id", "ada", "content", {})
        name, folder = artifacts.new_result("s_1", "1")
        for file in ("result.json", RESULT_NPZ):
            (folder / file).write_text("{}")
        artifacts.seal(name)
        assert (root / "results" / name).is_dir()
        for path in (root, *root.rglob("*")):
            assert path.stat().st_mode & 0o7777 == (folders if path.is_dir() else files), path
