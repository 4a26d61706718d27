"""Zip files that say different things to different readers, or lie about their sizes."""

from __future__ import annotations

import struct
from dataclasses import replace

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import HARMLESS, Upload, data, hostile, model
from tests.hostile.fuzz import seeds
from tests.hostile.fuzz.zips import Member, write_zip


def package(*more: Member, **options: object) -> Upload:
    """Return an exported program with members beside it."""
    return model(write_zip([*seeds.members(seeds.pt2()), *more], **options))


def first_changed(**changes: object) -> Upload:
    """Return an exported program whose first member has other headers."""
    first, *rest = seeds.members(seeds.pt2())
    return model(write_zip([replace(first, **changes), *rest]))


@hostile("invalid_model")
def deflated_member(canary: Canary) -> Upload:
    """torch never compresses; a bomb must."""
    return first_changed(deflated=True)


@hostile("invalid_data")
def deflate_bomb(canary: Canary) -> Upload:
    """A megabyte that says it becomes 400 of them."""
    size = {"size": 400 << 20}
    return data(write_zip([Member(b"inputs.npy", bytes(1 << 20), True, size, size)]))


@hostile("invalid_data")
def deflate_that_goes_on(canary: Canary) -> Upload:
    """More comes out than the header says."""
    members = [replace(m, local={"size": 140}, central={"size": 140}) for m in
               seeds.members(seeds.npz(compressed=True))]  # fmt: skip
    return data(write_zip(members))


@hostile("invalid_model")
def members_that_overlap(canary: Canary) -> Upload:
    """The directory leads to the same bytes twice."""
    return package(Member(b"archive/again", b"x", central={"header": 0}))


@hostile("invalid_model")
def member_named_twice(canary: Canary) -> Upload:
    """The first or the last: readers differ."""
    return package(Member(b"archive/archive_format", b"pt2"))


@hostile("invalid_model")
def local_name_differs(canary: Canary) -> Upload:
    """The directory and the member's own header disagree on its name."""
    return first_changed(local_name=b"archive/other")


@hostile("invalid_model")
def local_size_differs(canary: Canary) -> Upload:
    """They disagree on its size."""
    return first_changed(local={"size": 1, "packed": 1})


@hostile("invalid_model")
def local_method_differs(canary: Canary) -> Upload:
    """They disagree on its compression."""
    return first_changed(local={"method": 8})


@hostile("invalid_model")
def encrypted_member(canary: Canary) -> Upload:
    """Marked as encrypted in both places."""
    return first_changed(local={"flags": 1}, central={"flags": 1})


@hostile("invalid_model")
def unknown_compression(canary: Canary) -> Upload:
    """LZMA."""
    return first_changed(local={"method": 14}, central={"method": 14})


@hostile("invalid_model")
def checksum_differs(canary: Canary) -> Upload:
    """The bytes of a weight are not what the directory says."""
    return first_changed(local={"crc": 1}, central={"crc": 1})


@hostile("invalid_model")
def member_outside_the_file(canary: Canary) -> Upload:
    """A header far beyond the end."""
    return package(Member(b"archive/far", b"x", central={"header": 0xFFFFFFF0}))


@hostile("invalid_model")
def member_of_exabytes(canary: Canary) -> Upload:
    """A 64-bit size of 2^63 in the extra field."""
    extra = struct.pack("<HHQQ", 1, 16, 1 << 63, 1 << 63)
    full = {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF}
    return package(Member(b"archive/big", b"x", central=full, extra=extra))


@hostile("invalid_model")
def wide_size_is_missing(canary: Canary) -> Upload:
    """The size is said to be in an extra field that is not there."""
    return package(Member(b"archive/big", b"x", central={"size": 0xFFFFFFFF}))


@hostile("invalid_model")
def two_end_records_disagree(canary: Canary) -> Upload:
    """The 64-bit end record counts other members than the plain one."""
    return package(end={"count": 3}, wide=True)


@hostile("invalid_model")
def directory_is_elsewhere(canary: Canary) -> Upload:
    """The end record points into the members."""
    return package(end={"start": 0})


@hostile("invalid_model")
def directory_of_gigabytes(canary: Canary) -> Upload:
    """The end record claims a directory larger than the file."""
    return package(end={"length": 0xFFFFFFF0})


@hostile("invalid_model")
def archive_in_the_comment(canary: Canary) -> Upload:
    """A whole second archive where the comment is: one reader sees this, one the other."""
    return package(comment=write_zip([Member(b"archive/data.pkl", b".")]))


@hostile("invalid_model")
def end_record_in_the_comment(canary: Canary) -> Upload:
    """Readers that search backwards find a second end."""
    return package(comment=b"PK\x05\x06" + bytes(18))


@hostile("invalid_model", "unknown_model_format")
def bytes_before_the_archive(canary: Canary) -> Upload:
    """A picture and an archive in one."""
    return model(b"GIF89a" + seeds.pt2())


@hostile("invalid_model")
def bytes_after_the_archive(canary: Canary) -> Upload:
    """Whatever stands behind the end."""
    return model(seeds.pt2() + b"\x00" * 8)


@hostile("invalid_model")
def archive_of_two_disks(canary: Canary) -> Upload:
    """The rest is on another disk."""
    return first_changed(central={"disk": 1})


@hostile("invalid_model")
def too_many_members(canary: Canary) -> Upload:
    """A hundred thousand empty members."""
    return package(*(Member(b"archive/%d" % i, b"") for i in range(20_001)))


def _named(name: bytes) -> Upload:
    return package(Member(name, b"x"))


@hostile("invalid_model")
def name_climbs(canary: Canary) -> Upload:
    """Zip slip."""
    return _named(b"archive/../../../tmp/x")


@hostile("invalid_model")
def name_is_absolute(canary: Canary) -> Upload:
    """An absolute path."""
    return _named(str(canary.file).encode())


@hostile("invalid_model")
def name_with_backslashes(canary: Canary) -> Upload:
    """A path of another system."""
    return _named(b"archive\\..\\..\\x")


@hostile("invalid_model")
def name_with_a_zero_byte(canary: Canary) -> Upload:
    """The name ends for C and goes on for Python."""
    return _named(b"archive/x\x00.json")


@hostile("invalid_model")
def name_that_turns_around(canary: Canary) -> Upload:
    """A right-to-left override shows another ending."""
    return _named("archive/\u202egpj.exe".encode())


@hostile("invalid_model")
def name_is_no_text(canary: Canary) -> Upload:
    """Not UTF-8."""
    return _named(b"archive/\xff\xfe")


@hostile("invalid_model")
def name_of_kilobytes(canary: Canary) -> Upload:
    """Longer than any file system takes."""
    return _named(b"archive/" + b"a" * 5_000)


@hostile("invalid_model")
def name_outside_the_root(canary: Canary) -> Upload:
    """A second root folder."""
    return _named(b"other/file")


@hostile(HARMLESS)
def member_is_a_symbolic_link(canary: Canary) -> Upload:
    """Archives are never unpacked, so a link is a name like any other."""
    return package(Member(b"archive/link", b"/etc/passwd", central={"version": 20}))


@hostile(HARMLESS)
def archive_in_an_archive(canary: Canary) -> Upload:
    """A member that is an archive is not opened."""
    return package(Member(b"archive/inner.zip", seeds.pt2()))


@hostile("invalid_model")
def cut_short(canary: Canary) -> Upload:
    """The last kilobyte is missing."""
    return model(seeds.pt2()[:-1000])


@hostile("unsafe_model")
def torchscript(canary: Canary) -> Upload:
    """A program in TorchScript."""
    members = {b"m/data.pkl": b".", b"m/constants.pkl": b".", b"m/code/__torch__.py": b"import os"}
    return model(write_zip([Member(name, content) for name, content in members.items()]))


@hostile("unknown_model_format")
def keras_archive(canary: Canary) -> Upload:
    """A .keras file, whose config names classes to call."""
    return model(write_zip([Member(b"config.json", b"{}"), Member(b"model.weights.h5", b"x")]))


@hostile("unknown_model_format", "unsafe_model")
def torchserve_archive(canary: Canary) -> Upload:
    """A .mar file is Python."""
    members = [Member(b"MAR-INF/MANIFEST.json", b"{}"), Member(b"handler.py", b"import os")]
    return model(write_zip(members))
