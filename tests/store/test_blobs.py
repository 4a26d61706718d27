"""Uploaded files: kept once, private, listed, never half there."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from planish.contract.errors import InvalidParameter, NotFound
from planish.store.blobs import Blobs


def keep(blobs: Blobs, content: bytes, name: str | None = None) -> str:
    upload = blobs.new_upload()
    os.write(upload.fd, content)
    return blobs.keep(upload, hashlib.sha256(content).hexdigest(), len(content), name)


def everything(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_a_kept_file_has_its_contents_name_and_is_private(tmp_path: Path, blobs: Blobs) -> None:
    file_id = keep(blobs, b"weights", "../../resnet.pt2")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert file_id == f"sha256:{digest}"
    path = blobs.path(file_id)
    assert path.read_bytes() == b"weights"
    assert path.parent.parent.parent == tmp_path / "blobs"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    info = blobs.info(file_id)
    assert info is not None
    assert (info.id, info.size, info.name) == (file_id, 7, "../../resnet.pt2")
    assert blobs.size(file_id) == 7


def test_the_same_content_is_kept_once_under_its_first_name(tmp_path: Path, blobs: Blobs) -> None:
    first = keep(blobs, b"same", "first")
    before = blobs.path(first).stat()
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda n: keep(blobs, b"same", f"n{n}"), range(32)))
    assert ids == {first}
    assert blobs.path(first).stat().st_ino == before.st_ino
    info = blobs.info(first)
    assert info is not None
    assert info.name == "first"
    assert len(everything(tmp_path)) == 2, "the content and its name, no temporary file"


def test_an_abandoned_upload_leaves_nothing(tmp_path: Path, blobs: Blobs) -> None:
    upload = blobs.new_upload()
    os.write(upload.fd, b"half")
    blobs.abandon(upload)
    blobs.abandon(upload)
    assert everything(tmp_path) == []


def test_a_short_upload_is_refused_and_gone(tmp_path: Path, blobs: Blobs) -> None:
    upload = blobs.new_upload()
    os.write(upload.fd, b"half")
    with pytest.raises(OSError, match="4 bytes, not 5"):
        blobs.keep(upload, "0" * 64, 5)
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    "file_id", ["", "sha256:", "sha256:../../etc/passwd", f"sha256:{'A' * 64}", f"{'0' * 64}"]
)
def test_what_is_no_file_id_names_no_path(blobs: Blobs, file_id: str) -> None:
    with pytest.raises(NotFound):
        blobs.path(file_id)
    assert blobs.size(file_id) is None
    assert blobs.info(file_id) is None
    assert not blobs.delete(file_id)


def test_deleted_files_are_gone_with_their_names(tmp_path: Path, blobs: Blobs) -> None:
    file_id = keep(blobs, b"x", "x.npz")
    assert blobs.delete(file_id)
    assert not blobs.delete(file_id)
    assert blobs.size(file_id) is None
    assert everything(tmp_path) == []


def test_pages_list_all_files_newest_first(blobs: Blobs) -> None:
    made = []
    for number in range(5):
        made.append(keep(blobs, b"%d" % number))
        os.utime(blobs.path(made[-1]), (number, number))
    first = blobs.list(limit=2)
    second = blobs.list(limit=2, after=first.next)
    third = blobs.list(limit=2, after=second.next)
    pages = (first, second, third)
    assert [item.id for page in pages for item in page.items] == made[::-1]
    assert third.next is None
    with pytest.raises(InvalidParameter):
        blobs.list(after="sha256:unknown")


def test_stale_uploads_are_those_not_written_for_long(blobs: Blobs) -> None:
    old, fresh = blobs.new_upload(), blobs.new_upload()
    os.utime(old.path, (1000, 1000))
    assert list(blobs.stale_uploads(2000.0)) == [old.path]
    for upload in (old, fresh):
        blobs.abandon(upload)
