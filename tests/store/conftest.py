"""A fresh store for each test, on the session's Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from planish.contract.job import JobStatus
from planish.contract.spec import Spec
from planish.store.blobs import Blobs
from planish.store.connection import connect
from planish.store.ids import new_id
from planish.store.job_files import JobFiles
from planish.store.jobs import Ledger
from planish.store.records import Outcome, SpecRecord
from tests.conftest import run_redis


def make_spec(**changes: object) -> Spec:
    """A small valid spec."""
    return Spec.model_validate({"recipe": ({"op": "simplify"},), **changes})


def make_record(kind: str = "job", key: str | None = None, **spec: object) -> SpecRecord:
    """A record with a new id."""
    return SpecRecord.model_validate(
        {
            "id": new_id(kind),
            "kind": kind,
            "created_at": datetime.now(UTC),
            "spec": make_spec(**spec),
            "request_sha256": "0" * 64,
            "idempotency_key": key,
        }
    )


def make_outcome(job_id: str, status: JobStatus = JobStatus.SUCCEEDED, **fields: object) -> Outcome:
    """An outcome without a result."""
    values = {"job_id": job_id, "status": status, "finished_at": datetime.now(UTC), **fields}
    return Outcome.model_validate(values)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that these tests empty and pause as they like."""
    yield from run_redis(tmp_path_factory.mktemp("store-redis"))


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    """A client on an empty server."""
    client = connect(redis_url)
    client.flushall()
    return client


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    return JobFiles(tmp_path)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


@pytest.fixture
def submit(ledger: Ledger, files: JobFiles) -> Callable[..., str]:
    """Make a job in files and ledger; return its id."""

    def make(**spec: object) -> str:
        record = make_record(**spec)
        assert files.put_spec(record.id, record)
        assert ledger.submit(record)
        return record.id

    return make
