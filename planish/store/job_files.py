"""Job folders: two write-once objects, and one private folder for each attempt.

jobs/<id>/SPEC.json                  before the 202
jobs/<id>/a<attempt>-f<fence>/       artifacts/ and log.txt of one attempt
jobs/<id>/checkpoints/               of training; outlives attempts, goes when the job ends
jobs/<id>/OUTCOME.json               created exclusively: the only commit point
idempotency/<sha256 of the key>      which job an Idempotency-Key belongs to
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from planish.contract.errors import IdempotencyKeyReused, NotFound
from planish.contract.wire import DEFAULT_TENANT, JOB_ID
from planish.store.durable import TEMPORARY, make_private, put_new, sync_folder, write_synced
from planish.store.ids import new_ulid
from planish.store.records import Outcome, SpecRecord

SPEC = "SPEC.json"
OUTCOME = "OUTCOME.json"
ARTIFACTS = "artifacts"
CHECKPOINTS = "checkpoints"
LOG = "log.txt"
_ATTEMPT = re.compile(r"^a(\d+)-f(\d+)$")


class KeyClaim(BaseModel):
    """What lies under an Idempotency-Key."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    request_sha256: str


class JobFiles:
    """The truth about jobs; Redis only mirrors it."""

    def __init__(self, root: Path) -> None:
        self._jobs = make_private(root / "jobs")
        self._keys = make_private(root / "idempotency")
        self._trash = make_private(root / "trash")

    def folder(self, job_id: str) -> Path:
        """Return a job's folder, whether or not it exists.

        Raises:
            NotFound: not a job id, so nothing outside ``jobs/`` can be named.
        """
        if not JOB_ID.match(job_id):
            raise NotFound(f"there is no job {job_id[:100]!r}")
        return self._jobs / job_id

    def put_spec(self, job_id: str, record: SpecRecord) -> bool:
        """Make an accepted request durable.

        The folder is built aside and renamed into place, so a job folder always has its spec. The
        file's name in it needs no fsync of its own: file systems with an ordered journal (ext4,
        XFS, btrfs) never show the later rename without it.

        Returns:
            False when the job exists already; its first spec stays.
        """
        target = self.folder(job_id)
        building = self._trash / f"{job_id}.{new_ulid()}{TEMPORARY}"
        building.mkdir(mode=0o700)
        try:
            write_synced(building / SPEC, record.model_dump_json().encode())
            building.rename(target)
        except OSError:
            shutil.rmtree(building, ignore_errors=True)
            if target.is_dir():
                return False
            raise
        sync_folder(self._jobs)
        return True

    def spec(self, job_id: str) -> SpecRecord | None:
        """Return the accepted request, None when there is no such job."""
        try:
            return SpecRecord.model_validate_json((self.folder(job_id) / SPEC).read_bytes())
        except (FileNotFoundError, NotFound):
            return None

    def put_outcome(self, job_id: str, outcome: Outcome) -> bool:
        """End a job: whoever creates the file decides how it ended.

        Returns:
            False when the job has its outcome already, or is deleted: the caller lost the race.
        """
        try:
            return put_new(self.folder(job_id) / OUTCOME, outcome.model_dump_json().encode())
        except FileNotFoundError:
            return False

    def outcome(self, job_id: str) -> Outcome | None:
        """Return how the job ended, None when it has not."""
        try:
            return Outcome.model_validate_json((self.folder(job_id) / OUTCOME).read_bytes())
        except (FileNotFoundError, NotFound):
            return None

    def attempt_dir(self, job_id: str, attempt: int, fence: int) -> Path:
        """Return the folder of one attempt, created with ``artifacts/`` and ``log.txt``."""
        folder = self.folder(job_id) / f"a{attempt}-f{fence}"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / ARTIFACTS).mkdir(mode=0o700, exist_ok=True)
        (folder / LOG).touch(mode=0o600)
        return folder

    def attempts(self, job_id: str) -> list[tuple[int, int, Path]]:
        """Return (attempt, fence, folder) of all attempts on disk, oldest first."""
        folder = self.folder(job_id)
        paths = folder.iterdir() if folder.is_dir() else ()
        matches = [match for path in paths if (match := _ATTEMPT.match(path.name))]
        found = [(int(match[1]), int(match[2]), folder / match[0]) for match in matches]
        return sorted(found, key=lambda item: item[1])

    def checkpoints_dir(self, job_id: str) -> Path:
        """Return the folder from which the next attempt goes on, created if it is not there."""
        folder = self.folder(job_id) / CHECKPOINTS
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def drop_checkpoints(self, job_id: str) -> None:
        """Remove the checkpoints of a job that has ended."""
        shutil.rmtree(self.folder(job_id) / CHECKPOINTS, ignore_errors=True)

    def published(self, job_id: str) -> Path | None:
        """Return the artifacts folder that the outcome names, None before success."""
        outcome = self.outcome(job_id)
        if outcome is None or outcome.directory is None:
            return None
        if not _ATTEMPT.match(outcome.directory):
            raise ValueError(f"{job_id}: the outcome names the folder {outcome.directory!r}")
        return self.folder(job_id) / outcome.directory / ARTIFACTS

    def log(self, job_id: str) -> Path | None:
        """Return the log of the newest attempt, None when none has run."""
        attempts = self.attempts(job_id)
        return attempts[-1][2] / LOG if attempts else None

    def delete(self, job_id: str) -> bool:
        """Remove all files of a job and its Idempotency-Key; return whether it was there.

        One rename takes the job away as a whole; a crash later leaves only trash.
        """
        try:
            record = self.spec(job_id)
            grave = self._trash / f"{job_id}.{new_ulid()}"
            self.folder(job_id).rename(grave)
        except (FileNotFoundError, NotFound):
            return False
        sync_folder(self._jobs)
        if record is not None and record.idempotency_key is not None:
            self._key_path(record.idempotency_key, record.tenant).unlink(missing_ok=True)
        shutil.rmtree(grave, ignore_errors=True)
        return True

    def ids(self) -> Iterator[str]:
        """Yield the ids of all jobs and plans on disk, in no order."""
        with os.scandir(self._jobs) as entries:
            yield from (entry.name for entry in entries if JOB_ID.match(entry.name))

    def claim_key(
        self, key: str, request_sha256: str, job_id: str, tenant: str = DEFAULT_TENANT
    ) -> str:
        """Bind a tenant's Idempotency-Key to a job.

        The winner's id is returned also when its spec is not durable yet (its process may have
        died in between): carry on with `put_spec` and submit under the returned id.

        Returns:
            `job_id`, or the id of the job that the same request made first.

        Raises:
            IdempotencyKeyReused: the key came with another request before.
        """
        claim = KeyClaim(job_id=job_id, request_sha256=request_sha256)
        path = self._key_path(key, tenant)
        winner = None
        while winner is None:
            if put_new(path, claim.model_dump_json().encode()):
                return job_id
            with suppress(
                FileNotFoundError
            ):  # deleted with its job just now: the key is free again
                winner = KeyClaim.model_validate_json(path.read_bytes())
        if winner.request_sha256 != request_sha256:
            raise IdempotencyKeyReused(
                f"the Idempotency-Key belongs to {winner.job_id}, which was made from another "
                "body; use a new key for a new job"
            )
        return winner.job_id

    def stale_files(self, older_than: float) -> Iterator[Path]:
        """Yield what crashed processes left, last changed before `older_than` (epoch seconds).

        These are deleted or half-built job folders, temporary files, and keys of jobs that were
        never accepted.
        """
        for path in (
            *self._trash.iterdir(),
            *self._jobs.glob(f"*/.*{TEMPORARY}"),
            *self._orphans(),
        ):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < older_than:
                    yield path

    def _orphans(self) -> Iterator[Path]:
        for path in self._keys.iterdir():
            if path.name.endswith(TEMPORARY):
                yield path
                continue
            with suppress(FileNotFoundError, ValidationError):
                claim = KeyClaim.model_validate_json(path.read_bytes())
                if not self.folder(claim.job_id).is_dir():
                    yield path

    def _key_path(self, key: str, tenant: str) -> Path:
        owned = key if tenant == DEFAULT_TENANT else f"{tenant}\n{key}"
        return self._keys / hashlib.sha256(owned.encode()).hexdigest()
