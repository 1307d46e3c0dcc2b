"""From the bytes of a request to a queued solve: what may be refused on the way, and in which order."""

from __future__ import annotations

from pydantic import ValidationError

from api import placement
from api.problems import Problem, invalid, of_validation
from api.services import Services
from dmft_schema import FieldError, JobStatus, SolveRequest, UploadedData, large
from dmft_schema.memory import Demand, memory_bytes
from dmft_schema.shapes import ShapeError
from dmft_schema.sizes import Sizes
from dmft_schema.support import check_shape, check_size, check_targets
from jobs import tickets
from jobs.keys import User
from jobs.records import Submission


def submit(services: Services, body: bytes, caller: User, idempotency_key: str | None) -> Submission:
    """Queue the solve that a body asks for, or answer with what is known of it already.

    Raises:
        Problem: it is refused.
        StoreError: the store refuses it.
    """
    request = parse(body)
    data = request.data
    sizes = _check_dataset(services, request, caller) if isinstance(data, UploadedData) else data.sizes
    demand = Demand.of(request, sizes)
    first, *others = placement.place(demand, request.method.name, services.store.crew(), services.settings)
    submission = services.store.submit(
        request,
        caller.id,
        owner_name=caller.name,
        request_hash=request.content_hash(*first.split("/")),
        numerics=first,
        other_hashes=[request.content_hash(*other.split("/")) for other in others],
        memory_bytes=memory_bytes(demand),
        idempotency_key=idempotency_key,
    )
    if submission.job.status is JobStatus.QUEUED:
        tickets.send(services.celery)
    return submission


def parse(body: bytes) -> SolveRequest:
    """The request that a body is.

    Raises:
        Problem: 400 if it is not JSON, 422 if it is no request.
    """
    try:
        asked = large.read(body)
    except large.TooMuchBeside as error:
        raise invalid([FieldError(loc=[], msg=str(error))]) from None
    except ValueError as error:
        raise Problem(400, "invalid_json", f"the body is not valid JSON: {error}") from None
    try:
        return SolveRequest.model_validate(asked)
    except ValidationError as error:
        raise of_validation(error) from None


def _check_dataset(services: Services, request: SolveRequest, caller: User) -> Sizes:
    """The sizes of an uploaded dataset that the request goes with."""
    assert isinstance(request.data, UploadedData)
    known = services.artifacts.dataset_description(request.data.dataset_id, caller.id)
    if known is None:
        message = "you have no dataset with this id; upload it with POST /v1/datasets"
        raise invalid([FieldError(loc=["data", "dataset_id"], msg=message)])
    sizes = Sizes.of_description(known)
    for place, check in (
        (["training", "steps"], check_size),
        (["training", "loss"], check_targets),
        (["network"], check_shape),
    ):
        try:
            check(request, sizes)
        except ShapeError as error:
            raise invalid([FieldError(loc=[*place, *error.place], msg=str(error))]) from None
        except ValueError as error:
            raise invalid([FieldError(loc=place, msg=str(error))]) from None
    return sizes
