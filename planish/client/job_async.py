"""A job in the hands of asyncio code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from planish.client.job import JobView
from planish.client.sources import FileSource
from planish.client.transfer import OnTransfer, ignore
from planish.client.wait import OnChange
from planish.contract.job import Event, Job
from planish.contract.report import Report

if TYPE_CHECKING:
    from planish.client.asynchronous import AsyncClient


class AsyncJobHandle(JobView):
    """A job on a server; the same methods as `JobHandle`, awaited."""

    def __init__(self, client: AsyncClient, document: Job) -> None:
        super().__init__(document)
        self._client = client

    async def refresh(self) -> Self:
        """Ask the server for the job as it is now."""
        self.document = await self._client.get(self.id)
        return self

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the job outlives it, and the error says so
        on_change: OnChange | None = None,
    ) -> Self:
        """Return when the job has succeeded; see `AsyncClient.wait`."""

        def keep(job: Job) -> None:
            self.document = job
            if on_change is not None:
                on_change(job)

        await self._client.wait(self.id, timeout, keep)
        return self

    def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Iterate (``async for``) over everything that happens until the job is finished."""
        return self._client.events(self.id, after)

    async def cancel(self) -> Self:
        """Ask for its end."""
        self.document = await self._client.cancel(self.id)
        return self

    async def delete(self) -> None:
        """Forget it and its artifacts, once it is finished."""
        await self._client.delete(self.id)

    async def report(self) -> Report:
        """Return the evidence."""
        return await self._client.report(self.id)

    async def logs(self) -> str:
        """Return what its process printed so far."""
        return await self._client.logs(self.id)

    async def download(
        self, folder: FileSource, *names: str, progress: OnTransfer = ignore
    ) -> Path:
        """Fetch artifacts into a folder; return the main model's path."""
        return await self._client.download(self.id, folder, *names, progress=progress)
