"""Job folders: written once, whoever comes second loses."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from planish.contract.errors import IdempotencyKeyReused, NotFound
from planish.contract.job import JobStatus
from planish.store.ids import new_id
from planish.store.job_files import JobFiles
from tests.store.conftest import make_outcome, make_record


def test_a_spec_is_put_once(files: JobFiles) -> None:
    record = make_record(name="first")
    second = record.model_copy(update={"request_sha256": "1" * 64})
    assert files.put_spec(record.id, record)
    assert not files.put_spec(record.id, second)
    assert files.spec(record.id) == record
    assert list(files.ids()) == [record.id]


def test_of_many_outcomes_one_wins(files: JobFiles) -> None:
    record = make_record()
    files.put_spec(record.id, record)
    outcomes = [
        make_outcome(record.id, status, fence=n)
        for n, status in enumerate([JobStatus.SUCCEEDED, JobStatus.CANCELLED] * 16)
    ]
    barrier = threading.Barrier(8)

    def put(number: int) -> list[bool]:
        barrier.wait()
        return [files.put_outcome(record.id, outcome) for outcome in outcomes[number::8]]

    with ThreadPoolExecutor(8) as pool:
        results = dict(enumerate(pool.map(put, range(8))))
    winners = [outcomes[n::8][i] for n, won in results.items() for i, w in enumerate(won) if w]
    assert winners == [files.outcome(record.id)]
    assert {p.name for p in files.folder(record.id).iterdir()} == {"OUTCOME.json", "SPEC.json"}


def test_an_outcome_of_a_deleted_job_loses(files: JobFiles) -> None:
    assert not files.put_outcome(new_id("job"), make_outcome(new_id("job")))


def test_attempts_have_their_own_folders(files: JobFiles) -> None:
    record = make_record()
    files.put_spec(record.id, record)
    assert files.log(record.id) is None
    first = files.attempt_dir(record.id, 1, 7)
    second = files.attempt_dir(record.id, 2, 12)
    assert files.attempt_dir(record.id, 2, 12) == second
    assert (first.name, second.name) == ("a1-f7", "a2-f12")
    assert (second / "artifacts").is_dir()
    assert files.attempts(record.id) == [(1, 7, first), (2, 12, second)]
    assert files.log(record.id) == second / "log.txt"
    assert files.published(record.id) is None
    files.put_outcome(record.id, make_outcome(record.id, directory="a2-f12"))
    assert files.published(record.id) == second / "artifacts"


def test_an_outcome_cannot_name_a_folder_elsewhere(files: JobFiles) -> None:
    record = make_record()
    files.put_spec(record.id, record)
    files.put_outcome(record.id, make_outcome(record.id, directory="../other"))
    with pytest.raises(ValueError, match="names the folder"):
        files.published(record.id)


@pytest.mark.parametrize("job_id", ["", "..", "job_../../x", "job_" + "a" * 26, "plan_x"])
def test_what_is_no_job_id_names_no_path(files: JobFiles, job_id: str) -> None:
    with pytest.raises(NotFound):
        files.folder(job_id)
    assert files.spec(job_id) is None
    assert files.outcome(job_id) is None
    assert not files.delete(job_id)


def test_delete_takes_everything_and_frees_the_key(tmp_path: Path, files: JobFiles) -> None:
    record = make_record(key="k")
    assert files.claim_key("k", "0", record.id) == record.id
    files.put_spec(record.id, record)
    files.attempt_dir(record.id, 1, 1)
    assert files.delete(record.id)
    assert not files.delete(record.id)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert files.claim_key("k", "1", "job_new") == "job_new"


def test_many_requests_with_one_key_are_one_job(files: JobFiles) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: files.claim_key("key", "same", new_id("job")), range(40)))
    assert len(set(ids)) == 1
    with pytest.raises(IdempotencyKeyReused, match=ids[0]):
        files.claim_key("key", "other", new_id("job"))


def test_stale_files_are_what_a_crash_leaves(tmp_path: Path, files: JobFiles) -> None:
    record = make_record(key="kept")
    files.claim_key("kept", "0", record.id)
    files.put_spec(record.id, record)
    files.claim_key("orphan", "0", new_id("job"))
    leftovers = {
        tmp_path / "trash" / "job_x.part",
        tmp_path / "jobs" / record.id / ".OUTCOME.json.x.part",
        *(
            p
            for p in (tmp_path / "idempotency").iterdir()
            if p.name != files._key_path("kept", "default").name
        ),
    }
    for path in leftovers:
        path.touch()
    for path in tmp_path.rglob("*"):
        os.utime(path, (1000, 1000))
    assert set(files.stale_files(2000.0)) == leftovers
    assert set(files.stale_files(500.0)) == set()
