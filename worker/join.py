"""``planish worker --join``: this machine helps other machines' jobs train; it takes none itself.

It looks for invitations on the shared storage, and runs its part of each run that it finds.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading

from worker.engine.train.spread.meeting import Meeting, invitations
from worker.engine.train.spread.torchrun import environment, stop, torchrun
from worker.settings import WorkerSettings

log = logging.getLogger("worker")

LOOK_SECONDS = 0.5


class Joiner:
    """Answers one invitation after the other.

    Args:
        settings: where the jobs lie, and this machine's GPUs.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._jobs = settings.store.data_dir / "jobs"
        self._gpus = len(settings.gpus)
        self._answered: set[Meeting] = set()
        self._stop = threading.Event()
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, settings.gpus))

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> int:
        """Help until `stop`; return the exit code."""
        log.info("ready", extra={"jobs": str(self._jobs)})
        while not self._stop.wait(LOOK_SECONDS):
            for meeting in invitations(self._jobs):
                if meeting not in self._answered and not self._stop.is_set():
                    self._answered.add(meeting)
                    self._train(meeting)
        return 0

    def _train(self, meeting: Meeting) -> None:
        """Run this machine's processes of one run."""
        facts = {"meeting": meeting.name, "rendezvous": meeting.rendezvous}
        if self._gpus and meeting.processes > self._gpus:
            log.warning("too few GPUs here", extra=facts | {"wanted": meeting.processes})
            return
        log.info("joins", extra=facts)
        command = torchrun(meeting.folder, meeting.processes, meeting.nodes)
        with subprocess.Popen(
            command, env=environment(meeting.nodes), stdin=subprocess.DEVNULL
        ) as agent:
            try:
                while agent.poll() is None and not self._stop.wait(LOOK_SECONDS):
                    if not meeting.folder.is_dir():
                        break  # the run is over there, however it ended
            finally:
                stop(agent)
        log.info("left", extra=facts | {"code": agent.returncode})


def join(settings: WorkerSettings) -> int:
    """Help until TERM or INT; return the exit code."""
    joiner = Joiner(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: joiner.stop())
    return joiner.run()
