"""Entity tags tell what the client has already (RFC 9110, section 13)."""

from __future__ import annotations

import hashlib

from starlette.responses import Response


def etag_of(body: bytes) -> bytes:
    """Return a strong entity tag of a small body."""
    return b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Tell whether an ``If-None-Match`` header names `etag` (weak comparison)."""
    if if_none_match == etag:
        return True
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return b"*" in tags or etag in tags


def conditional_json(body: bytes, if_none_match: str | None, headers: dict[str, str]) -> Response:
    """Return 200 with the JSON body, or 304 when the client has it."""
    etag = etag_of(body)
    all_headers = {"etag": etag.decode(), "cache-control": "private, no-cache", **headers}
    if if_none_match is not None and matches(if_none_match.encode("latin-1"), etag):
        return Response(status_code=304, headers=all_headers)
    return Response(body, headers=all_headers, media_type="application/json")
