"""A real API over real HTTP on loopback, with a real Redis and real files; no worker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest

from planish.contract.job import Artifact, JobStatus, Result, Summary
from planish.contract.wire import media_type_of
from planish.store.blobs import Blobs
from planish.store.commit import commit
from planish.store.connection import connect
from planish.store.job_files import JobFiles
from planish.store.jobs import Ledger
from planish.store.records import Outcome
from planish.store.settings import StoreSettings
from service.protocol import Limits
from service.server import Server, make_server
from service.settings import ServiceSettings

SPEC = {
    "model": {
        "architecture": {"library": "planish", "name": "cifar_resnet", "config": {"depth": 8}},
        "inputs": [{"name": "input", "shape": ["batch", 3, 32, 32], "dtype": "float32"}],
    },
    "recipe": [{"op": "simplify"}],
}
ARTIFACTS = {
    "model.onnx": bytes(range(256)) * 40,
    "report.json": b'{"made": "by hand"}',
    "report.html": b"<!doctype html><title>Report</title>",
}


@dataclass
class Api:
    """A running API and its store, seen from the inside."""

    url: str
    root: Path
    blobs: Blobs
    files: JobFiles
    ledger: Ledger
    server: Server

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=20)

    def leftovers(self) -> list[Path]:
        """Temporary files of uploads; given a moment, a gone client is noticed asynchronously."""
        for _ in range(100):
            found = list((self.root / "uploads").iterdir())
            if not found:
                return []
            time.sleep(0.05)
        return found


def serve(settings: ServiceSettings) -> Iterator[Api]:
    server = make_server(settings)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the API did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    root = settings.store.data_dir
    ledger = Ledger(connect(settings.store.redis_url))
    url = f"http://127.0.0.1:{port}"
    yield Api(url, root, Blobs(root), JobFiles(root), ledger, server)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive(), "the API did not stop"


LIMITS = Limits(
    head_seconds=1.0,
    body_window_seconds=1.0,
    linger_seconds=5.0,
    head_bytes=16 << 10,
    per_address=64,
)


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    store = StoreSettings(tmp_path_factory.mktemp("data"), redis_url)
    yield from serve(
        ServiceSettings(store, port=0, max_upload_bytes=32 << 20, max_uploads=8, limits=LIMITS)
    )


@pytest.fixture
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client() as client:
        yield client


@pytest.fixture(scope="session")
def model() -> bytes:
    """A safetensors file: passes the gate, which does not look at the values."""
    return safetensors({"conv.weight": np.zeros((4, 3, 3, 3), np.float32)})


@pytest.fixture
def submit(client: httpx.Client, model: bytes) -> Callable[..., str]:
    """Submit a job over HTTP; return its id."""

    def make(**changes: object) -> str:
        answer = client.post("/jobs", files=form({**SPEC, **changes}, model=model))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    return make


@pytest.fixture
def succeed(api: Api, submit: Callable[..., str]) -> Callable[..., str]:
    """Submit a job and do the worker's part of a success; return its id."""

    def make(**changes: object) -> str:
        job_id = submit(**changes)
        finish(api, job_id)
        return job_id

    return make


def finish(api: Api, job_id: str, artifacts: Mapping[str, bytes] = ARTIFACTS) -> None:
    """Do the worker's part of a success."""
    claim = api.ledger.claim(job_id, "test")
    assert claim is not None
    folder = api.files.attempt_dir(job_id, claim.attempt, claim.fence)
    (folder / "log.txt").write_text("first line\nlast line\n")
    for name, content in artifacts.items():
        (folder / "artifacts" / name).write_bytes(content)
    outcome = Outcome(
        job_id=job_id,
        status=JobStatus.SUCCEEDED,
        attempt=claim.attempt,
        fence=claim.fence,
        started_at=claim.started_at,
        finished_at=datetime.now(UTC),
        directory=folder.name,
        verdict="not_evaluated",
        result=_result(job_id, artifacts),
    )
    commit(api.files, api.ledger, outcome)


def _result(job_id: str, contents: Mapping[str, bytes]) -> Result:
    artifacts = tuple(
        Artifact(
            name=name,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            media_type=media_type_of(name),
            href=f"/jobs/{job_id}/artifacts/{name}",
        )
        for name, content in contents.items()
    )
    summary = Summary(metric="accuracy", size_ratio=3.9, baseline=0.9, optimized=0.9)
    return Result(
        model="model.onnx", artifacts=artifacts, report=f"/jobs/{job_id}/report", summary=summary
    )


def form(spec: object, **files: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """A multipart body: the spec first, then the files in the order given."""
    text = spec if isinstance(spec, bytes) else json.dumps(spec).encode()
    parts = [("spec", ("spec.json", text, "application/json"))]
    return parts + [
        (name, (f"{name}.bin", content, "application/octet-stream"))
        for name, content in files.items()
    ]


def safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    """A safetensors file, written by hand so that no torch is needed."""
    header, blob = {}, b""
    names = {"float32": "F32", "int64": "I64", "uint8": "U8"}
    for name, array in arrays.items():
        data = array.tobytes()
        header[name] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [len(blob), len(blob) + len(data)],
        }
        blob += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + blob


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Check that an answer is a problem of this kind; return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    return body
