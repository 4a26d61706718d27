"""Fetches artifacts: resumes, compares the sha256, and shows a file only when it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from planish.client.calls import get_job, job_path
from planish.client.exchange import (
    Flow,
    Reply,
    Request,
    drain,
    open_stream,
    read_chunk,
    sleep,
    work,
)
from planish.client.failures import check
from planish.client.retry import RETRY_STATUS, TRIES, pause, retry_after
from planish.client.transfer import OnTransfer, Transfer
from planish.contract.errors import (
    FileInUse,
    NotFinished,
    NotFound,
    RangeNotSatisfiable,
    ServerUnreachable,
    VerificationFailed,
)
from planish.contract.job import Artifact

READ_BYTES = 1 << 20
_PLAIN_NAME = re.compile(r"^(?!\.)[^/\\\x00-\x1f]{1,200}$")


def download(job_id: str, folder: Path, names: tuple[str, ...], progress: OnTransfer) -> Flow[Path]:
    """Fetch the artifacts of a succeeded job into a folder; return the main model's path.

    Files that are there already with the right content are left alone; partial ones are resumed.

    Args:
        job_id: the job.
        folder: made when missing.
        names: artifacts to fetch; empty for all.
        progress: told after each piece.

    Raises:
        NotFinished: the job has no result.
        NotFound: it has no artifact of a given name.
        VerificationFailed: the content stays wrong, or a name is no plain file name.
    """
    job = yield from get_job(job_id).run()
    if job.result is None:
        raise NotFinished(f"{job_id} is {job.status}; only a succeeded job has artifacts")
    known = {artifact.name: artifact for artifact in job.result.artifacts}
    for name in names:
        if name not in known:
            raise NotFound(f"{job_id} has no artifact {name!r}; it has {', '.join(known)}")
    yield from work(lambda: folder.mkdir(parents=True, exist_ok=True))
    for name in names or tuple(known):
        yield from fetch(job_id, known[name], folder, progress)
    return folder / job.result.model


def fetch(job_id: str, artifact: Artifact, folder: Path, progress: OnTransfer) -> Flow[Path]:
    """Fetch one artifact; see `download`."""
    if not _PLAIN_NAME.match(artifact.name):
        raise VerificationFailed(f"the server names an artifact {artifact.name!r}; not written")
    final = folder / artifact.name
    if (yield from work(lambda: _has(final, artifact))):
        progress(Transfer(artifact.name, "present", artifact.size, artifact.size))
        return final
    partial = Partial(folder / f".{artifact.name}.{artifact.sha256[:16]}.part")
    try:
        yield from work(partial.open)
        yield from _fill(job_id, artifact, partial, progress)
        if (yield from work(partial.sha256)) != artifact.sha256:
            # A partial file of an interrupted run may have been torn by a crash: once from scratch.
            yield from work(lambda: partial.cut(0))
            yield from _fill(job_id, artifact, partial, progress)
        if (yield from work(partial.sha256)) != artifact.sha256:
            yield from work(partial.remove)
            raise VerificationFailed(
                f"{artifact.name}: what arrived does not have the sha256 {artifact.sha256} that "
                "the job states; something on the way changes it"
            )
        yield from work(lambda: partial.publish(final))
    finally:
        partial.close()
    return final


class Partial:
    """A file that is not whole yet, kept between runs under a name that carries its content."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._digest = hashlib.sha256()
        self.size = 0

    def open(self) -> None:
        """Open it, and take what is there into the digest.

        Raises:
            FileInUse: another download writes it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileInUse(f"another download is writing {self._path}") from None
        self._take_in()

    def writer(self, piece: bytes) -> Callable[[], None]:
        """Return the work of appending a piece."""
        return lambda: self._write(piece)

    def _write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self.size += len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def cut(self, size: int) -> None:
        """Shorten it to `size` bytes, and read those again."""
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._take_in()

    def sha256(self) -> str:
        """Return the hex digest of what is there."""
        return self._digest.hexdigest()

    def publish(self, final: Path) -> None:
        """Make it durable and give it its name, at once."""
        os.fsync(self._fd)
        os.replace(self._path, final)

    def remove(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the descriptor; the file stays for the next run."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take_in(self) -> None:
        self._digest, self.size = hashlib.sha256(), 0
        while piece := os.read(self._fd, READ_BYTES):
            self._digest.update(piece)
            self.size += len(piece)


def _fill(job_id: str, artifact: Artifact, partial: Partial, progress: OnTransfer) -> Flow[None]:
    """Read until the partial file has the artifact's size; a broken connection is resumed.

    Raises:
        ServerUnreachable: several times in a row nothing arrived.
    """
    if partial.size > artifact.size:
        yield from work(lambda: partial.cut(0))
    failures = 0
    while partial.size < artifact.size:
        before = partial.size
        try:
            yield from _read_on(job_id, artifact, partial, progress)
        except (ServerUnreachable, RangeNotSatisfiable) as error:
            failures = failures + 1 if partial.size <= before else 0
            if failures >= TRIES:
                raise
            if isinstance(error, RangeNotSatisfiable):
                yield from work(lambda: partial.cut(0))
            yield from sleep(pause(failures))


def _read_on(job_id: str, artifact: Artifact, partial: Partial, progress: OnTransfer) -> Flow[None]:
    request = _request(job_id, artifact, partial.size)
    reply = yield from open_stream(request)
    if reply.status >= HTTPStatus.BAD_REQUEST:
        yield from _refused(request, reply)
    if reply.status != HTTPStatus.PARTIAL_CONTENT:
        yield from work(lambda: partial.cut(0))
    elif _start_of(reply) != partial.size:
        raise ServerUnreachable(f"{request.name}: another range came than was asked for")
    while piece := (yield from read_chunk()):
        yield from work(partial.writer(piece))
        progress(Transfer(artifact.name, "download", partial.size, artifact.size))
        if partial.size >= artifact.size:
            return
    if partial.size < artifact.size:
        raise ServerUnreachable(f"{request.name}: the answer ended early")


def _refused(request: Request, reply: Reply) -> Flow[None]:
    body = yield from drain()
    whole = Reply(reply.status, reply.headers, body)
    if reply.status in RETRY_STATUS:
        yield from sleep(retry_after(reply) or 0.0)
        raise ServerUnreachable(f"{request.name} was answered {reply.status}")
    check(request, whole)


def _request(job_id: str, artifact: Artifact, start: int) -> Request:
    headers = {}
    if start:
        headers = {"Range": f"bytes={start}-", "If-Range": f'"{artifact.sha256}"'}
    return Request("GET", job_path(job_id, "artifacts", artifact.name), headers=headers)


def _start_of(reply: Reply) -> int:
    match = re.match(r"bytes (\d+)-", reply.headers.get("content-range", ""))
    return int(match[1]) if match else -1


def _has(path: Path, artifact: Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
