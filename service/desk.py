"""What the routes work with: the store, the queue and the upload threads of one API process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial

import redis
from starlette.requests import Request

from planish.contract.errors import Unavailable
from planish.contract.job import JobStatus
from planish.contract.storage import StorageUrl
from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE
from planish.store.audit import Audit
from planish.store.blobs import Blobs, TenantBlobs
from planish.store.connection import connect, connect_async
from planish.store.denied import DeniedFiles
from planish.store.follow import EventHub
from planish.store.job_files import JobFiles
from planish.store.jobs import Ledger
from planish.store.keys import Keys
from planish.store.outbox import Outbox
from planish.store.pipe import Pipe
from planish.store.quota import Quotas
from planish.store.recovery import Recovery
from service.auth import Gatekeeper
from service.links import Links
from service.metrics import Metrics
from service.principal import principal_of
from service.queue import Doorbell
from service.settings import ServiceSettings, is_loopback
from service.shares import ReadShare, count_upload
from service.storage import Storage
from service.webhooks.postman import Postman

THREADS = 32


class Desk:
    """One for each app. `open` and `close` belong to the app's event loop."""

    def __init__(self, settings: ServiceSettings) -> None:
        store = settings.store
        self.settings = settings
        self.blobs = TenantBlobs(store.data_dir)
        self.keys = Keys(store.data_dir)
        self.audit = Audit(store.data_dir)
        self.gate = Gatekeeper(
            self.keys, settings.api_key, open_without_keys=is_loopback(settings.host)
        )
        self.files = JobFiles(store.data_dir)
        self.denied = DeniedFiles(store.data_dir)
        client = connect(store.redis_url)
        self.ledger = Ledger(client)
        self.quotas = Quotas(client)
        self.reads = ReadShare(settings.shares.reads_per_minute)
        self.pipe = Pipe(store.redis_url)
        self.doorbell = Doorbell(store.redis_url)
        self.metrics = Metrics()
        self.upload_pool = ThreadPoolExecutor(settings.max_uploads, "upload")
        self.background: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(THREADS, "desk")
        self._slots = asyncio.Semaphore(settings.max_uploads)
        self.leaving = asyncio.Event()
        self.links = Links(store.data_dir)
        self.storage = Storage(settings.storage, settings.max_upload_bytes)
        self.outbox = Outbox(client, self.files)
        self._postman = Postman(self.outbox, self.files, store.data_dir, settings.webhooks)
        self._recovery = Recovery(self.ledger, self.files, self.doorbell.ring, self.blobs)

    async def open(self) -> None:
        """Start what runs beside the requests."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self._threads)
        self.hub = EventHub(connect_async(self.settings.store.redis_url, blocking=True))
        self.metrics.watch(self._gauges)
        self._recovery.start()
        self._postman.start()
        loop.run_in_executor(None, self.doorbell.warm)
        gc.freeze()  # what is loaded by now stays; no collection needs to walk it again

    async def leave(self) -> None:
        """End the open streams: their clients come back to another process, or later."""
        self.leaving.set()
        self.storage.stop()
        await self.hub.close()

    async def close(self) -> None:
        """Stop it; plans that nobody waits for any more are left to recovery."""
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        await self.leave()
        self.pipe.close()
        await asyncio.to_thread(self._recovery.stop)
        await asyncio.to_thread(self._postman.stop)
        self.doorbell.close()
        self.upload_pool.shutdown(wait=False, cancel_futures=True)

    async def owner_of(self, job_id: str) -> str | None:
        """Return the tenant of a job, None when there is no such job."""
        with suppress(ConnectionError):
            found = await self.pipe.owned(job_id)
            if found is not None:
                return found[1]
        record = await asyncio.to_thread(self.files.spec, job_id)
        return None if record is None else record.tenant

    def blobs_of(self, request: Request) -> Blobs:
        """Return the files of whoever is asking."""
        return self.blobs.of(principal_of(request).tenant)

    def count_upload(self, request: Request, size: int) -> None:
        """Count bytes against the share of whoever is asking; raises QuotaExceeded. In a thread."""
        tenant = principal_of(request).tenant
        count_upload(self.quotas, self.settings.shares, tenant, size)

    async def fetch(self, request: Request, wanted: StorageUrl) -> str:
        """Return the id of a file that lies in a storage; see `Storage.fetch`."""
        async with self.upload_slot():
            return await self.storage.fetch(
                wanted,
                principal_of(request).tenant,
                self.blobs_of(request),
                partial(self.count_upload, request),
            )

    @asynccontextmanager
    async def upload_slot(self) -> AsyncIterator[None]:
        """Hold one of the places for bodies that are being received.

        Raises:
            Unavailable: all are taken.
        """
        if self._slots.locked():
            raise Unavailable(
                f"{self.settings.max_uploads} uploads are under way, which is all that are taken "
                "at a time; try again"
            )
        async with self._slots:
            yield

    def _gauges(self) -> dict[str, dict[str, float]]:
        """Return current values for /metrics; without Redis there are none."""
        try:
            counts = self.ledger.counts()
            workers = self.ledger.fleet().workers
        except redis.RedisError:
            return {}
        return {
            "jobs": {status.value: counts.get(status, 0) for status in JobStatus},
            "workers": {queue: sum(queue in w.queues for w in workers) for queue in _QUEUES},
            "queue_length": {q: n for q in _QUEUES if (n := self.doorbell.length(q)) is not None},
        }


_QUEUES = (JOB_QUEUE, PLAN_QUEUE)


def desk_of(request: Request) -> Desk:
    """Return the desk of the app that serves this request."""
    desk: Desk = request.app.state.desk
    return desk
