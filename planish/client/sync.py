"""The client for ordinary code: every call blocks until it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack, cast

import httpx

from planish.client import calls
from planish.client.connection import (
    STREAM_HEADERS,
    Address,
    pieces,
    query_of,
    timeout_of,
    unreachable,
)
from planish.client.download import download
from planish.client.events import follow_events, follow_logs
from planish.client.exchange import (
    Chunk,
    Drain,
    Emit,
    FileBody,
    Flow,
    Open,
    Reply,
    Request,
    Running,
    Send,
    Sleep,
    Step,
    Work,
)
from planish.client.flows import cancel, each_file, each_job
from planish.client.job import JobHandle
from planish.client.remember import Memory
from planish.client.sources import FileSource, PartSource, Sources
from planish.client.submit import RecipeSteps, SpecFields, build_spec, plan, submit
from planish.client.transfer import OnTransfer, ignore
from planish.client.upload import RESUMABLE_BYTES, Uploading, upload
from planish.client.wait import OnChange, wait
from planish.contract.catalog import ArchitectureInfo, PassInfo
from planish.contract.job import Event, FileInfo, Job
from planish.contract.report import Plan, Report
from planish.contract.spec import Spec

T = TypeVar("T")


class Client:
    """A Planish server.

    Args:
        url: where it is; None takes ``PLANISH_URL``, else ``http://127.0.0.1:8000``.
        api_key: None takes ``PLANISH_API_KEY``; not needed on loopback.
        resumable_bytes: files of this size or more are sent in pieces, and go on where they were
            when a connection breaks or a program is started again; 0 for all files.

    Every method raises the classes of `planish.contract.errors`; `ServerUnreachable` when there is
    no answer, after several tries of what may be repeated. Use it as a context manager or call
    `close`. One client may serve several threads.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        resumable_bytes: int = RESUMABLE_BYTES,
    ) -> None:
        address = Address(url, api_key)
        self.url = str(address.url).rstrip("/")
        self._memory = Memory(self.url, address.headers.get("Authorization"))
        self._resumable_bytes = resumable_bytes
        self._http = httpx.Client(
            base_url=address.url, headers=address.headers, trust_env=address.trust_env
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def optimize(
        self,
        model: PartSource,
        *,
        recipe: RecipeSteps,
        data: PartSource | None = None,
        test_data: PartSource | None = None,
        teacher: PartSource | None = None,
        student: PartSource | None = None,
        progress: OnTransfer = ignore,
        **fields: Unpack[SpecFields],
    ) -> JobHandle:
        """Upload what the server does not have, submit a job, and return it at once.

        Args:
            model: path of a ``.pt2``, ``.safetensors`` or state_dict file; a Hugging Face folder;
                a list of files that belong together; or file ids.
            recipe: passes in order, e.g. ``[planish.Prune(sparsity=0.5), planish.Quantize()]``.
            data: for training and calibration.
            test_data: sealed; only the report reads it.
            teacher: a stronger model for `distill`.
            student: a smaller model to optimize in place of `model`, which stays the baseline.
            progress: told how far each upload is.
            **fields: see `SpecFields`.
        """
        sources = Sources(model, data, test_data, teacher, student)
        return self.submit(build_spec(recipe, fields), sources, progress=progress)

    def submit(
        self,
        spec: Spec,
        sources: Sources,
        *,
        idempotency_key: str | None = None,
        progress: OnTransfer = ignore,
    ) -> JobHandle:
        """Submit a whole spec. The same `idempotency_key` always gives the same job."""
        return JobHandle(
            self, self._run(submit(spec, sources, idempotency_key, self._how(progress)))
        )

    def plan(
        self,
        model: PartSource,
        *,
        recipe: RecipeSteps,
        data: PartSource | None = None,
        test_data: PartSource | None = None,
        teacher: PartSource | None = None,
        student: PartSource | None = None,
        progress: OnTransfer = ignore,
        **fields: Unpack[SpecFields],
    ) -> Plan:
        """Say what a job would touch and skip, and why, without doing it; see `optimize`."""
        sources = Sources(model, data, test_data, teacher, student)
        return self.plan_spec(build_spec(recipe, fields), sources, progress=progress)

    def plan_spec(self, spec: Spec, sources: Sources, *, progress: OnTransfer = ignore) -> Plan:
        """Like `plan`, for a whole spec."""
        return self._run(plan(spec, sources, self._how(progress)))

    def job(self, job_id: str) -> JobHandle:
        """Return a job by its id."""
        return JobHandle(self, self.get(job_id))

    def get(self, job_id: str) -> Job:
        """Return a job's document."""
        return self._run(calls.get_job(job_id).run())

    def jobs(
        self,
        *,
        status: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Iterate over jobs, newest first; pages are fetched as needed."""
        return cast("Iterator[Job]", self._iterate(each_job(status, labels or {}, limit)))

    def wait(
        self, job_id: str, timeout: float | None = None, on_change: OnChange | None = None
    ) -> Job:
        """Return the job when it has succeeded.

        Args:
            job_id: the job.
            timeout: seconds; None waits for ever.
            on_change: called with the job whenever it has changed.

        Raises:
            WaitTimeout: not finished in time; the job goes on.
            PlanishError: it failed, was cancelled or expired; `job` is its final state.
        """
        return self._run(wait(job_id, timeout, on_change))

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Iterate over everything that happens until the job is finished; reconnects by itself."""
        return cast("Iterator[Event]", self._iterate(follow_events(job_id, after)))

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job; a running one ends within seconds."""
        return self._run(cancel(job_id))

    def delete(self, job_id: str) -> None:
        """Forget a finished job and its artifacts."""
        self._run(calls.delete_job(job_id).run())

    def report(self, job_id: str) -> Report:
        """Return the evidence of a succeeded job."""
        return self._run(calls.get_report(job_id).run())

    def report_html(self, job_id: str) -> str:
        """Return the report as one self-contained page."""
        return self._run(calls.get_report_html(job_id).run())

    def logs(self, job_id: str) -> str:
        """Return what the job's process printed so far."""
        return self._run(calls.get_logs(job_id).run())

    def follow_logs(self, job_id: str) -> Iterator[bytes]:
        """Iterate over the log's bytes until the job is finished."""
        return cast("Iterator[bytes]", self._iterate(follow_logs(job_id)))

    def download(
        self,
        job_id: str,
        folder: FileSource,
        *names: str,
        progress: OnTransfer = ignore,
    ) -> Path:
        """Fetch artifacts (all, or those named) into a folder; return the main model's path.

        What is there already is kept, partial files are resumed, every sha256 is checked.
        """
        return self._run(download(job_id, Path(folder), names, progress))

    def upload(self, path: FileSource, progress: OnTransfer = ignore) -> FileInfo:
        """Upload a file of any size, unless the server has its content; ``s3://…`` it fetches."""
        return self._run(upload(path, self._how(progress)))

    def files(self, limit: int | None = None) -> Iterator[FileInfo]:
        """Iterate over uploaded files, newest first."""
        return cast("Iterator[FileInfo]", self._iterate(each_file(limit)))

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file that no live job needs."""
        self._run(calls.delete_file(file_id).run())

    def passes(self) -> tuple[PassInfo, ...]:
        """Return the passes that the server can run."""
        return self._run(calls.get_passes().run())

    def architectures(self) -> tuple[ArchitectureInfo, ...]:
        """Return the architectures that bare weights can name."""
        return self._run(calls.get_architectures().run())

    def health(self) -> bool:
        """Return True when the server answers; raises `ServerUnreachable` otherwise."""
        return self._run(calls.get_health().run())

    def _how(self, progress: OnTransfer) -> Uploading:
        return Uploading(self._memory, progress, self._resumable_bytes)

    def _run(self, flow: Flow[T]) -> T:
        running, performer = Running(flow), _Performer(self._http)
        try:
            while running.step is not None:
                performer.advance(running, running.step)
        finally:
            running.close()
            performer.close()
        return running.result

    def _iterate(self, flow: Flow[None]) -> Iterator[object]:
        running, performer = Running(flow), _Performer(self._http)
        try:
            while (step := running.step) is not None:
                if isinstance(step, Emit):
                    yield step.value
                    running.answer(None)
                else:
                    performer.advance(running, step)
        finally:
            running.close()
            performer.close()


class _Performer:
    """Performs the steps of one flow; holds its open stream."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._request = Request("GET", "/")

    def advance(self, running: Running[T], step: Step) -> None:
        """Perform a step and resume the flow with the answer, or with the error."""
        try:
            answer = self._perform(step)
        except httpx.RequestError as error:
            running.fail(unreachable(self._request, self._http.base_url, error))
        except Exception as error:
            running.fail(error)
        else:
            running.answer(answer)

    def close(self) -> None:
        """Let the open stream go."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _perform(self, step: Step) -> object:
        match step:
            case Send(request):
                return self._send(request)
            case Open(request):
                return self._open(request)
            case Chunk():
                return next(self._chunks, b"")
            case Drain():
                return b"".join(self._chunks)
            case Sleep(seconds):
                time.sleep(seconds)
                return None
            case Work(function):
                return function()
            case Emit():
                raise TypeError("this flow is to be iterated over")

    def _send(self, request: Request) -> Reply:
        self._request = request
        body = pieces(request.body) if isinstance(request.body, FileBody) else request.body
        response = self._http.request(
            request.method,
            request.path,
            params=query_of(request),
            headers=request.headers,
            content=body,
            timeout=timeout_of(request),
        )
        return Reply(response.status_code, response.headers, response.content)

    def _open(self, request: Request) -> Reply:
        self.close()
        self._request = request
        built = self._http.build_request(
            request.method,
            request.path,
            params=query_of(request),
            headers={**STREAM_HEADERS, **request.headers},
            timeout=timeout_of(request),
        )
        self._response = self._http.send(built, stream=True)
        self._chunks = self._response.iter_raw()
        return Reply(self._response.status_code, self._response.headers, b"")
