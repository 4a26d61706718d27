"""Zip files: what torch and numpy write is read, everything else is refused."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from planish.contract.errors import InvalidData, InvalidModel, PlanishError
from planish.gate.archive import read_archive
from planish.gate.identify import identify_model
from tests.hostile.fuzz.zips import Member, write_zip


def _zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_members_of_a_torch_file_are_read_with_their_checksums(pt2: Path) -> None:
    ours = read_archive(pt2, InvalidModel)
    with zipfile.ZipFile(pt2) as theirs:
        assert set(ours.entries) == set(theirs.namelist())
        for name in theirs.namelist():
            assert ours.read(name, 1 << 20) == theirs.read(name)


def test_compressed_members_are_read_where_allowed_and_refused_elsewhere(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    path = _zip(tmp_path / "a.zip", [("a", content)], zipfile.ZIP_DEFLATED)
    assert read_archive(path, InvalidData, allow_deflate=True).read("a", 1 << 22) == content
    with pytest.raises(InvalidModel, match="compressed"):
        read_archive(path, InvalidModel)


def test_sizes_beyond_32_bits_in_the_zip64_extra_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"content")
    assert read_archive(path, InvalidModel).read("a", 100) == b"content"


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a\\b", "a\x01b", "./a", ""])
def test_names_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        archive.writestr(info, b"x")
    with pytest.raises(InvalidModel):
        read_archive(path, InvalidModel)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = _zip(tmp_path / "a.zip", [("a", b"1"), ("a", b"2")])
    with pytest.raises(InvalidModel, match="twice"):
        read_archive(path, InvalidModel)


def test_two_directory_entries_for_the_same_bytes_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", [("a", b"same"), ("b", b"same")])
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\x01\x02")
    second = raw.index(b"PK\x01\x02", first + 1)
    struct.pack_into("<L", raw, second + 42, 0)
    path.write_bytes(raw)
    with pytest.raises(InvalidModel, match="overlap"):
        read_archive(path, InvalidModel)


def test_a_local_header_that_says_something_else_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", [("honest", b"1234")])
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"honest", b"liar!!", 1))
    with pytest.raises(InvalidModel, match="two things"):
        read_archive(path, InvalidModel)


def test_bytes_before_or_after_the_archive_are_refused(tmp_path: Path) -> None:
    raw = _zip(tmp_path / "a.zip", [("a", b"1")]).read_bytes()
    for content in (b"GIF89a" + raw, raw + b"\x00"):
        (tmp_path / "b.zip").write_bytes(content)
        with pytest.raises(InvalidModel):
            read_archive(tmp_path / "b.zip", InvalidModel)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", [("a", b"1")])
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(InvalidModel, match="encrypted"):
        read_archive(path, InvalidModel)


def test_a_changed_byte_of_a_member_is_found(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", [("a", b"content")])
    path.write_bytes(path.read_bytes().replace(b"content", b"c0ntent", 1))
    with pytest.raises(InvalidModel, match="checksum"):
        read_archive(path, InvalidModel).read("a", 100)


def test_a_bomb_unpacks_to_its_declared_size_and_no_further(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", [("a", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", raw, raw.index(mark) + place, 1000)
    path.write_bytes(raw)
    archive = read_archive(path, InvalidData, allow_deflate=True)
    assert sum(map(len, archive.chunks(archive.entries["a"]))) == 1000
    with pytest.raises(InvalidData, match="checksum"):
        archive.read("a", 1 << 20)


@pytest.mark.parametrize("kind", ["pt2", "checkpoint", "npz"])
def test_a_file_cut_anywhere_is_refused(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "npz":
        whole = tmp_path / "whole.npz"
        np.savez(whole, inputs=np.zeros((20, 3)), targets=np.zeros(20, int))
    else:
        whole = request.getfixturevalue(kind)
    raw = whole.read_bytes()
    for share in range(1, 41):
        cut = tmp_path / "cut"
        cut.write_bytes(raw[: len(raw) * share // 41])
        with pytest.raises(PlanishError):
            read_archive(cut, InvalidModel)
        with pytest.raises(PlanishError):
            identify_model(cut)


def test_two_end_records_that_disagree_are_refused(tmp_path: Path) -> None:
    members = [Member(b"a", b"1"), Member(b"b", b"2")]
    (tmp_path / "same.zip").write_bytes(write_zip(members, wide=True))
    assert len(read_archive(tmp_path / "same.zip", InvalidModel).entries) == 2
    (tmp_path / "other.zip").write_bytes(write_zip(members, {"count": 1}, wide=True))
    with pytest.raises(InvalidModel, match="two end records"):
        read_archive(tmp_path / "other.zip", InvalidModel)


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    size = {"size": 1 << 30}
    bomb = Member(b"a", bytes(1 << 20), deflated=True, local=size, central=size)
    (tmp_path / "a.zip").write_bytes(write_zip([bomb]))
    with pytest.raises(InvalidData, match="at most 200 times"):
        read_archive(tmp_path / "a.zip", InvalidData, allow_deflate=True)
