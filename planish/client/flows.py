"""Flows that both clients offer under one name; each is a few calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planish.client.calls import Call, cancel_job, get_job, list_files, list_jobs
from planish.client.exchange import Flow, emit
from planish.contract.job import FilePage, Job, JobPage

PAGE = 100

PageCall = Callable[[int, str | None], Call[JobPage] | Call[FilePage]]


def cancel(job_id: str) -> Flow[Job]:
    """Ask for the end of a job; return it as it is then.

    Raises:
        AlreadyTerminal: it was finished before.
    """
    yield from cancel_job(job_id).run()
    return (yield from get_job(job_id).run())


def each_job(status: str | None, labels: Mapping[str, str], limit: int | None) -> Flow[None]:
    """Emit jobs, newest first, over as many pages as it takes; at most `limit`."""
    return _each(lambda size, after: list_jobs(status, labels, size, after), limit)


def each_file(limit: int | None) -> Flow[None]:
    """Emit uploaded files, newest first; at most `limit`."""
    return _each(list_files, limit)


def _each(page_of: PageCall, limit: int | None) -> Flow[None]:
    after, left = None, limit
    while left is None or left > 0:
        page = yield from page_of(PAGE if left is None else min(left, PAGE), after).run()
        for item in page.items:
            yield from emit(item)
        if left is not None:
            left -= len(page.items)
        after = page.next
        if after is None or not page.items:
            return
