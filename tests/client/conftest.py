"""Both drivers behind one face, and documents as the service writes them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import planish
from planish.client import retry
from planish.contract.job import Artifact, Job, JobStatus, Progress, Result, Summary, links_of
from planish.contract.problem import ErrorInfo
from planish.contract.recipe import Quantize
from planish.contract.spec import Spec
from tests.client.fault_server import Answer, FaultServer, Handler

JOB = "job_" + "0" * 26


class Driver:
    """Calls a method of `Client`, or of `AsyncClient` in an event loop of its own."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        if self.kind == "sync":
            with planish.Client(self.url) as client:
                return getattr(client, name)(*args, **kwargs)
        return asyncio.run(self._call(name, args, kwargs))

    def collect(self, name: str, /, *args: Any, **kwargs: Any) -> list[Any]:
        if self.kind == "sync":
            with planish.Client(self.url) as client:
                return list(getattr(client, name)(*args, **kwargs))
        return asyncio.run(self._collect(name, args, kwargs))

    async def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async with planish.AsyncClient(self.url) as client:
            return await getattr(client, name)(*args, **kwargs)

    async def _collect(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        async with planish.AsyncClient(self.url) as client:
            return [item async for item in getattr(client, name)(*args, **kwargs)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    for name in ("PLANISH_URL", "PLANISH_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serving() -> Iterator[Callable[[Handler], FaultServer]]:
    servers: list[FaultServer] = []

    def start(handler: Handler) -> FaultServer:
        servers.append(FaultServer(handler))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def document(
    status: JobStatus = JobStatus.RUNNING,
    artifacts: dict[str, bytes] | None = None,
    error: ErrorInfo | None = None,
    fraction: float = 0.0,
) -> Job:
    """Return a job as the service would show it."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    succeeded = status is JobStatus.SUCCEEDED
    return Job(
        id=JOB,
        name=None,
        labels={},
        status=status,
        terminal=status not in (JobStatus.QUEUED, JobStatus.RUNNING),
        succeeded=succeeded,
        cancel_requested=False,
        attempt=1,
        created_at=now,
        started_at=now,
        finished_at=None,
        progress=Progress(stage="prune", step=1, steps=2, fraction=fraction),
        spec=Spec(recipe=(Quantize(),)),
        verdict="not_evaluated" if succeeded else None,
        result=_result(artifacts or {}) if succeeded else None,
        error=error,
        links=links_of(JOB),
    )


def _result(artifacts: dict[str, bytes]) -> Result:
    listed = tuple(
        Artifact(
            name=name,
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            media_type="application/octet-stream",
            href=f"/jobs/{JOB}/artifacts/{name}",
        )
        for name, body in artifacts.items()
    )
    first = next(iter(artifacts), "model.onnx")
    summary = Summary(metric="accuracy")
    return Result(model=first, artifacts=listed, report=f"/jobs/{JOB}/report", summary=summary)


def json_answer(job: Job, **headers: str) -> Answer:
    return Answer(body=job.model_dump_json().encode(), headers=headers)


def problem(status: int, code: str, detail: str, **headers: str) -> Answer:
    body = {"type": "about:blank", "code": code, "title": "t", "status": status, "detail": detail}
    kind = {"Content-Type": "application/problem+json"}
    return Answer(status, json.dumps(body).encode(), {**kind, **headers})
