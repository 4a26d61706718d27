"""The one Celery task, and the life of the pool process that runs it."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time

from celery import signals
from celery.exceptions import Reject

from planish.contract.wire import TASK_NAME
from planish.store.blobs import TenantBlobs
from planish.store.connection import connect
from planish.store.job_files import JobFiles
from planish.store.jobs import Ledger
from planish.store.records import queue_of
from worker.app import app, ring
from worker.kin import die_with_parent
from worker.launcher import Launcher, ZygoteFailed
from worker.lifeline import Lifeline
from worker.logs import JsonFormatter, log_to
from worker.settings import WorkerSettings
from worker.supervisor import Answer, Supervisor

log = logging.getLogger(__name__)

STOPPING_PAUSE_SECONDS = 0.05
UNSUITABLE_PAUSE_SECONDS = 1.0

# One for each pool process, set when it starts: Celery hands a task nothing but its arguments.
_supervisors: list[Supervisor] = []


def run(job_id: str) -> None:
    """Answer a doorbell: run the job, unless it is taken, done or gone."""
    answer = _supervisors[0].answer(job_id)
    if answer is Answer.STOPPING:
        time.sleep(STOPPING_PAUSE_SECONDS)  # Celery may need a moment to stop asking for more
        raise Reject(reason="the worker stops", requeue=True)
    if answer is Answer.UNSUITABLE:
        time.sleep(UNSUITABLE_PAUSE_SECONDS)  # to the end of the queue, for a worker that can
        ring(job_id, queue_of(job_id))


def _log(**_: object) -> None:
    log_to(sys.stderr, JsonFormatter())
    for chatty in ("celery", "kombu"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _follow_main(**_: object) -> None:
    """Let the Celery process die with the worker's main process, where it has one."""
    lifeline = Lifeline()
    if lifeline.fileno() >= 0:
        die_with_parent(os.getppid())
        if lifeline.broken:
            raise SystemExit(1)


def _equip(**_: object) -> None:
    """Give a new pool process its connection and its zygote, and say that it is ready."""
    settings = WorkerSettings.from_env()
    lifeline = Lifeline()
    supervisor = Supervisor(
        ledger=Ledger(connect(settings.store.redis_url)),
        files=JobFiles(settings.store.data_dir),
        blobs=TenantBlobs(settings.store.data_dir),
        launcher=Launcher(),
        settings=settings,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        lifeline=lifeline,
    )
    _supervisors[:] = [supervisor]
    try:
        supervisor.launcher.start()
    except ZygoteFailed:
        log.exception("this pool process cannot take work")
        lifeline.report_failed()
        return
    lifeline.report_ready()


app.task(name=TASK_NAME)(run)
signals.setup_logging.connect(_log)
signals.worker_init.connect(_follow_main)
signals.worker_process_init.connect(_equip)
