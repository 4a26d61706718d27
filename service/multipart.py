"""``multipart/form-data`` of ``POST /jobs`` and ``POST /plans``, streamed: parts in any order.

File parts go to the writer thread as slices of the received chunks; only the small ``spec`` part
stays in memory. `FormReader` does no I/O but opening files; `receive_form` feeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from planish.contract.errors import BadRequest, InvalidInput, MissingPart, TooLarge
from planish.contract.parts import MAX_PARTS, PART_NAME_PATTERN, is_part_name, repeated
from planish.contract.problem import FieldError
from planish.contract.spec import PARTS, Spec
from planish.contract.validation import MAX_SPEC_BYTES, parse_spec
from planish.store.blobs import Blobs
from service.digest import check_digests, stated_digests
from service.upload import EndSink, FileSink, HashSink, Received, Sink, Writer, chunks

SPEC_PART = "spec"
FILE_PARTS = PARTS
KNOWN_PARTS = (SPEC_PART, *FILE_PARTS)


@dataclass(frozen=True)
class Form:
    """A request body that has arrived whole; its files are not kept yet.

    Attributes:
        spec: its ``spec`` part.
        files: by role, in the order of arrival; several files of one role all have names.
    """

    spec: Spec
    files: dict[str, tuple[Received, ...]] = field(default_factory=dict)

    def received(self) -> Iterator[Received]:
        """Yield all files."""
        return (file for files in self.files.values() for file in files)

    def abandon(self, blobs: Blobs) -> None:
        """Remove the files that nobody kept."""
        for received in self.received():
            blobs.abandon(received.upload)


class MemorySink:
    """The ``spec`` part, capped."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`; raises TooLarge."""
        self.content += data
        if len(self.content) > MAX_SPEC_BYTES:
            raise TooLarge(
                f"the spec part is larger than the {MAX_SPEC_BYTES} bytes that are taken"
            )


@dataclass
class _Part:
    name: str
    sink: MemorySink | FileSink
    filename: str | None
    stated: dict[str, str]


class FormReader:
    """Turns chunks into writes: `feed` yields ``(sink, slice)`` pairs for the writer thread."""

    def __init__(self, boundary: bytes, open_file: Callable[[], FileSink]) -> None:
        self.parts: dict[str, list[_Part]] = {}
        self.spec: Spec | None = None
        self._open_file = open_file
        self._headers: dict[str, str] = {}
        self._field = self._value = b""
        self._part: _Part | None = None
        self._writes: list[tuple[Sink, memoryview]] = []
        self._ended = False
        self._parser = _parser(boundary, self)

    def feed(self, chunk: bytes) -> Iterator[tuple[Sink, memoryview]]:
        """Parse a chunk; return what it adds to the file parts.

        Raises:
            BadRequest: not multipart, a part without a name, or one that is there twice under one
                file name or without any.
            InvalidInput: a part that is not known.
            InvalidSpec, DigestMismatch: of the spec part.
            TooLarge: the spec part is too large.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"the multipart body is malformed: {error}") from None
        writes, self._writes = self._writes, []
        return iter(writes)

    def close(self) -> None:
        """Check that the closing boundary came; raises BadRequest."""
        if not self._ended:
            raise BadRequest("the multipart body ends before its closing boundary")

    def sinks(self) -> Iterator[FileSink]:
        """Yield the open file sinks."""
        every = (part.sink for parts in self.parts.values() for part in parts)
        return (sink for sink in every if isinstance(sink, FileSink))

    # Parser callbacks

    def begin(self) -> None:
        """A part begins."""
        self._headers, self._field, self._value, self._part = {}, b"", b"", None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value."""
        self._value += data[start:end]

    def header_end(self) -> None:
        """A header is complete."""
        self._headers[self._field.lower().decode("latin-1")] = self._value.decode("latin-1")
        self._field = self._value = b""

    def headers_finished(self) -> None:
        """All headers of the part are there: open its sink."""
        name, filename = _disposition(self._headers)
        earlier = self.parts.setdefault(name, [])
        if earlier:
            _check_together(name, [*(part.filename for part in earlier), filename])
        stated = stated_digests(self._headers)
        sink = MemorySink() if name == SPEC_PART else self._open_file()
        self._part = _Part(name, sink, filename, stated)
        earlier.append(self._part)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of the part's content."""
        if self._part is None:
            return
        if isinstance(self._part.sink, MemorySink):
            self._part.sink.write(data[start:end])
        else:
            self._writes.append((self._part.sink, memoryview(data)[start:end]))

    def part_end(self) -> None:
        """A part is complete. A spec that cannot work is refused before gigabytes follow it."""
        if self._part is None:
            return
        if isinstance(self._part.sink, MemorySink):
            self.spec = _spec(self._part.stated, bytes(self._part.sink.content))
        else:
            self._writes.append((EndSink(self._part.sink), memoryview(b"")))

    def end(self) -> None:
        """The closing boundary came."""
        self._ended = True


def _parser(boundary: bytes, reader: FormReader) -> MultipartParser:
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_field,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.headers_finished,
                "on_part_data": reader.part_data,
                "on_part_end": reader.part_end,
                "on_end": reader.end,
            },
        )
    except FormParserError as error:
        raise BadRequest(f"the multipart boundary is not valid: {error}") from None


def _disposition(headers: dict[str, str]) -> tuple[str, str | None]:
    kind, options = parse_options_header(headers.get("content-disposition"))
    raw = options.get(b"name")
    if kind != b"form-data" or raw is None:
        raise BadRequest("each part needs a header Content-Disposition: form-data; name=…")
    name = raw.decode("utf-8", "replace")
    if name not in KNOWN_PARTS:
        raise _unknown_part(name)
    filename = options.get(b"filename")
    return name, _base_name(filename.decode("utf-8", "replace")) if filename else None


def _base_name(filename: str) -> str:
    """Drop the folders that some clients send along."""
    return filename.replace("\\", "/").rpartition("/")[2]


def _check_together(role: str, names: list[str | None]) -> None:
    """Check the names of several files of one role; raises BadRequest."""
    if role == SPEC_PART or None in names:
        raise BadRequest(
            f"the part {role!r} is there twice; parts with files may repeat where each has a "
            "filename"
        )
    given = [name for name in names if name is not None]
    if len(given) > MAX_PARTS:
        raise BadRequest(f"the part {role!r} comes more often than the {MAX_PARTS} times allowed")
    wrong = next((name for name in given if not is_part_name(name)), None)
    if wrong is not None:
        raise BadRequest(
            f"the part {role!r} comes several times, and the filename {wrong[:200]!r} does not "
            f"match {PART_NAME_PATTERN}"
        )
    if (twice := repeated(given)) is not None:
        raise BadRequest(f"the part {role!r} with the filename {twice!r} is there twice")


def _unknown_part(name: str) -> InvalidInput:
    detail = f"the part {name[:100]!r} is not known; known parts: {', '.join(KNOWN_PARTS)}"
    return InvalidInput(detail, (FieldError(pointer=f"/{name[:100]}", detail=detail),))


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a multipart content type; raises BadRequest when it has none."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise BadRequest("Content-Type: multipart/form-data needs a boundary")
    return boundary


async def receive_form(
    receive: Receive,
    boundary: bytes,
    stated: dict[str, str],
    blobs: Blobs,
    pool: ThreadPoolExecutor,
    limit: int,
) -> Form:
    """Receive a whole form onto the disk.

    Args:
        receive: the ASGI callable.
        boundary: of the parts.
        stated: digests that the request states for the whole body.
        blobs: gives the temporary files.
        pool: gives the writer thread.
        limit: bytes of the whole body.

    Raises:
        PlanishError: see `FormReader.feed`; DigestMismatch; MissingPart when spec is absent or a
            file is empty. Nothing is left behind then, nor when the client goes or the disk is
            full.
    """
    reader = FormReader(boundary, lambda: FileSink(blobs.new_upload()))
    whole = HashSink() if stated else None
    writer = Writer(pool)
    try:
        async for chunk in chunks(receive, limit):
            if whole is not None:
                await writer.put(whole, chunk)
            for sink, piece in reader.feed(chunk):
                await writer.put(sink, piece)
        await writer.finish()
        reader.close()
        if whole is not None:
            check_digests(stated, whole.sha256, "the body")
        return _form(reader)
    except BaseException:
        await writer.stop()
        for file in reader.sinks():
            blobs.abandon(file.upload)
        raise


def _spec(stated: dict[str, str], content: bytes) -> Spec:
    if stated:
        digest = HashSink()
        digest.write(content)
        check_digests(stated, digest.sha256, f"the part {SPEC_PART!r}")
    return parse_spec(content)


def _form(reader: FormReader) -> Form:
    files = {
        role: tuple(_received(part, part.sink) for part in parts if isinstance(part.sink, FileSink))
        for role, parts in reader.parts.items()
        if role != SPEC_PART
    }
    if reader.spec is None:
        raise missing_part(SPEC_PART, "the part 'spec' (JSON) is missing")
    return Form(reader.spec, files)


def _received(part: _Part, sink: FileSink) -> Received:
    check_digests(part.stated, sink.sha256, f"the part {part.name!r}")
    if sink.size == 0:
        raise missing_part(part.name, f"the part {part.name!r} is empty")
    return Received(sink.upload, sink.sha256, sink.size, part.filename)


def missing_part(name: str, detail: str) -> MissingPart:
    """Return the error for a part that is absent or empty."""
    return MissingPart(detail, (FieldError(pointer=f"/{name}", detail=detail),))
