"""How accepted jobs end without a result."""

from __future__ import annotations

from planish.contract.errors.base import PlanishError


class JobFailed(PlanishError):
    """The job ended without a result."""

    code, title = "job_failed", "The job failed"


class DeadlineExceeded(JobFailed):
    """The job ran longer than ``resources.run_seconds``."""

    code, title = "deadline_exceeded", "The job ran out of time"


class WorkerLost(JobFailed):
    """The worker died on every attempt."""

    code, title = "worker_lost", "The worker died on every attempt"


class OutOfMemory(JobFailed):
    """The job's process ran out of memory."""

    code, title = "out_of_memory", "The job ran out of memory"


class TrainingDiverged(JobFailed):
    """The loss became NaN or infinite."""

    code, title = "training_diverged", "The training diverged"


class MissingDependency(JobFailed):
    """The worker lacks a library that the job's target or outputs need."""

    code, title, status = "missing_dependency", "The worker lacks a library", 422


class ReloadMismatch(JobFailed):
    """The artifact, reloaded in a fresh process, gave other outputs."""

    code, title = "reload_mismatch", "The reloaded artifact gives other outputs"


class JobCancelled(PlanishError):
    """The job was cancelled."""

    code, title = "cancelled", "The job was cancelled"


class JobExpired(PlanishError):
    """The job was not started in time."""

    code, title = "expired", "The job expired"
