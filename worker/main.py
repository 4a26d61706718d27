"""The worker: ``python -m worker.main [--concurrency N] [--gpus 0,1] [--join]``.

Starts the Celery processes, tells the fleet when they are ready, and runs recovery. On TERM or INT
running jobs go back to the queue and everything ends within seconds; killed outright, the kernel
ends everything below, and the leases run out.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

import redis

from planish.contract.guards import is_guarded
from planish.guard.kernel import kernel_guards
from planish.store.blobs import TenantBlobs
from planish.store.connection import connect
from planish.store.job_files import JobFiles
from planish.store.jobs import Ledger
from planish.store.recovery import Recovery
from worker.app import ring
from worker.crew import STOP_SECONDS, crews
from worker.logs import JsonFormatter, log_to
from worker.settings import WorkerSettings, parse_gpus

log = logging.getLogger("worker")

LOOK_SECONDS = 0.1
REGISTER_SECONDS = 5.0
REGISTERED_FOR_SECONDS = 20.0


class Worker:
    """One worker of the fleet.

    Args:
        settings: how it works.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.id = f"{socket.gethostname()}:{os.getpid()}"
        self._settings = settings
        self._ledger = Ledger(connect(settings.store.redis_url))
        self._crews = crews(settings)
        self._stop = threading.Event()
        self._ready = False
        self._registered = float("-inf")

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> int:
        """Work until `stop`; return the exit code: 1 when no work can be taken at all."""
        files = JobFiles(self._settings.store.data_dir)
        recovery = Recovery(self._ledger, files, ring, TenantBlobs(self._settings.store.data_dir))
        for crew in self._crews:
            crew.start(self._settings)
        guard = threading.Thread(target=recovery.run, args=(self._stop,), name="recovery")
        guard.start()
        try:
            while not self._stop.wait(LOOK_SECONDS):
                for crew in self._crews:
                    crew.look(self._settings)
                self._announce()
                if not self._ready and any(crew.failed for crew in self._crews):
                    return 1
        finally:
            self._stop.set()
            self._dismiss()
            guard.join()
        return 0

    def _announce(self) -> None:
        """Register once every crew has its pool, and again and again from then on."""
        if any(crew.ready < crew.size for crew in self._crews):
            return
        if time.monotonic() - self._registered >= REGISTER_SECONDS:
            self._register(REGISTERED_FOR_SECONDS)
            self._registered = time.monotonic()
        if not self._ready:
            self._ready = True
            if not is_guarded(kernel_guards()):
                formats = "all formats" if self._settings.unguarded else "safetensors alone"
                log.warning("this kernel gives no sandbox", extra={"taken": formats})
            log.info(
                "ready",
                extra={
                    "worker": self.id,
                    "concurrency": self._settings.concurrency,
                    "gpus": list(self._settings.gpus),
                },
            )

    def _register(self, seconds: float) -> None:
        queues = tuple(crew.queue for crew in self._crews)
        try:
            self._ledger.register_worker(
                self.id, len(self._settings.gpus), queues, seconds, kernel_guards()
            )
        except redis.RedisError as error:
            log.warning("not registered", extra={"reason": str(error)})

    def _dismiss(self) -> None:
        log.info("stopping", extra={"worker": self.id})
        until = time.monotonic() + STOP_SECONDS
        for crew in self._crews:
            crew.stop()
        if self._ready:
            self._register(0.0)
        for crew in self._crews:
            crew.join(until)
        log.info("stopped", extra={"worker": self.id})


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; return the exit code."""
    log_to(sys.stderr, JsonFormatter())
    try:
        settings, joins = _settings(argv)
    except ValueError as error:
        log.error("%s", error)  # noqa: TRY400 - the text says it all
        return 2
    if joins:
        from worker.join import join  # with torch, which no other worker process loads

        return join(settings)
    worker = Worker(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    return worker.run()


def _settings(argv: Sequence[str] | None) -> tuple[WorkerSettings, bool]:
    """Return how to work, and whether only to help other machines."""
    defaults = WorkerSettings.from_env()
    parser = argparse.ArgumentParser(
        prog="planish worker", description="Take jobs and plans from the queue and run them."
    )
    parser.add_argument(
        "--concurrency", type=int, default=defaults.concurrency, help="jobs at a time"
    )
    parser.add_argument(
        "--gpus", type=parse_gpus, default=defaults.gpus, help="CUDA devices for its jobs, e.g. 0,1"
    )
    parser.add_argument(
        "--join", action="store_true", help="take no jobs; train with other machines' jobs"
    )
    arguments = parser.parse_args(argv)
    settings = dataclasses.replace(defaults, concurrency=arguments.concurrency, gpus=arguments.gpus)
    return settings, arguments.join


if __name__ == "__main__":
    sys.exit(main())
