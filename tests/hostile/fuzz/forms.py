"""Multipart bodies and tus headers, changed."""

from __future__ import annotations

import atexit
import base64
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from planish.store.blobs import TenantBlobs
from service import tus
from service.digest import stated_digests
from service.multipart import FormReader, boundary_of
from service.upload import FileSink
from tests.hostile.fuzz.documents import mutate_json
from tests.hostile.fuzz.plain import mutate_bytes, number, text
from tests.hostile.fuzz.seeds import SPEC

BOUNDARY = b"----planish"
NAMES = ("spec", "model", "data", "test_data", "teacher", "student", "files", "Model")


def mutate_form(rng: Random) -> bytes:
    """Return a content type, a zero byte, and a body that belongs to it or nearly."""
    parts = [
        ("spec", None, json.dumps(SPEC).encode()),
        ("model", "m.pt2", b"PK\x03\x04" + bytes(40)),
    ]
    parts += [("data", "d.npz", bytes(20))] if rng.random() < 0.5 else []
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(parts))
        name, filename, content = parts[at]
        kind = rng.randrange(6)
        if kind == 0:
            parts[at] = (rng.choice((*NAMES, text(rng))), filename, content)
        elif kind == 1:
            parts[at] = (name, rng.choice((None, text(rng), "a/" + text(rng))), content)
        elif kind == 2:
            parts.insert(rng.randrange(len(parts) + 1), parts[at])
        elif kind == 3:
            changed = mutate_json(rng, SPEC) if name == "spec" else mutate_bytes(rng, content)
            parts[at] = (name, filename, changed)
        elif kind == 4 and len(parts) > 1:
            del parts[at]
        else:
            parts += parts[:1] * rng.choice((1, 70))
    body = b"".join(_part(*part) for part in parts) + b"--" + BOUNDARY + b"--\r\n"
    if rng.random() < 0.4:
        body = mutate_bytes(rng, body)
    kind = b"multipart/form-data; boundary=" + BOUNDARY
    if rng.random() < 0.1:
        kind = mutate_bytes(rng, kind).replace(b"\x00", b"")
    return kind + b"\x00" + body


def _part(name: str, filename: str | None, content: bytes) -> bytes:
    words = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = b"Content-Disposition: " + words.encode("utf-8", "surrogatepass")
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


@cache
def _sinks() -> list[FileSink]:
    """Two files for all runs; the reader may open more."""
    blobs = TenantBlobs(scratch_folder()).of("default")
    return [FileSink(blobs.new_upload()) for _ in range(2)]


@cache
def scratch_folder() -> Path:
    """Return a folder that lies in memory where that is possible, removed at the end."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = tempfile.mkdtemp(prefix="planish-fuzz-", dir=memory)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def feed_form(raw: bytes) -> None:
    """Read a body as the front desk does, in chunks of sizes that the body decides."""
    kind, _, body = raw.partition(b"\x00")
    reader = FormReader(boundary_of(kind.decode("latin-1")), lambda: _sinks()[0])
    step = 1 + sum(body[:64]) % 700
    for at in range(0, len(body), step):
        for _sink, piece in reader.feed(body[at : at + step]):
            bytes(piece)
    reader.close()


def mutate_tus(rng: Random) -> bytes:
    """Return headers as JSON, one of them changed."""
    digest = base64.b64encode(bytes(32)).decode()
    headers = {
        "tus-resumable": "1.0.0",
        "upload-length": "100",
        "upload-offset": "0",
        "upload-metadata": "filename " + base64.b64encode(b"m.pt2").decode() + ",x",
        "upload-checksum": f"sha256 {digest}",
        "repr-digest": f"sha-256=:{digest}:",
        "content-digest": f"sha-256=:{digest}:, sha-512=:AA==:",
    }
    for _ in range(rng.choice((1, 2, 3))):
        key = rng.choice(list(headers))
        value = headers[key]
        changed = mutate_bytes(rng, value.encode()).decode("latin-1")
        headers[key] = rng.choice((text(rng), str(number(rng)), changed, changed, value * 2, " "))
    return json.dumps(headers).encode()


def feed_tus(raw: bytes) -> None:
    """Read headers as the routes of uploads do."""
    headers: dict[str, str] = json.loads(raw)
    tus.check_version(headers)
    tus.upload_length(headers, 1 << 40)
    tus.whole_number(headers, "upload-offset")
    tus.file_name(headers)
    tus.checksum(headers)
    stated_digests(headers)
