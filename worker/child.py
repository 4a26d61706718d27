"""A job's own process: runs the engine, and writes down how it ended.

Loaded by the zygote; nothing here runs before the fork.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

from planish.contract.errors import InternalError, OutOfMemory, PlanishError, StorageFull
from planish.gate.parts import Source
from planish.guard.lock import close
from planish.store.durable import sync_tree
from worker.engine.pipeline import JobInputs, make_plan, optimize
from worker.engine.report.result import result_of
from worker.exchange import Draft, Request, Stored, source_of
from worker.logs import PlainFormatter, log_to
from worker.progress import ChannelProgress
from worker.sandbox.profiles import engine_lock

log = logging.getLogger(__name__)


def main(argument: str, channel: int) -> int:
    """Do what the request in the file `argument` says; report into the pipe `channel`.

    Returns:
        The exit code: 0 when a draft with a result or a plan was written, 1 with an error.
    """
    request = Request.model_validate_json(Path(argument).read_bytes())
    parent = os.getppid()
    _settle_in(request)
    if request.guarded:
        close(engine_lock(request), parent)
    began = time.monotonic()
    draft = _attempt(request, ChannelProgress(channel))
    _write(request.draft, draft)
    log.info("%s finished after %.3f s", request.job_id, time.monotonic() - began)
    return 0 if draft.error is None else 1


def _settle_in(request: Request) -> None:
    """Give this process its threads, devices and temporary folder; its children inherit them."""
    log_to(sys.stderr, PlainFormatter())
    os.environ["TMPDIR"] = os.environ["HOME"] = tempfile.tempdir = str(request.scratch)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(request.scratch / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(request.scratch / "triton")
    os.chdir(request.scratch)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[: request.spec.resources.gpus])
    os.environ["OMP_NUM_THREADS"] = str(request.threads)
    torch.set_num_threads(request.threads)
    log.info(
        "%s started on %s with torch %s and %d threads",
        request.job_id,
        socket.gethostname(),
        torch.__version__,
        torch.get_num_threads(),
    )


def _attempt(request: Request, progress: ChannelProgress) -> Draft:
    try:
        return _work(request, progress)
    except PlanishError as error:
        log.error("%s: %s", error.code, error.detail)  # noqa: TRY400 - ours: the text says it all
        return Draft(error=error.info())
    except Exception as error:  # the border of the engine: nothing may pass unexplained
        traceback.print_exc()
        return Draft(error=_described(error).info())


def _work(request: Request, progress: ChannelProgress) -> Draft:
    inputs = JobInputs(
        job_id=request.job_id,
        spec=request.spec,
        model=source_of(request.model),
        data=_optional(request.data),
        test_data=_optional(request.test_data),
        teacher=_optional(request.teacher),
        checkpoints=request.checkpoints,
        rendezvous=request.rendezvous,
        student=_optional(request.student),
    )
    if request.kind == "plan":
        return Draft(plan=make_plan(inputs))
    report = optimize(inputs, request.artifacts, progress)
    sync_tree(request.artifacts)
    result = result_of(report, request.artifacts, request.job_id)
    return Draft(result=result, verdict="not_evaluated")


def _optional(stored: Stored | None) -> Source | None:
    return None if stored is None else source_of(stored)


def _described(error: Exception) -> PlanishError:
    """Return what a client may know of an exception that the engine did not mean to raise."""
    name = type(error).__name__
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return OutOfMemory("the engine asked for more memory than there is; try smaller batches")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StorageFull("the worker's disk is full")
    return InternalError(f"the engine stopped with {name}; the job's log says where")


def _write(path: Path, draft: Draft) -> None:
    """Write the draft whole or not at all."""
    temporary = path.with_suffix(".part")
    temporary.write_text(draft.model_dump_json())
    temporary.replace(path)
