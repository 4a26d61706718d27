"""Whatever the bytes are, the answer is a result or an error of the contract."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planish.contract.errors import InvalidInput
from planish.contract.spec import Architecture, ModelSpec, Spec
from planish.gate.check import check_upload
from tests.gate.files import QUICK, STATIC

QUIETLY = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
STARTS = (b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"GGUF")
ANY = Spec(
    recipe=QUICK.recipe,
    model=ModelSpec(architecture=Architecture(library="planish", name="cifar_resnet")),
)


@QUIETLY
@given(st.sampled_from(STARTS), st.binary(max_size=400))
def test_random_bytes_are_refused(tmp_path: Path, start: bytes, rest: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(start + rest)
    for spec in (QUICK, ANY):
        with pytest.raises(InvalidInput):
            check_upload(spec, {"model": path})


@QUIETLY
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.binary())
def test_random_safetensors_headers_are_refused_or_read(
    tmp_path: Path, pt2: Path, header: object, body: bytes
) -> None:
    raw = repr(header).encode()
    path = tmp_path / "any"
    for text in (raw, b'{"x":' + raw + b"}"):
        path.write_bytes(len(text).to_bytes(8, "little") + text + body)
        with pytest.raises(InvalidInput):
            check_upload(ANY, {"model": path})
        with pytest.raises(InvalidInput):
            check_upload(QUICK, {"model": pt2, "data": path})


@pytest.mark.parametrize("kind", ["pt2", "checkpoint"])
def test_flipped_bits_of_a_model_are_refused_or_harmless(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    raw = request.getfixturevalue(kind).read_bytes()
    spec, pick = (QUICK if kind == "pt2" else ANY), random.Random(0)
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(pick.choice((1, 1, 8))):
            changed[pick.randrange(len(changed))] ^= 1 << pick.randrange(8)
        (tmp_path / "any").write_bytes(changed)
        with contextlib.suppress(InvalidInput):
            check_upload(spec, {"model": tmp_path / "any"})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bits_of_data_are_refused_or_harmless(tmp_path: Path, pt2: Path, save) -> None:
    save(tmp_path / "a.npz", x=np.zeros((20, 8, 8)), targets=np.arange(20) % 10)
    raw, pick = (tmp_path / "a.npz").read_bytes(), random.Random(0)
    for _ in range(150):
        changed = bytearray(raw)
        changed[pick.randrange(len(changed))] ^= 1 << pick.randrange(8)
        (tmp_path / "any").write_bytes(changed)
        with contextlib.suppress(InvalidInput):
            check_upload(STATIC, {"model": pt2, "data": tmp_path / "any"})


def test_a_model_cut_anywhere_is_refused(pt2: Path, checkpoint: Path, tmp_path: Path) -> None:
    for whole, spec in ((pt2, QUICK), (checkpoint, ANY)):
        raw = whole.read_bytes()
        for share in range(31):
            (tmp_path / "any").write_bytes(raw[: len(raw) * share // 31])
            with pytest.raises(InvalidInput):
                check_upload(spec, {"model": tmp_path / "any"})
