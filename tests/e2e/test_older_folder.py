"""A data folder of version 0.1.0, whose server was killed in the middle of its work, under today's server."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmft_client import Client, NotFound
from dmft_schema import JobStatus, SolveRequest
from tests.e2e.conftest import Server, start, stop

pytestmark = pytest.mark.slow
KEPT = Path(__file__).parents[1] / "data" / "data_folder_0.1.0" / "folder.tar.gz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(KEPT) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def about(folder: Path) -> dict[str, Any]:
    """What fill.py, which made the folder, says of it."""
    read: dict[str, Any] = json.loads((folder / "about.json").read_text())
    return read


@pytest.fixture(scope="module")
def server(folder: Path, about: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        running = start(folder / "data")
        yield running
        stop(running)


@pytest.fixture
def clients(server: Server, about: dict[str, Any]) -> Iterator[dict[str, Client]]:
    opened = {name: Client(server.url, key) for name, key in about["keys"].items()}
    yield opened
    for client in opened.values():
        client.close()


def owner(name: str) -> str:
    return "bob" if name in ("cached", "queued") else "ada"


def test_everything_is_there_for_whose_it_was(clients: dict[str, Client], about: dict[str, Any]) -> None:
    for name, status in about["status"].items():
        job = clients[owner(name)].get(about["ids"][name]).job()
        assert (job.status, job.owner) == (status, owner(name)), name
        with pytest.raises(NotFound):
            clients["ada" if owner(name) == "bob" else "bob"].get(about["ids"][name])
        assert clients["admin"].get(about["ids"][name]).id == about["ids"][name]
    ids = about["ids"]
    listed = {user: {solve.id for solve in clients[user].list()} for user in ("ada", "bob", "admin")}
    assert listed["bob"] == {ids["cached"], ids["queued"]}
    assert listed["ada"] | listed["bob"] == set(ids.values())
    assert [solve.id for solve in clients["ada"].list(tag="b")] == [ids["dmft"]]
    assert {solve.id for solve in clients["ada"].list(tag="a")} == {ids["dmft"], ids["static"]}
    assert [solve.id for solve in clients["ada"].list(status="failed")] == [ids["diverged"]]


def test_results_open_and_requests_can_be_read(
    server: Server, clients: dict[str, Client], about: dict[str, Any]
) -> None:
    ids = about["ids"]
    result = clients["ada"].get(ids["dmft"]).result()
    assert result.loss[-1] == about["final_loss"]
    assert result.phi(2).shape == (2, 2)
    assert result.to_xarray().sizes["layer"] == 2
    for name in ("diverged", "cancelled"):
        assert len(clients["ada"].get(ids[name]).result(partial=True).loss)
    lazy = clients["ada"].get(ids["static"]).result()
    assert clients["bob"].get(ids["cached"]).result().loss.tolist() == lazy.loss.tolist()
    for name, solve_id in ids.items():
        client = clients[owner(name)]
        answer = client._transport.send("GET", f"/v1/solves/{solve_id}/request")
        assert SolveRequest.model_validate_json(answer.content)
        assert client.get(solve_id).job().request.method.name


def test_what_was_on_its_way_is_finished(clients: dict[str, Client], about: dict[str, Any]) -> None:
    for name in ("running", "queued", "idempotent"):
        solve = clients[owner(name)].get(about["ids"][name]).wait(120)
        assert solve.job().status is JobStatus.SUCCEEDED, name
        assert len(solve.result().loss)
    request = SolveRequest.model_validate(about["idempotent_request"])
    again = clients["ada"].solve(request, idempotency_key="idem-1")
    assert again.id == about["ids"]["idempotent"]


def test_new_work_stands_beside_the_old(clients: dict[str, Client], about: dict[str, Any]) -> None:
    ids, ada = about["ids"], clients["ada"]
    solve = ada.solve(dataset_id=about["dataset"], method="static_ntk", steps=5).wait(120)
    old = ada.get(ids["dataset"]).result()
    assert solve.result().loss == pytest.approx(old.loss, rel=1e-9)
    ada.get(ids["dmft"]).delete()
    with pytest.raises(NotFound):
        ada.get(ids["dmft"])
    # The files that another's solve shares stay when their first solve goes.
    ada.get(ids["static"]).delete()
    assert len(clients["bob"].get(ids["cached"]).result().loss)
