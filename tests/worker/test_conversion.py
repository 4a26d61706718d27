"""Uploads that break the process which opens them: refused with a cause, counted, then denied."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from planish.contract.job import Job, JobStatus
from planish.store.denied import TRIES, DeniedFiles
from tests.worker.conftest import Bench, House, wait_for
from worker.sandbox.order import STAGE
from worker.sandbox.places import converter_places
from worker.supervisor import Answer


def _stage(house: House, job_id: str) -> str:
    document = house.ledger.document(job_id)
    return Job.model_validate_json(document).progress.stage if document else ""


def known(house: House, file_id: str):
    return DeniedFiles(house.settings.data_dir).find(file_id, "default")


@pytest.mark.parametrize(
    ("opener", "cause"),
    [
        ("crash_at_opening", "it died by SIGSEGV"),
        ("hang_at_opening", "it took longer than"),
        ("end_without_a_word", "exit code 3"),
        ("flood_the_disk", "it wrote more than"),
        ("leave_garbage", "what came out of it is not whole"),
        ("accuse_the_service", "the service is broken"),
    ],
)
def test_upload_that_breaks_its_converter_is_refused_and_counted(
    bench: Bench, opener: str, cause: str
) -> None:
    supervisor = bench.supervisor("succeed", opener, convert_seconds=1.5)
    job_id = bench.house.submit()
    assert supervisor.answer(job_id) is Answer.ANSWERED
    outcome = bench.house.outcome(job_id)
    assert outcome.status is JobStatus.FAILED
    assert outcome.attempt == 1
    assert outcome.error is not None
    assert outcome.error.code == "conversion_failed"
    assert cause in outcome.error.detail
    assert outcome.error.errors[0].pointer == "/files/model"
    [file_id] = [i for _, i in bench.house.files.spec(job_id).spec.files.pointers()]
    found = known(bench.house, file_id)
    assert found is not None
    assert (found.crashes, found.job) == (1, job_id)
    assert not (bench.house.files.folder(job_id) / "a1-f1" / "scratch").exists()


def test_link_in_place_of_a_result_is_not_followed(bench: Bench) -> None:
    supervisor = bench.supervisor("succeed", "leave_a_link")
    job_id = bench.house.submit()
    supervisor.answer(job_id)
    error = bench.house.outcome(job_id).error
    assert error is not None
    assert error.code == "conversion_failed"


def test_refusal_of_the_converter_is_the_jobs_error_and_no_crash(bench: Bench) -> None:
    supervisor = bench.supervisor("succeed", "refuse")
    job_id = bench.house.submit()
    supervisor.answer(job_id)
    error = bench.house.outcome(job_id).error
    assert error is not None
    assert (error.code, error.detail) == ("unsafe_model", "it holds a pickle")
    [file_id] = [i for _, i in bench.house.files.spec(job_id).spec.files.pointers()]
    assert known(bench.house, file_id) is None


def test_file_is_not_opened_again_after_its_last_try(bench: Bench) -> None:
    supervisor = bench.supervisor("succeed", "crash_at_opening")
    codes = []
    for _ in range(TRIES + 1):
        job_id = bench.house.submit()
        supervisor.answer(job_id)
        error = bench.house.outcome(job_id).error
        assert error is not None
        codes.append(error.code)
    assert codes == ["conversion_failed"] * TRIES + ["file_denied"]


def test_death_before_the_upload_is_opened_is_a_crash_of_the_worker(bench: Bench) -> None:
    supervisor = bench.supervisor("succeed", "die_before_opening")
    job_id = bench.house.submit()
    supervisor.answer(job_id)
    assert bench.house.files.outcome(job_id) is None  # queued again
    [file_id] = [i for _, i in bench.house.files.spec(job_id).spec.files.pointers()]
    assert known(bench.house, file_id) is None


def test_without_a_sandbox_only_safetensors_are_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.conversion.kernel_guards", lambda: ())
    plain = b"\x02\0\0\0\0\0\0\0{}"
    refused = bench.house.submit()
    taken = bench.house.submit(model=bench.house.upload(plain))
    supervisor = bench.supervisor("succeed")
    for job_id in (refused, taken):
        supervisor.answer(job_id)
    error = bench.house.outcome(refused).error
    assert error is not None
    assert (error.code, error.errors[0].pointer) == ("sandbox_unavailable", "/files/model")
    assert "PLANISH_UNGUARDED" in error.detail
    assert bench.house.outcome(taken).status is JobStatus.SUCCEEDED

    allowed = bench.house.submit()
    bench.supervisor("succeed", unguarded=True).answer(allowed)
    assert bench.house.outcome(allowed).status is JobStatus.SUCCEEDED


def test_folder_that_the_worker_stands_in_is_not_readable_for_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [*sys.path, "/", str(tmp_path), str(tmp_path / "plugins")])
    found = {grant.path for grant in converter_places([tmp_path / "data" / "job"])}
    assert tmp_path / "plugins" in found
    assert not found & {Path("/"), tmp_path}


def test_cancel_reaches_a_job_whose_upload_is_being_opened(bench: Bench) -> None:
    supervisor = bench.supervisor("succeed", "hang_at_opening")
    job_id = bench.house.submit()
    thread = threading.Thread(target=supervisor.answer, args=(job_id,))
    thread.start()
    wait_for(lambda: _stage(bench.house, job_id) == STAGE, 20)
    assert bench.house.ledger.request_cancel(job_id) == "running"
    thread.join(20)
    assert bench.house.outcome(job_id).status is JobStatus.CANCELLED
