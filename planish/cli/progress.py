"""Bars on a terminal, and one line for each new stage everywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TransferSpeedColumn,
)

from planish.cli.console import err, say
from planish.client.transfer import Transfer
from planish.contract.job import Job
from planish.contract.job import Progress as JobProgress

SHOWN_AFTER_SECONDS = 0.5
_VERBS = {"hash": "reading", "upload": "uploading", "download": "downloading", "present": "have"}


class Transfers:
    """Bars for files on their way; files that take no time get none."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def __call__(self, transfer: Transfer) -> None:
        """Show how far a file is."""
        key = (transfer.name, transfer.phase)
        if key not in self._tasks:
            self._began = time.monotonic()
            text = f"{_VERBS[transfer.phase]} {transfer.name}"
            self._tasks[key] = self._bars.add_task(text, total=transfer.total, visible=False)
        slow = time.monotonic() - self._began > SHOWN_AFTER_SECONDS
        over = transfer.done >= transfer.total
        visible = slow and not over
        self._bars.update(self._tasks[key], completed=transfer.done, visible=visible)


class JobBar:
    """One bar for a job: stage, share done, time left, message."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rest]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task("queued", total=1.0, rest="")
        self._stage = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, job: Job) -> None:
        """Show where a job is."""
        stage = job.progress.stage if job.status == "running" else str(job.status)
        self.show(job.progress, stage)

    def show(self, progress: JobProgress, stage: str) -> None:
        """Show a progress; on a plain stream only when the stage changes."""
        rest = "  ".join(filter(None, [_left(progress.eta_seconds), progress.message]))
        steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
        text = f"{stage}{steps}"
        self._bar.update(self._task, completed=progress.fraction, description=text, rest=rest)
        if stage != self._stage:
            self._stage = stage
            if not err.is_terminal:
                say(text)

    def line(self, text: str) -> None:
        """Write a line above the bar."""
        self._bar.console.print(text, markup=False)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} left"
