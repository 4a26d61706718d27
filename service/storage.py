"""Files that the service fetches from a storage, for specs that name a URL instead of an id.

Off unless the operator lists prefixes (``PLANISH_STORAGE_URLS``). A URL decides nothing but bucket
and key below such a prefix: endpoint, region and credentials come from the environment of this
process (``AWS_*``) alone, so no spec can make the service speak to an address of its choice. What
arrives is a file like any other: same limits, shares, digests and gate.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from planish.contract.errors import (
    DigestMismatch,
    PlanishError,
    StorageUnreadable,
    StorageUrlNotAllowed,
    TooLarge,
    Unavailable,
)
from planish.contract.storage import StorageUrl
from planish.store.blobs import Blobs
from service.upload import FileSink

if TYPE_CHECKING:
    from obstore import BytesStream
    from obstore.store import S3Store

log = logging.getLogger("planish.service")

ENDPOINT = "AWS_ENDPOINT_URL"
TENANT = "{tenant}"
PIECE = 1 << 20
CONNECT_SECONDS, SILENT_SECONDS, WHOLE_HOURS = 5, 30, 24
TRIES, RETRY_SECONDS = 2, 10
ADVICE = "upload the file, or ask the operator (PLANISH_STORAGE_URLS)"

CountBytes = Callable[[int], None]


class Storage:
    """Fetches what the operator has allowed.

    Args:
        prefixes: like ``s3://models/``; ``{tenant}`` stands for who is asking.
        limit: bytes of one file.
    """

    def __init__(self, prefixes: tuple[str, ...], limit: int) -> None:
        self._prefixes, self._limit = prefixes, limit
        self._stores: dict[str, S3Store] = {}
        self._under_way: dict[tuple[str, StorageUrl], asyncio.Task[str]] = {}
        self._stopping = threading.Event()

    def check(self, wanted: StorageUrl, tenant: str) -> None:
        """Refuse what is not below a prefix of this tenant; raises StorageUrlNotAllowed."""
        if not self._prefixes:
            raise StorageUrlNotAllowed(f"this service fetches nothing from a storage; {ADVICE}")
        if not any(wanted.url.startswith(p.replace(TENANT, tenant)) for p in self._prefixes):
            raise StorageUrlNotAllowed(
                f"{wanted.url} is not where files may be taken from; {ADVICE}"
            )

    async def fetch(self, wanted: StorageUrl, tenant: str, blobs: Blobs, count: CountBytes) -> str:
        """Return the id of the file at a URL; the same request twice fetches it once.

        Args:
            wanted: where it lies; with its sha256, a file that is here is not fetched again.
            tenant: who is asking.
            blobs: their files.
            count: counts the bytes against their share.

        Raises:
            StorageUrlNotAllowed, StorageUnreadable, TooLarge, DigestMismatch, QuotaExceeded.
            Unavailable: the storage does not answer.
        """
        self.check(wanted, tenant)
        known = f"sha256:{wanted.sha256}"
        if wanted.sha256 and await asyncio.to_thread(blobs.size, known) is not None:
            return known
        key = (tenant, wanted)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._copy, wanted, blobs, count))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._over(key, done))
        return await asyncio.shield(task)

    def stop(self) -> None:
        """End what is under way; in the event loop."""
        self._stopping.set()

    def _over(self, key: tuple[str, StorageUrl], task: asyncio.Task[str]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # those who waited have it; without any it is nobody's

    def _copy(self, wanted: StorageUrl, blobs: Blobs, count: CountBytes) -> str:
        """Stream an object into the tenant's files, in a thread."""
        size, stream = self._open(wanted)
        if size > self._limit:
            raise TooLarge(f"{wanted.url} has {size} bytes; at most {self._limit} are taken")
        count(size)
        sink = FileSink(blobs.new_upload())
        try:
            for piece in self._pieces(wanted, stream):
                if sink.size + len(piece) > size:
                    raise StorageUnreadable(f"{wanted.url} has more bytes than it states")
                sink.write(piece)
            if sink.size != size or not size:
                raise StorageUnreadable(f"{wanted.url}: {sink.size} bytes came of {size}")
            if wanted.sha256 not in (None, sink.sha256):
                raise DigestMismatch(
                    f"{wanted.url}: sha256 {wanted.sha256} is stated, but what arrived has "
                    f"{sink.sha256}"
                )
            return blobs.keep(sink.upload, sink.sha256, sink.size, wanted.name)
        finally:
            blobs.abandon(sink.upload)

    def _open(self, wanted: StorageUrl) -> tuple[int, BytesStream]:
        import obstore  # the extra s3; `ServiceSettings` has looked

        with _told(wanted):
            found = obstore.get(self._store(wanted.bucket), wanted.key)
            return found.meta["size"], found.stream(min_chunk_size=PIECE)

    def _pieces(self, wanted: StorageUrl, stream: BytesStream) -> Iterator[memoryview]:
        while True:
            if self._stopping.is_set():
                raise Unavailable("the service stops; send it again")
            with _told(wanted):
                piece = next(stream, None)
            if piece is None:
                return
            yield memoryview(piece)

    def _store(self, bucket: str) -> S3Store:
        from obstore.store import S3Store

        if bucket not in self._stores:
            self._stores[bucket] = S3Store(
                bucket,
                client_options={
                    # an endpoint without TLS is the operator's own word
                    "allow_http": os.environ.get(ENDPOINT, "").startswith("http://"),
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    "read_timeout": timedelta(seconds=SILENT_SECONDS),
                    "timeout": timedelta(hours=WHOLE_HOURS),
                },
                retry_config={
                    "max_retries": TRIES,
                    "retry_timeout": timedelta(seconds=RETRY_SECONDS),
                },
            )
        return self._stores[bucket]


@contextmanager
def _told(wanted: StorageUrl) -> Iterator[None]:
    """Turn what the storage's client raises into errors of ours.

    Its texts are neither shown nor logged: answers of a storage can name keys and addresses.
    """
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except PlanishError:
        raise
    except FileNotFoundError:
        raise StorageUnreadable(f"there is nothing at {wanted.url}") from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise StorageUnreadable(
            f"the storage does not let this service read {wanted.url}"
        ) from None
    except (BaseError, ValueError, OSError) as error:
        log.warning("fetching from the bucket %s failed: %s", wanted.bucket, type(error).__name__)
        raise Unavailable(f"the storage does not give {wanted.url} now; try again") from None
