"""Every endpoint as a pair: how the request is built, and how its answer is read."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from planish.client.exchange import FileBody, Flow, Reply, Request
from planish.client.retry import answered
from planish.contract.catalog import ArchitectureCatalog, ArchitectureInfo, PassCatalog, PassInfo
from planish.contract.errors import InternalError
from planish.contract.job import Event, EventList, FileInfo, FilePage, Job, JobPage
from planish.contract.report import Plan, Report
from planish.contract.spec import Spec
from planish.contract.wire import HEADER_IDEMPOTENCY_KEY

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

PLAN_SECONDS = 120.0
FETCH_SECONDS = 900.0
MAX_NAME = 255
JSON_BODY = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Call(Generic[T]):
    """One endpoint: the request, and the function that reads its answer.

    `done_before` is an error status that, after a lost answer, means: done already.
    """

    request: Request
    read: Callable[[Reply], T]
    done_before: int | None = None

    def run(self) -> Flow[T]:
        """Send it, with retries where they do no harm; raises the contract's errors."""
        reply = yield from answered(self.request, self.done_before)
        return self.read(reply)


def new_key() -> str:
    """Return an Idempotency-Key: one for each job that is meant, however often it is sent."""
    return str(uuid.uuid4())


def submit_job(spec: Spec, key: str) -> Call[Job]:
    """``POST /jobs`` with file ids; the key makes repeating it safe."""
    headers = {**JSON_BODY, HEADER_IDEMPOTENCY_KEY: key}
    request = Request("POST", "/jobs", headers=headers, body=spec.model_dump_json().encode())
    return Call(request, _reader(Job))


def make_plan(spec: Spec) -> Call[Plan]:
    """``POST /plans``: a dry run; it changes nothing, so it may be repeated."""
    body = spec.model_dump_json().encode()
    request = Request("POST", "/plans", headers=JSON_BODY, body=body, read_seconds=PLAN_SECONDS)
    return Call(request, _reader(Plan))


def get_job(job_id: str) -> Call[Job]:
    """``GET /jobs/{id}``."""
    return Call(Request("GET", job_path(job_id)), _reader(Job))


def list_jobs(
    status: str | None, labels: Mapping[str, str], limit: int | None, after: str | None
) -> Call[JobPage]:
    """``GET /jobs``: one page, newest first."""
    params: dict[str, str | int | list[str]] = {}
    if status is not None:
        params["status"] = status
    if labels:
        params["label"] = [f"{key}={value}" for key, value in labels.items()]
    if limit is not None:
        params["limit"] = limit
    if after is not None:
        params["after"] = after
    return Call(Request("GET", "/jobs", params=params), _reader(JobPage))


def cancel_job(job_id: str) -> Call[bool]:
    """``POST /jobs/{id}/cancel``."""
    request = Request("POST", job_path(job_id, "cancel"))
    return Call(request, lambda _: True, HTTPStatus.CONFLICT)


def delete_job(job_id: str) -> Call[None]:
    """``DELETE /jobs/{id}``."""
    return Call(Request("DELETE", job_path(job_id)), _nothing, HTTPStatus.NOT_FOUND)


def list_events(job_id: str, after: int) -> Call[tuple[Event, ...]]:
    """``GET /jobs/{id}/events`` as JSON."""
    headers = {"Accept": "application/json"}
    request = Request("GET", job_path(job_id, "events"), {"after": after}, headers)
    return Call(request, lambda reply: _read(EventList, reply).items)


def get_logs(job_id: str) -> Call[str]:
    """``GET /jobs/{id}/logs``: what there is so far."""
    request = Request("GET", job_path(job_id, "logs"))
    return Call(request, lambda reply: reply.content.decode("utf-8", "replace"))


def get_report(job_id: str) -> Call[Report]:
    """``GET /jobs/{id}/report`` as JSON."""
    headers = {"Accept": "application/json"}
    return Call(Request("GET", job_path(job_id, "report"), headers=headers), _reader(Report))


def get_report_html(job_id: str) -> Call[str]:
    """``GET /jobs/{id}/report`` as one self-contained page."""
    request = Request("GET", job_path(job_id, "report"), headers={"Accept": "text/html"})
    return Call(request, lambda reply: reply.content.decode())


def has_file(file_id: str) -> Request:
    """``HEAD /files/{id}``: 200 when the server has the content."""
    return Request("HEAD", file_path(file_id))


def send_file(name: str, sha256: str, body: FileBody) -> Call[FileInfo]:
    """``POST /files``: the same content gets the same id, so it may be repeated."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(body.size),
        "Repr-Digest": f"sha-256=:{digest}:",
    }
    return Call(
        Request("POST", "/files", {"name": name[-MAX_NAME:]}, headers, body), _reader(FileInfo)
    )


def fetch_file(url: str) -> Call[FileInfo]:
    """``POST /files?url=``: the server fetches a file; asked again, it waits for the same fetch."""
    request = Request("POST", "/files", {"url": url}, read_seconds=FETCH_SECONDS)
    return Call(request, _reader(FileInfo))


def list_files(limit: int | None, after: str | None) -> Call[FilePage]:
    """``GET /files``: one page."""
    params: dict[str, str | int | list[str]] = {}
    if limit is not None:
        params["limit"] = limit
    if after is not None:
        params["after"] = after
    return Call(Request("GET", "/files", params), _reader(FilePage))


def delete_file(file_id: str) -> Call[None]:
    """``DELETE /files/{id}``."""
    return Call(Request("DELETE", file_path(file_id)), _nothing, HTTPStatus.NOT_FOUND)


def get_passes() -> Call[tuple[PassInfo, ...]]:
    """``GET /passes``."""
    return Call(Request("GET", "/passes"), lambda reply: _read(PassCatalog, reply).items)


def get_architectures() -> Call[tuple[ArchitectureInfo, ...]]:
    """``GET /architectures``."""
    request = Request("GET", "/architectures")
    return Call(request, lambda reply: _read(ArchitectureCatalog, reply).items)


def get_health() -> Call[bool]:
    """``GET /healthz``."""
    return Call(Request("GET", "/healthz"), lambda reply: True)


def job_path(job_id: str, *more: str) -> str:
    """Return the path of a job or of something below it; every part is escaped."""
    return "/".join(["/jobs", *(quote(part, safe="") for part in (job_id, *more))])


def file_path(file_id: str) -> str:
    """Return the path of an uploaded file."""
    return f"/files/{quote(file_id, safe=':')}"


def read_model(model: type[M], content: bytes) -> M:
    """Return a document of the server.

    Raises:
        InternalError: it is not what the contract says (another server, a much newer version).
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise InternalError(
            f"the server's {model.__name__} cannot be read: {where}: {first['msg']}; "
            "is this a Planish server of a version near this client's?"
        ) from None


def _reader(model: type[M]) -> Callable[[Reply], M]:
    return lambda reply: _read(model, reply)


def _read(model: type[M], reply: Reply) -> M:
    return read_model(model, reply.content)


def _nothing(_reply: Reply) -> None:
    return None
