from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.artifacts import RESULT_JSON, RESULT_NPZ, Artifacts
from jobs.errors import ArtifactMissing


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path)


def test_only_a_complete_attempt_is_sealed(artifacts: Artifacts) -> None:
    name, folder = artifacts.new_result("s_1", "1")
    (folder / RESULT_JSON).write_text("{}")
    assert not artifacts.seal(name)
    assert not folder.exists()

    name, folder = artifacts.new_result("s_1", "2")
    for file in (RESULT_JSON, RESULT_NPZ):
        (folder / file).write_text("content")
    assert artifacts.seal(name)
    assert artifacts.result_file(name, RESULT_NPZ).read_text() == "content"
    artifacts.remove_result(name)
    with pytest.raises(ArtifactMissing):
        artifacts.result_file(name, RESULT_NPZ)


def test_attempts_have_folders_of_their_own(artifacts: Artifacts) -> None:
    first, folder_1 = artifacts.new_result("s_1", "1")
    second, folder_2 = artifacts.new_result("s_1", "2")
    assert first != second
    assert folder_1 != folder_2


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a/b", "", "a\0b"])
def test_names_cannot_leave_the_folder(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(ArtifactMissing):
        artifacts.result_file(name, RESULT_JSON)
    with pytest.raises(ArtifactMissing):
        artifacts.dataset_file(name)


def test_datasets_are_shared_by_content_and_listed_by_owner(artifacts: Artifacts) -> None:
    assert artifacts.put_dataset("abc", "ada", "content", {"points": 2})
    assert not artifacts.put_dataset("abc", "ada", "content", {"points": 2})
    assert artifacts.dataset_description("abc", "bob") is None
    assert artifacts.put_dataset("abc", "bob", "content", {"points": 2})
    assert artifacts.datasets("bob") == {"abc": {"points": 2}}
    assert artifacts.dataset_file("abc").read_text() == "content"


def test_a_dataset_goes_with_its_last_owner(artifacts: Artifacts) -> None:
    for owner in ("ada", "bob"):
        artifacts.put_dataset("abc", owner, "content", {})
    assert artifacts.dataset_bytes("ada") == len("content")
    assert artifacts.remove_dataset("abc", "ada")
    assert not artifacts.remove_dataset("abc", "ada")
    assert not artifacts.remove_dataset("never", "ada")
    assert artifacts.dataset_file("abc").read_text() == "content"
    assert artifacts.datasets("ada") == {}
    assert artifacts.remove_dataset("abc", "bob")
    with pytest.raises(ArtifactMissing):
        artifacts.dataset_file("abc")
    assert artifacts.put_dataset("abc", "ada", "content", {})


def test_what_a_dead_process_staged_is_removed_and_what_is_being_staged_is_not(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    artifacts.put_dataset("abc", "ada", "content", {})
    old, new = tmp_path / "staging" / "old", tmp_path / "staging" / "new"
    for file in (old, new):
        file.write_text("half of a data")
    os.utime(old, (0, 0))
    assert artifacts.sweep() == 1
    assert [file.name for file in (tmp_path / "staging").iterdir()] == ["new"]
    assert artifacts.datasets("ada") == {"abc": {}}
