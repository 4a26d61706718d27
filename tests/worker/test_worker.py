"""A whole worker: Celery processes, zygotes, recovery, and the engine on a small network."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from planish.contract.job import EventType, Job, JobStatus
from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE, TASK_NAME
from planish.store.connection import broker_url
from tests.conftest import ROOT
from tests.exports import export_pt2
from tests.worker.conftest import House, house_at, over, serve_redis, wait_for
from tests.zoo import small_residual_cnn

BOOT_SECONDS = 120
JOB_SECONDS = 120
LEASE_SECONDS = 2.0
QUICK = {"recipe": [{"op": "simplify"}], "target": {"threads": 1}}
LONG = {
    "recipe": [{"op": "distill", "train": {"epochs": 1000, "batch_size": 32}}],
    "target": {"threads": 1},
}


@dataclass
class Fleet:
    """A running worker and its installation."""

    house: House
    process: subprocess.Popen[str]
    lines: queue.Queue[dict[str, object]]
    files: dict[str, str]
    reader: threading.Thread

    def submit(self, spec: dict[str, object], kind: str = "job", rings: int = 1) -> str:
        job_id = self.house.submit(spec, kind, **self.files)
        for _ in range(rings):
            self.ring(job_id, JOB_QUEUE if kind == "job" else PLAN_QUEUE)
        return job_id

    def ring(self, job_id: str, queue_name: str = JOB_QUEUE) -> None:
        """Ring as the service does: by the task's name alone."""
        from celery import Celery

        app = Celery(broker=broker_url(self.house.settings.redis_url), set_as_current=False)
        app.conf.broker_transport_options = {"global_keyprefix": "planish:"}
        with app:
            app.send_task(TASK_NAME, args=[job_id], queue=queue_name, ignore_result=True)

    def job(self, job_id: str) -> Job:
        document = self.house.ledger.document(job_id)
        assert document is not None
        return Job.model_validate_json(document)

    def wait(self, job_id: str, stage: str) -> None:
        """Wait until a job is in a stage; a job that ended instead says why."""

        def there() -> bool:
            job = self.job(job_id)
            assert not job.terminal, job.error
            return job.progress.stage == stage

        wait_for(there, JOB_SECONDS)

    def finish(self, job_id: str, seconds: float = JOB_SECONDS) -> Job:
        wait_for(lambda: self.job(job_id).terminal, seconds)
        return self.job(job_id)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, job_id: str) -> psutil.Process:
        """The process that runs a job: a child of a zygote, in a session of its own."""
        (_, _, folder) = self.house.files.attempts(job_id)[-1]
        found = [p for p in self.descendants() if _cwd(p) == folder / "scratch"]
        return min(found, key=lambda process: process.create_time())

    def close(self) -> None:
        self.process.wait()
        self.reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def next_line(self, message: str) -> dict[str, object]:
        while True:
            line = self.lines.get(timeout=BOOT_SECONDS)
            if line["message"] == message:
                return line


def _cwd(process: psutil.Process) -> Path | None:
    try:
        return Path(process.cwd())
    except psutil.Error:
        return None


def _start(house: House, files: dict[str, str]) -> Fleet:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.main", "--concurrency", "1"],
        cwd=ROOT,
        env=os.environ
        | house.settings.to_env()
        | {
            "PLANISH_LEASE_SECONDS": str(LEASE_SECONDS),
            "PLANISH_RETRY_SECONDS": "0.1",
            "PLANISH_API_KEY": "hunter2",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[dict[str, object]] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.put(json.loads(line) if line.startswith("{") else {"message": line})

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return Fleet(house, process, lines, files, reader)


def _files(house: House) -> dict[str, str]:
    module, example = small_residual_cnn()
    with tempfile.TemporaryDirectory() as folder:
        model = export_pt2(module, example, Path(folder) / "model.pt2").read_bytes()
    noise = np.random.default_rng(0)
    data = io.BytesIO()
    images = noise.integers(0, 255, (512, 8, 8, 1), dtype=np.uint8)
    np.savez(data, x=images, targets=noise.integers(0, 10, 512))
    return {"model": house.upload(model), "data": house.upload(data.getvalue())}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with serve_redis() as url:
        house = house_at(url, tmp_path_factory.mktemp("house") / "data")
        fleet = _start(house, _files(house))
        fleet.next_line("ready")
        yield fleet
        fleet.process.terminate()
        assert fleet.process.wait(15) == 0
        fleet.close()


def test_ready_worker_is_in_the_fleet(fleet: Fleet) -> None:
    (worker,) = fleet.house.ledger.fleet().workers
    assert set(worker.queues) == {JOB_QUEUE, PLAN_QUEUE}
    assert worker.gpus == 0


def test_job_goes_through_once_however_often_its_doorbell_rings(fleet: Fleet) -> None:
    job_id = fleet.submit(QUICK, rings=3)
    job = fleet.finish(job_id)
    assert job.succeeded, job.error
    assert job.attempt == 1
    assert job.result is not None
    assert {"model.onnx", "report.json", "manifest.json"} <= {a.name for a in job.result.artifacts}
    fleet.ring(job_id)
    plan = fleet.submit(QUICK, "plan")
    fleet.finish(plan)
    assert fleet.job(job_id) == job


def test_celery_processes_never_load_torch(fleet: Fleet) -> None:
    loaded = {
        process.pid: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
        for process in [psutil.Process(fleet.process.pid), *fleet.descendants()]
    }
    zygotes = {p.pid for p in fleet.descendants() if "worker.zygote" in p.cmdline()}
    assert len(zygotes) == 2
    assert {pid for pid, torch in loaded.items() if torch} == zygotes
    for pid in zygotes:
        assert "hunter2" not in Path(f"/proc/{pid}/environ").read_text()
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def test_plan_is_answered_while_a_long_job_runs_and_a_cancel_ends_all_of_it(fleet: Fleet) -> None:
    before = {process.pid for process in fleet.descendants()}
    job_id = fleet.submit(LONG)
    fleet.wait(job_id, "distill")
    plan = fleet.submit(QUICK, "plan")
    assert fleet.finish(plan, 20).succeeded
    assert fleet.house.outcome(plan).plan is not None
    assert fleet.job(job_id).status is JobStatus.RUNNING

    fleet.house.ledger.request_cancel(job_id)
    took = wait_for(lambda: fleet.job(job_id).terminal, 5)
    assert took < 2
    assert fleet.job(job_id).status is JobStatus.CANCELLED
    wait_for(lambda: {process.pid for process in fleet.descendants()} <= before, 2)


def test_deadline_ends_a_job(fleet: Fleet) -> None:
    job_id = fleet.submit({**LONG, "resources": {"run_seconds": 3}})
    job = fleet.finish(job_id)
    assert job.error is not None
    assert job.error.code == "deadline_exceeded"


def test_killed_children_are_tried_again_three_times_at_most(fleet: Fleet) -> None:
    job_id = fleet.submit(LONG)
    for attempt in (1, 2, 3):
        wait_for(lambda n=attempt: fleet.job(job_id).attempt == n, 30)
        fleet.wait(job_id, "distill")
        fleet.child(job_id).kill()
    job = fleet.finish(job_id)
    assert job.error is not None
    assert job.error.code == "worker_lost"
    assert job.attempt == 3


def test_training_goes_on_from_its_checkpoint_when_the_child_was_killed(fleet: Fleet) -> None:
    job_id = fleet.submit(LONG)
    checkpoints = fleet.house.files.folder(job_id) / "checkpoints"

    def epochs() -> list[int]:
        events = fleet.house.ledger.events(job_id)
        return [int(str(e.data["epoch"])) for e in events if e.type == EventType.EPOCH]

    wait_for(lambda: len(epochs()) >= 3 and any(checkpoints.glob("*.safetensors")), JOB_SECONDS)
    fleet.child(job_id).kill()
    wait_for(lambda: fleet.job(job_id).attempt == 2, 30)
    before = len(epochs())
    wait_for(lambda: len(epochs()) >= before + 3, 60)
    log = fleet.house.files.log(job_id)
    assert log is not None
    assert "distill goes on from its checkpoint at epoch" in log.read_text()
    assert epochs()[before] > 1  # it did not start over
    fleet.house.ledger.request_cancel(job_id)
    assert fleet.finish(job_id).status is JobStatus.CANCELLED
    assert not checkpoints.exists()


def test_cancel_ends_every_process_of_a_spread_training(fleet: Fleet) -> None:
    train = {"epochs": 1000, "batch_size": 32}
    recipe = [{"op": "retrain", "strategy": "ddp", "processes": 2, "train": train}]
    before = {process.pid for process in fleet.descendants()}
    job_id = fleet.submit({**LONG, "recipe": recipe})

    def told_of_an_epoch() -> bool:
        assert not fleet.job(job_id).terminal, fleet.job(job_id).error
        events = fleet.house.ledger.events(job_id)
        return any(event.type == EventType.EPOCH for event in events)

    wait_for(told_of_an_epoch, JOB_SECONDS)
    ranks = [p for p in fleet.descendants() if "worker.engine.train.spread.rank" in p.cmdline()]
    assert len(ranks) >= 2
    fleet.house.ledger.request_cancel(job_id)
    assert fleet.finish(job_id, 10).status is JobStatus.CANCELLED
    assert psutil.wait_procs(ranks, 2)[1] == []
    wait_for(lambda: {process.pid for process in fleet.descendants()} <= before, 2)


@pytest.mark.parametrize("victim", ["pool process", "celery process"])
def test_job_of_a_killed_worker_process_is_given_to_the_next(fleet: Fleet, victim: str) -> None:
    job_id = fleet.submit(LONG)
    fleet.wait(job_id, "distill")
    child = fleet.child(job_id)
    zygote = child.parent()
    assert zygote is not None
    pool = zygote.parent()
    assert pool is not None
    celery = pool.parent()
    assert celery is not None
    (pool if victim == "pool process" else celery).kill()
    wait_for(lambda: over(child) and over(zygote), 5)
    wait_for(lambda: fleet.job(job_id).attempt == 2, 60)
    fleet.wait(job_id, "distill")
    fleet.house.ledger.request_cancel(job_id)
    assert fleet.finish(job_id).status is JobStatus.CANCELLED


def test_stopped_worker_gives_its_job_back_and_leaves_no_process(tmp_path: Path) -> None:
    with serve_redis() as url:
        house = house_at(url, tmp_path / "data")
        fleet = _start(house, _files(house))
        fleet.next_line("ready")
        job_id = fleet.submit(LONG)
        fleet.wait(job_id, "distill")
        family = fleet.descendants()
        began = time.monotonic()
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.process.wait(10) == 0
        assert time.monotonic() - began < 8
        assert psutil.wait_procs(family, 2)[1] == []
        assert fleet.job(job_id).status is JobStatus.QUEUED
        assert house.files.attempts(job_id) == []
        assert house.ledger.fleet().workers == ()
        fleet.close()

        again = _start(house, fleet.files)
        wait_for(lambda: fleet.job(job_id).status is JobStatus.RUNNING, BOOT_SECONDS)
        again.wait(job_id, "distill")
        assert again.job(job_id).attempt == 2
        family = again.descendants()
        again.process.kill()  # nobody below it may live on
        assert psutil.wait_procs(family, 5)[1] == []
        again.close()
