"""Planish: a trained PyTorch model in, a smaller and faster one out, with evidence.

    client = planish.Client("http://localhost:8000")
    job = client.optimize("net.pt2", data="train.npz", recipe=[planish.Quantize(mode="static")])
    job.wait(timeout=3600)
    job.download("out/")

Names are imported when they are first used: the service and the worker import `planish.contract`
without the client and its HTTP library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planish.client.asynchronous import AsyncClient
    from planish.client.job import JobHandle
    from planish.client.job_async import AsyncJobHandle
    from planish.client.sources import Sources
    from planish.client.sync import Client
    from planish.client.transfer import Transfer
    from planish.contract.errors import (
        InvalidInput,
        JobCancelled,
        JobExpired,
        JobFailed,
        NotFound,
        PlanishError,
        ServerUnreachable,
        VerificationFailed,
        WaitTimeout,
    )
    from planish.contract.job import Event, Job, JobStatus
    from planish.contract.recipe import (
        Cast,
        Distill,
        LowRank,
        Prune,
        Quantize,
        Retrain,
        Simplify,
        Train,
    )
    from planish.contract.report import Plan, Report
    from planish.contract.spec import (
        Architecture,
        InputDeclaration,
        Preprocess,
        Resources,
        Spec,
        Target,
    )

__all__ = [
    "Architecture",
    "AsyncClient",
    "AsyncJobHandle",
    "Cast",
    "Client",
    "Distill",
    "Event",
    "InputDeclaration",
    "InvalidInput",
    "Job",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobStatus",
    "LowRank",
    "NotFound",
    "Plan",
    "PlanishError",
    "Preprocess",
    "Prune",
    "Quantize",
    "Report",
    "Resources",
    "Retrain",
    "ServerUnreachable",
    "Simplify",
    "Sources",
    "Spec",
    "Target",
    "Train",
    "Transfer",
    "VerificationFailed",
    "WaitTimeout",
]

_MODULES = {
    "planish.contract.spec": (
        "Architecture",
        "InputDeclaration",
        "Preprocess",
        "Resources",
        "Spec",
        "Target",
    ),
    "planish.client.asynchronous": ("AsyncClient",),
    "planish.client.job_async": ("AsyncJobHandle",),
    "planish.client.sync": ("Client",),
    "planish.contract.recipe": (
        "Cast",
        "Distill",
        "LowRank",
        "Prune",
        "Quantize",
        "Retrain",
        "Simplify",
        "Train",
    ),
    "planish.contract.job": (
        "Event",
        "Job",
        "JobStatus",
    ),
    "planish.contract.errors": (
        "InvalidInput",
        "JobCancelled",
        "JobExpired",
        "JobFailed",
        "NotFound",
        "PlanishError",
        "ServerUnreachable",
        "VerificationFailed",
        "WaitTimeout",
    ),
    "planish.client.job": ("JobHandle",),
    "planish.contract.report": (
        "Plan",
        "Report",
    ),
    "planish.client.sources": ("Sources",),
    "planish.client.transfer": ("Transfer",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'planish' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
