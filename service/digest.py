"""Digests that a client states for what it sends (RFC 9530), and those that we state."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from planish.contract.errors import DigestMismatch, InvalidParameter

_ITEM = re.compile(r"^\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):\s*$")
_HEX = re.compile(r"^[0-9a-fA-F]{64}$")
DIGEST_HEADERS = ("repr-digest", "content-digest")
HEX_HEADER = "x-content-sha256"


def stated_digests(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the sha256 that each digest header states, by header name, in hex.

    Other algorithms are ignored, as RFC 9530 asks.

    Args:
        headers: names in lower case.

    Raises:
        InvalidParameter: a header that is not well-formed.
    """
    stated = {}
    for name in DIGEST_HEADERS:
        if (value := headers.get(name)) is not None and (digest := _sha256_of(name, value)):
            stated[name] = digest
    if (value := headers.get(HEX_HEADER)) is not None:
        if not _HEX.match(value.strip()):
            raise InvalidParameter(f"{HEX_HEADER}: needs 64 hex digits")
        stated[HEX_HEADER] = value.strip().lower()
    return stated


def check_digests(stated: Mapping[str, str], sha256: str, what: str) -> None:
    """Compare what was stated with what arrived.

    Raises:
        DigestMismatch: they differ.
    """
    for name, expected in stated.items():
        if expected != sha256:
            raise DigestMismatch(
                f"{what}: {name} states sha256 {expected}, but what arrived has {sha256}; "
                "send it again"
            )


def repr_digest(sha256: str) -> str:
    """Return a ``Repr-Digest`` value for a hex digest."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _sha256_of(name: str, value: str) -> str | None:
    found = None
    for item in value.split(","):
        match = _ITEM.match(item)
        if match is None:
            raise InvalidParameter(f"{name}: not a digest like sha-256=:<base64>:")
        if match[1] == "sha-256":
            found = _hex(name, match[2])
    return found


def _hex(name: str, text: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise InvalidParameter(f"{name}: sha-256 needs the base64 of 32 bytes")
    return raw.hex()
