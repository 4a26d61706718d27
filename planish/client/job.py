"""A job in the hands of a caller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from planish.client.sources import FileSource
from planish.client.transfer import OnTransfer, ignore
from planish.client.wait import OnChange
from planish.contract.job import Event, Job, JobStatus, Progress, Result
from planish.contract.problem import ErrorInfo
from planish.contract.report import Report
from planish.contract.spec import Spec

if TYPE_CHECKING:
    from planish.client.sync import Client


class JobView:
    """What a job looked like when it was last heard of.

    Attributes:
        document: all of it.
    """

    def __init__(self, document: Job) -> None:
        self.document = document

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.document.id

    @property
    def status(self) -> JobStatus:
        """Its state; branch on `terminal` and `succeeded`."""
        return self.document.status

    @property
    def terminal(self) -> bool:
        """Whether it is over."""
        return self.document.terminal

    @property
    def succeeded(self) -> bool:
        """Whether it has a result."""
        return self.document.succeeded

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self.document.progress

    @property
    def spec(self) -> Spec:
        """What was asked for."""
        return self.document.spec

    @property
    def result(self) -> Result | None:
        """What it made; None until it has succeeded."""
        return self.document.result

    @property
    def error(self) -> ErrorInfo | None:
        """Why it did not succeed; None until then."""
        return self.document.error


class JobHandle(JobView):
    """A job on a server; `refresh` and `wait` bring `document` up to date."""

    def __init__(self, client: Client, document: Job) -> None:
        super().__init__(document)
        self._client = client

    def refresh(self) -> Self:
        """Ask the server for the job as it is now."""
        self.document = self._client.get(self.id)
        return self

    def wait(self, timeout: float | None = None, on_change: OnChange | None = None) -> Self:
        """Return when the job has succeeded; see `Client.wait`."""

        def keep(job: Job) -> None:
            self.document = job
            if on_change is not None:
                on_change(job)

        self._client.wait(self.id, timeout, keep)
        return self

    def events(self, after: int = 0) -> Iterator[Event]:
        """Iterate over everything that happens until the job is finished."""
        return self._client.events(self.id, after)

    def cancel(self) -> Self:
        """Ask for its end."""
        self.document = self._client.cancel(self.id)
        return self

    def delete(self) -> None:
        """Forget it and its artifacts, once it is finished."""
        self._client.delete(self.id)

    def report(self) -> Report:
        """Return the evidence."""
        return self._client.report(self.id)

    def logs(self) -> str:
        """Return what its process printed so far."""
        return self._client.logs(self.id)

    def download(self, folder: FileSource, *names: str, progress: OnTransfer = ignore) -> Path:
        """Fetch artifacts into a folder; return the main model's path; see `Client.download`."""
        return self._client.download(self.id, folder, *names, progress=progress)
