"""The words of tus 1.0 (https://tus.io/protocols/resumable-upload): headers in, headers out."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from planish.contract.errors import InvalidParameter, TooLarge, UnsupportedTusVersion

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,termination,checksum"
ALGORITHMS = ("sha256", "sha1")
OFFSET_TYPE = "application/offset+octet-stream"
FILE_ID = "upload-file-id"
RESUMABLE = {"tus-resumable": VERSION}


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one request must hash to."""

    algorithm: str
    digest: bytes

    def new(self) -> hashlib._Hash:
        """Return a fresh hash of this algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def check_version(headers: Mapping[str, str]) -> None:
    """Refuse requests of another protocol version.

    Raises:
        UnsupportedTusVersion: the header is missing or names another version.
    """
    if headers.get("tus-resumable") != VERSION:
        raise UnsupportedTusVersion(f"send the header Tus-Resumable: {VERSION}")


def whole_number(headers: Mapping[str, str], name: str) -> int:
    """Return a header that counts bytes.

    Raises:
        InvalidParameter: missing, or not a whole number.
    """
    text = headers.get(name, "")
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidParameter(f"{name}: needs a whole number of bytes; got {text[:50]!r}")
    return int(text)


def upload_length(headers: Mapping[str, str], limit: int) -> int:
    """Return the length of the whole file.

    Raises:
        InvalidParameter: missing or zero; deferred lengths are not taken.
        TooLarge: above `limit`.
    """
    length = whole_number(headers, "upload-length")
    if length == 0:
        raise InvalidParameter("upload-length: an empty file is of no use")
    if length > limit:
        raise TooLarge(f"the file has {length} bytes; at most {limit} are taken")
    return length


def file_name(headers: Mapping[str, str]) -> str | None:
    """Return the ``filename`` (or ``name``) of Upload-Metadata, at most 255 characters."""
    pairs: dict[str, str] = {}
    for item in headers.get("upload-metadata", "").split(","):
        key, _, value = item.strip().partition(" ")
        try:
            pairs[key] = base64.b64decode(value, validate=True).decode()
        except ValueError:
            raise InvalidParameter(
                f"upload-metadata: the value of {key[:50]!r} is not base64 of UTF-8"
            ) from None
    name = pairs.get("filename") or pairs.get("name")
    return name[:255] if name else None


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Return what Upload-Checksum states, None without the header; raises InvalidParameter."""
    text = headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise InvalidParameter(f"upload-checksum: use one of {', '.join(ALGORITHMS)}")
    try:
        digest = base64.b64decode(value, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise InvalidParameter(f"upload-checksum: not the base64 of a {algorithm}")
    return Checksum(algorithm, digest)


def expires(moment: datetime) -> str:
    """Return a date as Upload-Expires has it (RFC 9110)."""
    return format_datetime(moment, usegmt=True)
