"""The doorbell: one Celery message with a job id. The only place that knows Celery.

A lost doorbell loses nothing: recovery rings again for every job that nobody took.
"""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import ChannelError

from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE, TASK_NAME
from planish.store.connection import broker_url

log = logging.getLogger("planish.service")


class Doorbell:
    """Sends doorbells over a pool of producers; safe to use from several threads."""

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("planish-doorbell", broker=broker_url(redis_url), set_as_current=False)
        self._app.conf.update(
            task_ignore_result=True,
            broker_transport_options={
                "global_keyprefix": "planish:",
                "socket_timeout": 5,
                "socket_connect_timeout": 2,
            },
            broker_connection_timeout=2,
        )

    def warm(self) -> None:
        """Open the first connection, so that the first job does not wait for it."""
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                for queue in (JOB_QUEUE, PLAN_QUEUE):
                    producer.maybe_declare(self._app.amqp.queues[queue])
        except Exception as error:  # kombu lets any transport's errors through
            log.warning("the broker cannot be reached yet: %s", error)

    def ring(self, job_id: str, queue: str) -> None:
        """Tell a worker that there is a job; failures are logged, recovery rings again."""
        try:
            self._app.send_task(TASK_NAME, (job_id,), queue=queue, retry=False, ignore_result=True)
        except Exception as error:  # kombu lets any transport's errors through
            log.warning("no doorbell for %s: %s", job_id, error)

    def length(self, queue: str) -> int | None:
        """Return how many doorbells wait in a queue, None when the broker is away."""
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                count: int = producer.channel.queue_declare(queue, passive=True).message_count
                return count
        except ChannelError:  # an empty queue does not exist
            return 0
        except Exception as error:  # kombu lets any transport's errors through
            log.warning("the broker cannot be asked for %s: %s", queue, error)
            return None

    def close(self) -> None:
        """Close the pooled connections."""
        self._app.close()
