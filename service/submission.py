"""From a request body to an accepted job: receive, gate, keep the files, then the job.

The order makes a 202 a promise: files durable → SPEC.json durable → ledger → doorbell. When Redis
is away after SPEC.json, the job is accepted all the same; recovery puts it into the ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

import redis
from starlette.requests import Request

from planish.contract.checks import check_native_code, check_resources
from planish.contract.errors import (
    InvalidParameter,
    InvalidSpec,
    MissingPart,
    UnsupportedMedia,
)
from planish.contract.problem import FieldError
from planish.contract.spec import Files, NamedFile, Spec
from planish.contract.storage import Place, StorageUrl, put_ids, take_urls
from planish.contract.validation import MAX_SPEC_BYTES, parse_json, spec_from
from planish.contract.wire import (
    HEADER_IDEMPOTENCY_KEY,
    MAX_IDEMPOTENCY_KEY,
    PREFIX_PLAN,
)
from planish.gate.check import check_upload
from planish.gate.parts import Part, Parts, Source
from planish.store.blobs import Blobs
from planish.store.ids import new_id
from planish.store.records import SpecRecord, queue_of
from service.desk import Desk
from service.digest import check_digests, stated_digests
from service.multipart import Form, boundary_of, missing_part, receive_form
from service.principal import principal_of
from service.shares import check_live_jobs
from service.upload import Received, begun, check_length, small_body
from service.webhooks.guard import check_url

log = logging.getLogger("planish.service")

MULTIPART = "multipart/form-data"
JSON = "application/json"


async def receive_spec(desk: Desk, request: Request) -> Spec:
    """Return a spec whose files are kept and look right.

    Raises:
        PlanishError: what is wrong with the request; nothing of it is kept then.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == MULTIPART:
        spec = await _from_form(desk, request)
    elif kind == JSON:
        spec = await _from_json(desk, request)
    else:
        raise UnsupportedMedia(
            f"Content-Type {kind[:100]!r} is not taken; send {MULTIPART} or {JSON}"
        )
    return spec


async def _from_form(desk: Desk, request: Request) -> Spec:
    limit = desk.settings.max_upload_bytes
    check_length(request.headers.get("content-length"), limit)
    boundary = boundary_of(request.headers["content-type"])
    stated = stated_digests(request.headers)
    blobs = desk.blobs_of(request)
    receive = await begun(request.receive)
    async with desk.upload_slot():
        form = await receive_form(receive, boundary, stated, blobs, desk.upload_pool, limit)
        size = sum(file.size for file in form.received())
        desk.metrics.upload_bytes += size
        try:
            await asyncio.to_thread(desk.count_upload, request, size)
            return await asyncio.to_thread(_keep_form, desk, blobs, form)
        finally:
            form.abandon(blobs)


def _keep_form(desk: Desk, blobs: Blobs, form: Form) -> Spec:
    spec = form.spec
    if spec.files is not None:
        detail = (
            "with multipart/form-data the file parts are the files; leave files out of the spec"
        )
        raise InvalidSpec(detail, (FieldError(pointer="/files", detail=detail),))
    if "model" not in form.files:
        raise missing_part("model", "the part 'model' is missing; it carries the model file")
    _look(desk, spec, {role: _arrived(files) for role, files in form.files.items()})
    kept = {role: _kept(blobs, files) for role, files in form.files.items()}
    return spec.model_copy(update={"files": Files.model_validate(kept)})


def _arrived(files: tuple[Received, ...]) -> Source:
    """Return where the files of one role lie for now."""
    if len(files) == 1:
        return files[0].upload.path
    return Parts(tuple(Part(file.name or "", file.upload.path) for file in files))


def _kept(blobs: Blobs, files: tuple[Received, ...]) -> str | list[dict[str, str]]:
    """Make the files of one role durable; return their ids, with names where there are several."""
    ids = [blobs.keep(file.upload, file.sha256, file.size, file.name) for file in files]
    if len(files) == 1:
        return ids[0]
    return [{"id": i, "name": file.name or ""} for i, file in zip(ids, files, strict=True)]


async def _from_json(desk: Desk, request: Request) -> Spec:
    check_length(request.headers.get("content-length"), MAX_SPEC_BYTES)
    raw = await small_body(request.receive, MAX_SPEC_BYTES)
    stated = stated_digests(request.headers)
    if stated:
        check_digests(stated, hashlib.sha256(raw).hexdigest(), "the body")
    document, urls = take_urls(parse_json(raw))
    spec = spec_from(document)
    if urls:
        spec = await _fetched(desk, request, document, urls)
    await asyncio.to_thread(_look, desk, spec, _paths(desk.blobs_of(request), spec))
    return spec


async def _fetched(
    desk: Desk, request: Request, document: object, urls: dict[Place, StorageUrl]
) -> Spec:
    """Return a spec with the ids of the files that its URLs name; all are checked before any."""
    tenant = principal_of(request).tenant
    for wanted in urls.values():
        desk.storage.check(wanted, tenant)
    ids = {place: await desk.fetch(request, wanted) for place, wanted in urls.items()}
    return spec_from(put_ids(document, ids))


def _paths(blobs: Blobs, spec: Spec) -> dict[str, Source]:
    """Return where the named files lie; raises MissingPart or InvalidSpec."""
    if spec.files is None:
        detail = 'a JSON body needs files: {"model": "sha256:…"}; POST /files gives the ids'
        raise MissingPart(detail, (FieldError(pointer="/files/model", detail=detail),))
    unknown = [(at, i) for at, i in spec.files.pointers() if blobs.size(i) is None]
    if unknown:
        errors = tuple(
            FieldError(pointer=at, detail=f"there is no file {file_id}; POST /files first")
            for at, file_id in unknown
        )
        raise InvalidSpec("; ".join(e.detail for e in errors), errors)
    return {role: _stored(blobs, uploaded) for role, uploaded in spec.files.given().items()}


def _stored(blobs: Blobs, uploaded: str | tuple[NamedFile, ...]) -> Source:
    """Return where the files of one role lie."""
    if isinstance(uploaded, str):
        return blobs.path(uploaded)
    return Parts(tuple(Part(file.name, blobs.path(file.id)) for file in uploaded))


def _look(desk: Desk, spec: Spec, paths: Mapping[str, Source]) -> None:
    """Refuse what can be refused without running anything."""
    if spec.webhook is not None:
        check_url(spec.webhook.url, desk.settings.webhooks)
    if spec.resources.gpus or spec.resources.nodes > 1:
        meets = desk.settings.rendezvous is not None
        check_resources(spec, desk.ledger.fleet().gpus_max, rendezvous=meets)
    check_native_code(spec, allowed=desk.settings.native_code)
    check_upload(spec, paths)


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key of a request.

    Raises:
        InvalidParameter: empty, too long, or with characters outside printable ASCII.
    """
    key = request.headers.get(HEADER_IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not (0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable()):
        raise InvalidParameter(
            f"{HEADER_IDEMPOTENCY_KEY}: needs 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters"
        )
    return key


def accept(desk: Desk, spec: Spec, tenant: str, kind: str = "job", key: str | None = None) -> str:
    """Make a tenant's job (or plan) of a checked spec; return its id. In a thread: two fsyncs.

    Raises:
        IdempotencyKeyReused: the key belongs to a job with another spec or other files.
        FileDenied: a file has broken the sandbox too often.
        QuotaExceeded: the tenant has as many live jobs as it may have.
        OSError: the disk is full; there is no job then.
    """
    check_live_jobs(desk.quotas, desk.settings.shares, tenant)
    digest = _request_sha256(spec)
    job_id = fresh = new_id(kind)
    if key is not None:
        job_id = desk.files.claim_key(key, digest, job_id, tenant)
    if job_id == fresh and spec.files is not None:
        desk.denied.check(spec.files, tenant)
    record = SpecRecord.model_validate(
        {
            "id": job_id,
            "kind": kind,
            "created_at": datetime.now(UTC),
            "spec": spec,
            "request_sha256": digest,
            "idempotency_key": key,
            "tenant": tenant,
        }
    )
    if not desk.files.put_spec(job_id, record):
        record = desk.files.spec(job_id) or record
    try:
        if desk.ledger.submit(record):
            desk.doorbell.ring(job_id, queue_of(job_id))
    except redis.RedisError as error:
        if job_id.startswith(PREFIX_PLAN):
            raise
        log.warning("%s is accepted, but not yet in the ledger: %s", job_id, error)
    return job_id


def _request_sha256(spec: Spec) -> str:
    """Return the digest of everything that was asked for; the files are in it by their sha256."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
