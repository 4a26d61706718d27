from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.contract.errors import BadRequest, PlanishError
from planish.contract.spec import PARTS
from planish.store.blobs import Blobs
from service.multipart import FormReader
from service.upload import FileSink
from tests.service.conftest import SPEC

BOUNDARY = b"bound-ary"
# contents that look like boundaries, headers and line ends
TRICKY = st.lists(
    st.sampled_from(
        [b"\r\n", b"--", b"\r", b"\n", BOUNDARY, b"--" + BOUNDARY[:-1], b"a: b", b"\x00"]
    )
    | st.binary(max_size=40),
    max_size=20,
).map(b"".join)


def body(parts: list[tuple[str, bytes]]) -> bytes:
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    return b"".join(head % (BOUNDARY, n.encode(), c) for n, c in parts) + b"--%s--\r\n" % BOUNDARY


def read(chunks: list[bytes], folder: Path) -> dict[str, bytes]:
    """The content of each file part, after feeding the chunks."""
    blobs = Blobs(folder)
    reader = FormReader(BOUNDARY, lambda: FileSink(blobs.new_upload()))
    try:
        for chunk in chunks:
            for sink, piece in reader.feed(chunk):
                sink.write(piece)
        reader.close()
        assert reader.spec is not None
        return {
            name: part.sink.upload.path.read_bytes()
            for name, (part,) in reader.parts.items()
            if isinstance(part.sink, FileSink)
        }
    finally:
        for sink in reader.sinks():
            blobs.abandon(sink.upload)


def split(whole: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % len(whole) for cut in cuts}), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=150, deadline=None)
@given(
    contents=st.dictionaries(st.sampled_from(PARTS), TRICKY),
    place=st.integers(0, 4),
    cuts=st.lists(st.integers(0, 10_000), max_size=60),
)
def test_contents_do_not_depend_on_how_the_body_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    contents: dict[str, bytes],
    place: int,
    cuts: list[int],
) -> None:
    clean = {n: c for n, c in contents.items() if b"\r\n--" + BOUNDARY not in b"\r\n" + c}
    parts = list(clean.items())
    parts.insert(place, ("spec", json.dumps(SPEC).encode()))
    folder = tmp_path_factory.mktemp("form")
    assert read(split(body(parts), cuts), folder) == clean


@settings(max_examples=150, deadline=None)
@given(
    whole=st.binary(max_size=300)
    | st.tuples(st.binary(max_size=60), st.integers(0, 200)).map(
        lambda t: body([("spec", json.dumps(SPEC).encode()), ("model", b"x")])[: t[1]] + t[0]
    )
)
def test_noise_is_refused_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    with pytest.raises(PlanishError) as caught:
        read([whole], folder)
    assert caught.value.status < 500
    assert list((folder / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    "part",
    [
        b"--%s\r\n\r\nno header\r\n" % BOUNDARY,
        b"--%s\r\nContent-Disposition: attachment; name=model\r\n\r\nx\r\n" % BOUNDARY,
        b"--%s\r\nContent-Disposition: form-data\r\n\r\nx\r\n" % BOUNDARY,
        b"--%s\r\nX: %s\r\n\r\nx\r\n" % (BOUNDARY, b"y" * 100_000),
        b"--%s\r\n%s\r\nx\r\n" % (BOUNDARY, b"X: y\r\n" * 1000),
    ],
)
def test_bad_part_headers_are_malformed(tmp_path: Path, part: bytes) -> None:
    with pytest.raises(BadRequest):
        read([part + b"--%s--\r\n" % BOUNDARY], tmp_path)
