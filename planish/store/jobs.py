"""The ledger: states, leases, fences, progress and events of jobs in Redis.

Every transition is one Lua script, uses the server's clock alone and may be repeated. The ledger
mirrors the two files of `JobFiles` and can be rebuilt from them; see docs/state-machine.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast
from uuid import uuid4

import redis
from pydantic import BaseModel, JsonValue

from planish.contract.job import Event, EventType, JobStatus, Progress, links_of
from planish.contract.wire import DEFAULT_TENANT
from planish.store.fleet import FleetRegistry
from planish.store.records import Outcome, SpecRecord
from planish.store.scripts import PREFIX, Scripts, events_key, job_key

LEASE_MS = 30_000
DOORBELL_MS = 30_000
MAX_CRASHES = 3
PAGE_BOUND = 5_000

_NULL = "null"
_QUEUED = Progress().model_dump_json()
_STARTING = Progress(stage="starting").model_dump_json()

Beat = Literal["ok", "fenced", "cancel"]
Cancel = Literal["queued", "running", "terminal", "unknown"]
Reaped = Literal["requeued", "exhausted", "alive"]
Deleted = Literal["deleted", "alive", "unknown"]


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job.

    Attributes:
        job_id: the job.
        attempt: counts from 1 over all claims of the job.
        fence: names this hold; greater than all earlier ones, of any job.
        crashes: how many attempts before this one were lost.
        started_at: of this attempt, by the ledger's clock.
    """

    job_id: str
    attempt: int
    fence: int
    crashes: int
    started_at: datetime

    @property
    def last_chance(self) -> bool:
        """Whether a crash of this attempt ends the job."""
        return self.crashes + 1 >= MAX_CRASHES


class Ledger(FleetRegistry):
    """All that Redis knows of jobs. Thread-safe; every method may raise `redis.RedisError`."""

    def __init__(self, client: redis.Redis) -> None:
        """Use `client`, made by `planish.store.connection.connect`."""
        super().__init__(client)
        self._redis = client
        self._run = Scripts(client)

    # --- clients' side -----------------------------------------------------------------------

    def submit(self, record: SpecRecord, attempts: int = 0) -> bool:
        """Create a job in QUEUED; its spec is durable already.

        The caller rings the doorbell next; if it does not, recovery does after `DOORBELL_MS`.

        Args:
            record: what lies in SPEC.json.
            attempts: attempts that ran before the ledger was lost.

        Returns:
            False when the ledger knows the job; nothing changes then.
        """
        spec = record.spec
        labels = [f"{key}={value}" for key, value in spec.labels.items()]
        start_by_ms = spec.resources.start_by_seconds * 1000
        created = self._run(
            "submit",
            record.id,
            record.kind,
            _json(spec.name),
            _json(spec.labels),
            _stamp(record.created_at),
            spec.model_dump_json(),
            links_of(record.id).model_dump_json(),
            _QUEUED,
            start_by_ms,
            DOORBELL_MS,
            attempts,
            _json(labels),
            _json(_files(record)),
            record.tenant,
            int(spec.webhook is not None),
        )
        return bool(created)

    def request_cancel(self, job_id: str) -> Cancel:
        """Ask for a cancel; return what the job was.

        ``queued``: the job can no longer be claimed; put and settle the CANCELLED outcome (recovery
        does, should the caller die). ``running``: the next beat tells the worker.
        """
        return cast("Cancel", self._text("request_cancel", job_id))

    def document(self, job_id: str) -> bytes | None:
        """Return the Job document as ready JSON, None when the job is unknown."""
        return cast("bytes | None", self._redis.hget(job_key(job_id), "doc"))

    def status(self, job_id: str) -> JobStatus | None:
        """Return the state, None when the job is unknown."""
        value = cast("bytes | None", self._redis.hget(job_key(job_id), "status"))
        return None if value is None else JobStatus(value.decode())

    def statuses(self, job_ids: list[str]) -> list[JobStatus | None]:
        """Return the states of many jobs in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hget(job_key(job_id), "status")
        values = cast("list[bytes | None]", pipeline.execute())
        return [None if value is None else JobStatus(value.decode()) for value in values]

    def counts(self) -> dict[JobStatus, int]:
        """Return how many jobs are in each state; plans do not count."""
        pipeline = self._redis.pipeline(transaction=False)
        for status in JobStatus:
            pipeline.zcard(f"{PREFIX}index:status:{status.value}")
        return dict(zip(JobStatus, cast("list[int]", pipeline.execute()), strict=True))

    def exists(self, job_id: str) -> bool:
        """Say whether the ledger knows the job."""
        return bool(self._redis.exists(job_key(job_id)))

    def page(
        self,
        status: JobStatus | None = None,
        labels: tuple[str, ...] = (),
        limit: int = 50,
        after: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> tuple[list[bytes], str | None]:
        """Return documents of jobs, newest first, and the id to continue after.

        Args:
            status: only jobs in this state.
            labels: only jobs that have all of these, each ``key=value``.
            limit: at most so many. A page may be shorter and still have a following one, when
                jobs that match are rare.
            after: id that the page before ended with.
            tenant: whose jobs.
        """
        filters = [f"tenant:{tenant}", *(f"label:{label}" for label in labels)]
        if status is not None:
            filters.append(f"status:{status.value}")
        found = self._run("page", limit, after or "", PAGE_BOUND, *filters)
        cursor, *documents = cast("list[bytes]", found)
        return documents, cursor.decode() or None

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return events with ids above `after`, oldest first."""
        start = f"({after}-0" if after else "-"
        found = self._redis.xrange(events_key(job_id), min=start, count=limit)
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        return [Event.model_validate_json(fields[b"d"]) for _, fields in entries]

    def delete(self, job_id: str) -> Deleted:
        """Forget a terminal job; ``alive`` when it is not terminal."""
        return cast("Deleted", self._text("delete", job_id))

    def file_in_use(self, file_id: str, tenant: str = DEFAULT_TENANT) -> bool:
        """Say whether a live job of the tenant reads this uploaded file."""
        return bool(self._redis.exists(f"{PREFIX}uses:{_owned(file_id, tenant)}"))

    # --- workers' side -----------------------------------------------------------------------

    def claim(self, job_id: str, worker: str, lease_ms: int = LEASE_MS) -> Claim | None:
        """Take a QUEUED job that is due; None when it cannot be taken, which is no error.

        A lost reply is asked for once more under the same token, so no claim is left behind.
        """
        args = (job_id, worker, lease_ms, uuid4().hex, _STARTING)
        try:
            found = self._run("claim", *args)
        except (redis.ConnectionError, redis.TimeoutError):
            found = self._run("claim", *args)
        if found is None:
            return None
        attempt, fence, crashes, started = (int(value) for value in cast("list[bytes]", found))
        return Claim(job_id, attempt, fence, crashes, _time(started))

    def beat(
        self, job_id: str, fence: int, lease_ms: int = LEASE_MS, progress: Progress | None = None
    ) -> Beat:
        """Extend the lease; with `progress` also show it and emit ``job.progress``.

        ``fenced``: the job is somebody else's or over: stop at once and publish nothing.
        ``cancel``: the lease is extended, and somebody asked for a cancel.
        """
        shown = "" if progress is None else progress.model_dump_json()
        return cast("Beat", self._text("beat", job_id, fence, lease_ms, shown))

    def event(self, job_id: str, fence: int, kind: EventType, data: dict[str, JsonValue]) -> bool:
        """Append an event; False when the job is no longer held under `fence`."""
        return bool(self._run("event", job_id, fence, kind.value, _json(data)))

    def holds(self, job_id: str, fence: int) -> bool:
        """Say whether the job runs under `fence`; advisory, only the outcome file decides."""
        found = self._redis.hmget(job_key(job_id), ["status", "fence"])
        return cast("list[bytes | None]", found) == [b"running", str(fence).encode()]

    def release(self, job_id: str, fence: int, delay_ms: int = 0, crashed: bool = False) -> bool:
        """Give a running job back: it may be claimed again after `delay_ms`.

        Args:
            job_id: the job.
            fence: of the claim.
            delay_ms: back-off; recovery rings the doorbell afterwards.
            crashed: counts towards `MAX_CRASHES`; check `Claim.last_chance` first.

        Returns:
            False when the job is not held under `fence`.
        """
        args = (job_id, fence, delay_ms, int(crashed), _QUEUED)
        try:
            return bool(self._run("release", *args))
        except (redis.ConnectionError, redis.TimeoutError):
            return bool(self._run("release", *args))

    def settle(self, outcome: Outcome) -> bool:
        """Mirror an outcome that is in its file; False when the ledger does not know the job."""
        done = self._run(
            "settle",
            outcome.job_id,
            outcome.status.value,
            outcome.attempt,
            _stamp(outcome.started_at),
            _stamp(outcome.finished_at),
            _json(outcome.verdict),
            _model(outcome.result),
            _model(outcome.error),
        )
        return bool(done)

    def now(self) -> datetime:
        """Return the ledger's time, for outcomes."""
        return _time(cast("int", self._run("clock")))

    # --- recovery's side ---------------------------------------------------------------------

    def expired(self, limit: int = 100) -> list[str]:
        """Return running jobs whose lease is over."""
        return self._due("leases", limit)

    def reap(self, job_id: str, max_crashes: int = MAX_CRASHES) -> Reaped:
        """Take a job from a worker whose lease is over.

        ``requeued``: ring its doorbell. ``exhausted``: put and settle FAILED `worker_lost`; the job
        is fenced and stays among `expired` until then. ``alive``: the lease holds.
        """
        return cast("Reaped", self._text("reap", job_id, max_crashes, DOORBELL_MS, _QUEUED))

    def stale_pending(self, older_ms: int = DOORBELL_MS, limit: int = 100) -> list[str]:
        """Return queued jobs to ring for; each is due again after `older_ms`."""
        return self._due("pending", limit, older_ms)

    def withdrawn(self, limit: int = 100) -> list[str]:
        """Return queued jobs with a cancel request."""
        return self._due("withdrawn", limit)

    def overdue_start(self, limit: int = 100) -> list[str]:
        """Return jobs that nobody started in time; from now on no claim can take them."""
        return _ids(self._run("overdue", limit))

    def ids(self) -> Iterator[str]:
        """Yield the ids of all jobs and plans, oldest first, in steps that do not block Redis."""
        for index in ("all", "plans"):
            start = b"-"
            while found := self._index(index, start):
                yield from (job_id.decode() for job_id in found)
                start = b"(" + found[-1]

    def raise_fence(self, floor: int) -> int:
        """Lift the fence counter to at least `floor`; return it."""
        return cast("int", self._run("raise_fence", floor))

    def generation(self) -> str:
        """Return a name that changes when the ledger's data is lost or its server restarts."""
        name = cast("bytes", self._run("generation", uuid4().hex)).decode()
        server = cast("dict[str, object]", self._redis.info("server"))
        return f"{server['run_id']}:{name}"

    def _index(self, name: str, start: bytes) -> list[bytes]:
        found = self._redis.zrangebylex(f"{PREFIX}index:{name}", start, b"+", start=0, num=500)
        return cast("list[bytes]", found)

    def _due(self, zset: str, limit: int, again_ms: int = -1) -> list[str]:
        return _ids(self._run("due", zset, limit, again_ms))

    def _text(self, script: str, *args: str | int) -> str:
        return cast("bytes", self._run(script, *args)).decode()


def _ids(reply: object) -> list[str]:
    return [job_id.decode() for job_id in cast("list[bytes]", reply)]


def _files(record: SpecRecord) -> list[str]:
    files = record.spec.files.pointers() if record.spec.files is not None else ()
    return sorted({_owned(file_id, record.tenant) for _, file_id in files})


def _owned(file_id: str, tenant: str) -> str:
    return f"{tenant}/{file_id}"


def _json(value: JsonValue | list[str] | dict[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _model(value: BaseModel | None) -> str:
    return _NULL if value is None else value.model_dump_json()


def _stamp(moment: datetime | None) -> str:
    """Return RFC 3339 in quotes, in UTC with milliseconds as the scripts write it."""
    if moment is None:
        return _NULL
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return f'"{text.removesuffix("+00:00")}Z"'


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
