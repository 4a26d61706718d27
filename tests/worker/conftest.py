"""A real Redis, the store on a temporary folder, and supervisors with a zygote of their own."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from planish.contract.errors import Unavailable
from planish.contract.spec import Spec
from planish.store.blobs import TenantBlobs
from planish.store.connection import connect
from planish.store.embedded import EmbeddedRedis
from planish.store.ids import new_id
from planish.store.job_files import JobFiles
from planish.store.jobs import Ledger
from planish.store.records import Kind, Outcome, SpecRecord
from planish.store.server_binary import find_server
from planish.store.settings import StoreSettings
from tests.conftest import missing
from worker.launcher import Launcher
from worker.lifeline import Lifeline
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor

SIMPLIFY = {"recipe": [{"op": "simplify"}]}


@contextmanager
def serve_redis() -> Iterator[str]:
    """A server of its own in a temporary folder; gives its URL."""
    try:
        find_server()
    except Unavailable as error:
        missing(error.detail)
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        server = EmbeddedRedis(Path(folder))
        yield server.start()
        server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with serve_redis() as url:
        yield url


@pytest.fixture(scope="session")
def redis_pid(redis_server: str) -> int:
    return int(connect(redis_server).info("server")["process_id"])


@dataclass
class House:
    """One installation: its store, and ways to put jobs into it."""

    settings: StoreSettings
    ledger: Ledger
    files: JobFiles
    blobs: TenantBlobs

    def upload(self, content: bytes) -> str:
        upload = self.blobs.of("default").new_upload()
        with open(upload.fd, "wb", closefd=False) as file:
            file.write(content)
        return self.blobs.of("default").keep(
            upload, hashlib.sha256(content).hexdigest(), len(content)
        )

    def submit(
        self, spec: dict[str, object] | None = None, kind: Kind = "job", **files: str
    ) -> str:
        """Make a job durable and queued, without a doorbell."""
        files = files or {"model": self.upload(b"a model")}
        full = Spec.model_validate({**SIMPLIFY, **(spec or {}), "files": files})
        job_id = new_id(kind)
        record = SpecRecord(
            id=job_id, kind=kind, created_at=datetime.now(UTC), spec=full, request_sha256="0" * 64
        )
        assert self.files.put_spec(job_id, record)
        assert self.ledger.submit(record)
        return job_id

    def outcome(self, job_id: str) -> Outcome:
        outcome = self.files.outcome(job_id)
        assert outcome is not None
        return outcome


def house_at(url: str, data_dir: Path) -> House:
    data_dir.mkdir()
    settings = StoreSettings(data_dir=data_dir, redis_url=url)
    return House(settings, Ledger(connect(url)), JobFiles(data_dir), TenantBlobs(data_dir))


@pytest.fixture
def house(redis_server: str, tmp_path: Path) -> House:
    connect(redis_server).flushall()
    return house_at(redis_server, tmp_path / "data")


@pytest.fixture(scope="session")
def zygotes() -> Iterator[dict[str, Launcher]]:
    """Light zygotes by their entry; they hold nothing of torch."""
    launchers: dict[str, Launcher] = {}
    yield launchers
    for launcher in launchers.values():
        launcher.close()


@dataclass
class Bench:
    """Makes supervisors whose children run an entry of `tests.worker.entries`."""

    house: House
    zygotes: dict[str, Launcher]

    def supervisor(
        self, entry: str, opener: str = "take_as_it_is", **settings: float
    ) -> Supervisor:
        launcher = self.zygotes.setdefault(
            f"{opener} {entry}",
            Launcher(
                ("tests.worker.entries",),
                f"tests.worker.entries:{entry}",
                f"tests.worker.entries:{opener}",
            ),
        )
        return Supervisor(
            ledger=self.house.ledger,
            files=self.house.files,
            blobs=self.house.blobs,
            launcher=launcher,
            settings=WorkerSettings(self.house.settings, **{"retry_seconds": 0.0, **settings}),
            worker="test",
            lifeline=Lifeline(),
        )


@pytest.fixture
def bench(house: House, zygotes: dict[str, Launcher]) -> Bench:
    return Bench(house, zygotes)


def wait_for(condition, seconds: float, every: float = 0.02) -> float:
    """Wait until a condition holds; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(every)
    return time.monotonic() - began


def over(process: psutil.Process) -> bool:
    """Whether a process has ended, whether or not its parent has asked how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that carry a mark in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if mark in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
