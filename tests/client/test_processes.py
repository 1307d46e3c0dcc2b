"""One client in several processes and threads: each gets its own answers."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from dmft_client import Client, ConnectionFailed, Result, Solve, UnexpectedAnswer, discovery
from dmft_client.origin import _difference
from jobs.store import JobStore
from tests.conftest import slow_request, small_request
from tests.serving import Background
from worker.supervisor import Supervisor

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def numbered(number: int) -> dict[str, Any]:
    """Keywords of a solve that can be told from the others by its result."""
    kernel = np.array([[1.0, 0.2], [0.2, 1.0]])
    return {"kernel": kernel, "targets": [1.0, -1.0], "method": "static_ntk", "steps": 3 + number}


@pytest.fixture
def client(url: str, keys: dict[str, str]) -> Iterator[Client]:
    with Client(url, keys["ada"]) as client:
        yield client


@pytest.fixture
def solves(client: Client, supervisor: Supervisor) -> list[Solve]:
    """Finished ones."""
    solves = [client.solve(**numbered(number)) for number in range(8)]
    for _ in solves:
        supervisor.work()
    return [solve.wait(30, progress=False) for solve in solves]


def steps_of(solve: Solve) -> list[int]:
    return [len(solve.result().loss) for _ in range(3)]


def test_forks_share_a_client(client: Client, solves: list[Solve]) -> None:
    """Each inherits the parent's open connections, and uses none of them."""
    with multiprocessing.get_context("fork").Pool(6) as pool:
        pending = pool.map_async(steps_of, solves, chunksize=1)
        while not pending.ready():
            assert len(solves[5].result().loss) == 8
        assert pending.get(60) == [[3 + number] * 3 for number in range(8)]
    assert steps_of(solves[2]) == [5] * 3


def forked(question: Any, answers: Any) -> None:
    try:
        answers.put(question())
    except Exception as error:
        answers.put(error)


def ask_in_a_fork(question: Any) -> Any:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=forked, args=(question, answers))
    process.start()
    answer = answers.get(timeout=60)
    process.join(30)
    assert process.exitcode == 0
    return answer


def test_a_fork_in_the_middle_of_a_stream_gets_its_own(
    client: Client, supervisor: Supervisor, store: JobStore, background: Background
) -> None:
    solve = client.solve(**numbered(1))
    events = solve.events()
    assert next(events).data["status"] == "queued"
    background.work(supervisor)

    def rest() -> list[str]:
        return [event.data["status"] for event in events if event.kind == "status"]

    assert ask_in_a_fork(rest) == ["running", "succeeded"]
    assert rest() == ["running", "succeeded"]


def test_threads_share_a_client(solves: list[Solve]) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(steps_of, solves)) == [[3 + number] * 3 for number in range(8)]


@pytest.mark.slow
def test_other_processes_take_pickles(solves: list[Solve]) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(steps_of, solves[:4]) == [[3 + number] * 3 for number in range(4)]


def test_client_solve_and_result_are_pickled_and_copied(client: Client, solves: list[Solve]) -> None:
    result = solves[3].result()
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert isinstance(again, Result)
        np.testing.assert_array_equal(again.loss, result.loss)
        assert (again.summary, again.manifest) == (result.summary, result.manifest)
    for handle in (pickle.loads(pickle.dumps(solves[3])), copy.deepcopy(solves[3])):
        assert (handle.id, len(handle.result().loss)) == (solves[3].id, 6)
    for other in (pickle.loads(pickle.dumps(client)), copy.deepcopy(client)):
        assert other.url == client.url
        assert other.get(solves[0].id).id == solves[0].id


def test_a_key_that_was_not_given_is_in_no_pickle(
    url: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, solves: list[Solve]
) -> None:
    monkeypatch.setenv("DMFT_API_KEY", keys["ada"])
    with Client(url) as client:
        kept = pickle.dumps([client, client.get(solves[0].id)])
    assert keys["ada"].encode() not in kept
    again, handle = pickle.loads(kept)
    assert again.get(handle.id).id == solves[0].id
    monkeypatch.delenv("DMFT_API_KEY")
    assert discovery.find(url, None).api_key is None


def test_a_given_http_client_stays_in_its_process(url: str, keys: dict[str, str]) -> None:
    with httpx.Client() as http:
        client = Client(url, keys["ada"], http=http)
        assert list(client.list()) == []
        refused = ask_in_a_fork(lambda: list(client.list()))
        assert isinstance(refused, ConnectionFailed)
        assert "make a Client in process" in str(refused)
        with pytest.raises(pickle.PicklingError, match=r"httpx\.Client"):
            pickle.dumps(client)
        assert list(client.list()) == []


class Mixed(httpx.BaseTransport):
    """A broken cache: it answers for one solve what belongs to another."""

    def __init__(self, asked: str, answered: str, headers: bool) -> None:
        self._inner = httpx.HTTPTransport()
        self._ids = (asked, answered)
        self._headers = headers
        self.only = ""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked, answered = self._ids
        if self.only in request.url.path:
            request.url = request.url.copy_with(path=request.url.path.replace(asked, answered))
        response = self._inner.handle_request(request)
        if not self._headers:
            response.headers.pop("Content-Disposition", None)
        return response

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("headers", [True, False])
def test_the_answer_of_another_solve_is_noticed(
    url: str, keys: dict[str, str], solves: list[Solve], headers: bool
) -> None:
    mixed = Mixed(solves[0].id, solves[1].id, headers)
    with httpx.Client(transport=mixed) as http:
        client = Client(url, keys["ada"], http=http)
        with pytest.raises(UnexpectedAnswer, match=solves[1].id):
            client.get(solves[0].id)
        mixed.only = "result.npz"
        with pytest.raises(UnexpectedAnswer, match=solves[1].id if headers else r"training\.steps"):
            client.get(solves[0].id).result()


def test_a_reused_result_with_other_labels_is_the_right_one(
    client: Client, supervisor: Supervisor, solves: list[Solve]
) -> None:
    again = client.solve(**numbered(4), name="again", tags=["x"], priority=3)
    assert again.job().cached
    assert len(again.result().loss) == 7


def test_what_no_result_is(url: str, tmp_path: Any) -> None:
    np.savez(tmp_path / "other.npz", loss=np.ones(3))
    for content in (b"", b"PK\x03\x04 junk", (tmp_path / "other.npz").read_bytes()):
        with pytest.raises(UnexpectedAnswer, match="not a result"):
            Result.from_bytes(content)
    with pytest.raises(FileNotFoundError):
        Result.load(tmp_path / "none.npz")


def test_small_and_slow_requests_are_told_apart() -> None:
    one, two = (r.model_dump(mode="json") for r in (small_request(), slow_request()))
    assert _difference(one, one, "") == ""
    assert _difference(one, {**one, "new": 1, "data": {**one["data"], "newer": [1]}}, "") == ""
    assert _difference(one, two, "") == "training.learning_rate"
    assert _difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "") == "a.b"
    assert _difference({"a": [1]}, {"a": [1, 2]}, "") == "a"
