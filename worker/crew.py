"""One worker's Celery processes: one for jobs, one for plans, kept alive, stopped fast.

Plans have a process of their own, so that they never wait behind jobs of an hour.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE
from worker.launcher import ROOT
from worker.lifeline import ENV_LIFELINE, MainEnd
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

RESTART_SECONDS = 2.0
STOP_SECONDS = 10.0


@dataclass
class Crew:
    """A Celery process with its pool.

    Attributes:
        name: of the Celery node, unique in the fleet.
        queue: what it takes from.
        size: pool processes.
        ready: how many pool processes have said so, replacements too.
        failed: whether one has said that it cannot take work.
    """

    name: str
    queue: str
    size: int
    ready: int = 0
    failed: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: float = field(default=0.0)
    lifeline: MainEnd | None = None

    def start(self, settings: WorkerSettings) -> None:
        """Start it, in a session of its own: a Ctrl-C in the terminal is the main process's."""
        if self.lifeline is not None:
            self.lifeline.cut()
        self.lifeline = MainEnd()
        self.ready = 0
        self.started = time.monotonic()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            self._command(),
            cwd=ROOT,
            env=os.environ
            | settings.to_env()
            | {"PYTHONPATH": path, ENV_LIFELINE: str(self.lifeline.inherited)},
            pass_fds=[self.lifeline.inherited],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # Celery's words to a terminal; the log goes to stderr
            start_new_session=True,
        )
        self.lifeline.handed_over()

    def look(self, settings: WorkerSettings) -> None:
        """Count the ready pool processes; start the Celery process anew when it has died."""
        if self.lifeline is not None:
            reports = self.lifeline.reports()
            self.ready += sum(reports)
            self.failed |= not all(reports)
        if self.process is None or self.process.poll() is None:
            return
        if time.monotonic() - self.started >= RESTART_SECONDS:
            log.error(
                "a celery process died", extra={"crew": self.name, "code": self.process.returncode}
            )
            self.start(settings)

    def stop(self) -> None:
        """Ask it to stop taking work, then have its jobs given back."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if self.lifeline is not None:
            self.lifeline.cut()

    def join(self, until: float) -> None:
        """Wait for its end until the monotonic time `until`, then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("a celery process does not stop", extra={"crew": self.name})
            self.process.kill()
            self.process.wait()

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "celery", "-A", "worker.app:app", "--quiet", "worker"),
            *("--queues", self.queue, "--hostname", f"{self.name}@%h"),
            *("--pool", "prefork", "--concurrency", str(self.size), "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]


def crews(settings: WorkerSettings) -> tuple[Crew, Crew]:
    """Return the two crews of a worker, not started yet."""
    me = os.getpid()
    return Crew(f"jobs-{me}", JOB_QUEUE, settings.concurrency), Crew(f"plans-{me}", PLAN_QUEUE, 1)
