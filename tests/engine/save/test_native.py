"""Native code: asked for by name, allowed by the operator, refused where there is no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.contract.checks import check_native_code
from planish.contract.errors import MissingDependency, OutputNotAllowed
from planish.contract.validation import spec_from
from tests.exports import export_pt2
from tests.zoo import mlp
from worker.engine.pipeline import JobInputs, make_plan
from worker.engine.save.native import anonymous

SPEC = spec_from({"recipe": [{"op": "simplify"}], "outputs": ["onnx", "aotinductor"]})


def test_it_is_refused_unless_the_operator_allows_it() -> None:
    check_native_code(SPEC, allowed=True)
    check_native_code(SPEC.model_copy(update={"outputs": ("onnx",)}), allowed=False)
    with pytest.raises(OutputNotAllowed, match=r"PLANISH_NATIVE_CODE=allow") as refused:
        check_native_code(SPEC, allowed=False)
    assert 'Set outputs to ["onnx"]' in refused.value.detail
    assert [error.pointer for error in refused.value.errors] == ["/outputs"]


def test_a_worker_without_a_compiler_says_so_in_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = export_pt2(*mlp(), tmp_path / "a.pt2")
    assert make_plan(JobInputs(None, SPEC, model)).passes
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingDependency, match=r"install g\+\+"):
        make_plan(JobInputs(None, SPEC, model))


def test_paths_of_sources_are_overwritten_and_nothing_moves() -> None:
    library = (
        b"\x7fELF\x00/home/me/torch/include/utils.h\x00expected /tmp/x/net.cpp:12\x00/tmp/x\x00end"
    )
    clean = anonymous(library, b"/tmp/x")
    assert len(clean) == len(library)
    assert b"/home" not in clean
    assert b"/tmp" not in clean
    assert b"utils.h" in clean
    assert clean.endswith(b"\x00end")
