"""The Celery application. Its messages are doorbells: a job id, and no truth.

A doorbell that is lost is rung again from the ledger, and one that comes twice finds the job taken.
So Celery's own results, retries, revokes and remote control are off.
"""

from __future__ import annotations

import warnings

from celery import Celery
from celery.exceptions import SecurityWarning

from planish.contract.wire import JOB_QUEUE, TASK_NAME
from planish.store.connection import broker_url
from planish.store.settings import StoreSettings

# Celery warns root of pickles; JSON is all that is accepted here
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("planish", include=["worker.tasks"], set_as_current=False)
app.conf.update(
    broker_url=broker_url(StoreSettings.from_env().redis_url),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": 3600,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 6,
        "socket_timeout": 30,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "global_keyprefix": "planish:",
    },
    result_backend=None,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_acks_late=True,
    task_acks_on_failure=True,
    task_acks_on_timeout=True,
    task_reject_on_worker_lost=False,
    task_retry_on_worker_lost=False,
    task_publish_retry=False,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue=JOB_QUEUE,
    worker_pool="prefork",
    worker_concurrency=1,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=None,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_redirect_stdouts=False,
    # a pool process is up when its zygote has torch imported
    worker_proc_alive_timeout=150.0,
)


def ring(job_id: str, queue: str) -> None:
    """Put a doorbell into a queue.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    app.send_task(TASK_NAME, args=[job_id], queue=queue, retry=False, ignore_result=True)
