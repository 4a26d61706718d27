"""OpenVINO IR: written from the ONNX file, nothing in it but the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from planish.contract.errors import MissingDependency
from planish.contract.recipe import Cast, Params, Quantize
from tests.conftest import ROOT
from tests.engine.passes.models import context, noise_splits, zoo_model
from worker.engine.measure.opened import Settings, open_model
from worker.engine.measure.reload import check_reload
from worker.engine.measure.runtime_graph_openvino import openvino_float_layers
from worker.engine.measure.size import file_bytes
from worker.engine.model import Model
from worker.engine.passes import entry_for, quantize
from worker.engine.save.openvino_ir import save_openvino

pytest.importorskip("openvino")


def int8(model: Model, **params: object) -> Model:
    splits = noise_splits(model, labels=False)
    asked = Quantize(**params)
    return quantize.run(model, asked, context(model, asked, splits=splits)).model


@pytest.mark.parametrize("name", ["small_residual_cnn", "tiny_transformer", "two_inputs"])
def test_a_float_ir_gives_the_models_outputs_at_any_batch(name: str, tmp_path: Path) -> None:
    model = zoo_model(name)
    save_openvino(model, tmp_path / "model.xml")
    network = open_model(tmp_path / "model.xml", Settings("openvino"))
    assert [spec.name for spec in network.inputs] == [spec.name for spec in model.inputs]
    assert network.precision == "float32"
    for batch in (1, 5):
        inputs = model.example(batch)
        with torch.no_grad():
            want = tree_leaves(model.module(*inputs))
        got = network.run([value.numpy() for value in inputs])
        for one, other in zip(want, got, strict=True):
            np.testing.assert_allclose(other, one.numpy(), atol=1e-5, rtol=1e-4)


def test_a_static_int8_ir_computes_in_integers(tmp_path: Path) -> None:
    original = zoo_model("small_residual_cnn")
    save_openvino(original, tmp_path / "float.xml")
    model = int8(original)
    save_openvino(model, tmp_path / "model.xml")
    assert openvino_float_layers(tmp_path / "model.xml") == ()
    assert len(openvino_float_layers(tmp_path / "float.xml")) >= 3
    assert check_reload(model, [tmp_path / "model.xml"], threads=1).ok


@pytest.mark.parametrize(
    ("params", "precisions"),
    [
        (Cast(dtype="bf16"), {"bfloat16", "float32"}),
        (Cast(dtype="fp16"), {"float16", "float32"}),
        (Quantize(mode="weight_only"), {"float32"}),
    ],
)
def test_what_other_passes_leave_is_written_too(
    params: Params, precisions: set[str], tmp_path: Path
) -> None:
    model = zoo_model("tiny_transformer")
    made = context(model, params, splits=noise_splits(model, labels=False))
    after = entry_for(params).run(model, params, made).model
    save_openvino(after, tmp_path / "model.xml")
    assert open_model(tmp_path / "model.xml", Settings("openvino")).precision in precisions
    assert check_reload(after, [tmp_path / "model.xml"], threads=1).ok


def test_the_ir_holds_no_traces_and_no_notes(tmp_path: Path) -> None:
    save_openvino(zoo_model("mlp"), tmp_path / "model.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    text = (tmp_path / "model.xml").read_text()
    assert not any(word in text for word in (".py", "/usr", "/home", "/tmp", "conversion", "\n\t"))
    assert text.count("rt_info") == 2  # the precision, and nothing else
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert file_bytes(tmp_path / "model.xml") == size


def test_without_openvino_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match=r"planish\[openvino\]"):
        save_openvino(zoo_model("mlp"), tmp_path / "model.xml")


def test_a_model_dropped_by_another_thread_leaves_signals_their_stack(tmp_path: Path) -> None:
    """A CPU plugin that goes takes the signal stack with it; the next SIGCHLD would kill us."""
    save_openvino(zoo_model("small_residual_cnn"), tmp_path / "model.xml")
    source = (
        "import signal, subprocess, sys, threading\n"
        "from pathlib import Path\n"
        "from worker.engine.save.standalone import load\n"
        "held = [load(Path(sys.argv[1]))]\n"
        "signal.signal(signal.SIGCHLD, lambda number, frame: None)\n"
        "thread = threading.Thread(target=held.clear)\n"
        "thread.start(), thread.join()\n"
        "subprocess.run(['true'])\n"
    )
    command = [sys.executable, "-c", source, str(tmp_path / "model.xml")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
