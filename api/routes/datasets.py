"""Uploaded datasets: kept once, by the hash of their content."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

from api.auth import CurrentUser, user
from api.problems import Problem, of_validation
from api.routing import Route
from api.services import Services, ServicesDep
from dmft_schema import large
from dmft_schema.refusal import shortened
from dmft_schema.upload import UploadError, read_npz
from jobs.keys import User

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], dependencies=[Depends(user)], route_class=Route)

_DATASET_ID = re.compile(r"[0-9a-f]{64}")

_NPZ_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "",
    status_code=201,
    openapi_extra=_NPZ_BODY,
    responses={200: {"description": "You had it already.", "model": dict[str, Any]}},
)
async def upload(
    request: Request, response: Response, services: ServicesDep, caller: CurrentUser
) -> dict[str, Any]:
    """Upload an NPZ with x, y[, x_test, y_test] or kernel, y[, cross_kernel, test_kernel, y_test]."""
    description, new = await services.intake.take(request, caller.id, store, caller)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"{request.scope['root_path']}/v1/datasets/{description['id']}"
    return description


def store(services: Services, content: bytes, caller: User) -> tuple[dict[str, Any], bool]:
    """Keep the dataset in an upload: its description, and whether the caller did not have it yet.

    Raises:
        Problem: it is refused.
        StorageFull: too little room is left.
    """
    try:
        data = read_npz(content)
    except UploadError as error:
        raise Problem(422, "invalid_npz", str(error)) from None
    except ValidationError as error:
        raise of_validation(error) from None
    text = large.write_data(data)
    dataset_id = hashlib.sha256(text).hexdigest()
    description = {"id": dataset_id, **data.sizes.described()}
    return description, services.artifacts.put_dataset(dataset_id, caller.id, text.decode(), description)


@router.get("")
def list_datasets(services: ServicesDep, caller: CurrentUser) -> dict[str, Any]:
    """Your datasets."""
    return {"items": list(services.artifacts.datasets(caller.id).values())}


@router.get("/{dataset_id}")
def get(dataset_id: str, services: ServicesDep, caller: CurrentUser) -> dict[str, Any]:
    """One dataset's id and sizes."""
    known = _DATASET_ID.fullmatch(dataset_id)
    found = services.artifacts.dataset_description(dataset_id, caller.id) if known else None
    if found is None:
        raise Problem(404, "dataset_not_found", f"you have no dataset {shortened(dataset_id, 100)}")
    return found


@router.delete("/{dataset_id}", status_code=204)
def delete(dataset_id: str, services: ServicesDep, caller: CurrentUser) -> None:
    """Forget a dataset; its content goes with the last user who has it. Repeated, it answers the same.

    Refused with 409 while one of your queued or running solves goes with it.
    """
    if not _DATASET_ID.fullmatch(dataset_id):
        raise Problem(404, "dataset_not_found", f"you have no dataset {shortened(dataset_id, 100)}")
    job = services.store.needing(dataset_id, caller.id)
    if job is not None:
        detail = f"solve {job} goes with this dataset: cancel it, or wait until it is finished"
        raise Problem(409, "dataset_in_use", detail)
    services.artifacts.remove_dataset(dataset_id, caller.id)
