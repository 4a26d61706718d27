"""The real converter in its lock: what comes out is the same model and data, in our own form."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from safetensors.torch import load_file

from planish.contract.columns import Columns
from planish.contract.spec import ModelSpec, Spec
from planish.gate.arrays import read_headers
from planish.gate.inputs import architecture_inputs
from tests import zoo
from tests.exports import export_pt2, save_state_dict
from tests.onnx_exports import export_onnx
from tests.worker.conftest import House
from worker.engine.load import load_model
from worker.engine.load.architectures.build import build_network
from worker.exchange import Request
from worker.launcher import Launcher
from worker.lifeline import Lifeline
from worker.sandbox.order import ORDER, Answer, Limits, Order, Role
from worker.sandbox.outcome import read_answer, replaced
from worker.settings import WorkerSettings
from worker.supervisor import Answer as Done
from worker.supervisor import Supervisor

RECIPE = {"recipe": [{"op": "simplify"}]}
LIMITS = Limits(seconds=120, cpu_seconds=120, memory=4 << 30, output=1 << 30)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture
def opened(zygote: Launcher, tmp_path: Path) -> Callable[..., tuple[Answer | None, Order, int]]:
    """Open a file in the sandbox; give answer, order and exit code."""

    def convert(source: Path | list[dict[str, object]], role: Role = "model", **changes: object):
        folder = tmp_path / f"open-{role}"
        for path in (folder, folder / "result", folder / "spare"):
            path.mkdir(mode=0o700)
        content = {"spec": Spec.model_validate(RECIPE), "limits": LIMITS, **changes}
        order = Order.model_validate(
            {"role": role, "source": source, "folder": folder, "threads": 1, "guarded": True}
            | content
        )
        (folder / ORDER).write_text(order.model_dump_json())
        log = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        child = zygote.launch(str(folder / ORDER), log, opens=True)
        os.close(log)
        code = child.wait(120)
        child.close()
        assert code is not None
        return read_answer(order.result), order, code

    return convert


def test_pt2_comes_out_without_anything_but_its_graph_and_tensors(opened, tmp_path: Path) -> None:
    module, example = zoo.small_residual_cnn()
    upload = export_pt2(module, example, tmp_path / "model.pt2")
    answer, order, _ = opened(upload)
    assert answer is not None
    assert answer.error is None, answer.error
    assert [item.name for item in answer.inputs] == ["x"]
    written = replaced(order, answer.converted, None)
    names = zipfile.ZipFile(written).namelist()
    assert not any("sample_inputs" in name or "extra" in name for name in names)
    ours = load_model(written, order.spec.model).module
    with torch.no_grad():
        torch.testing.assert_close(ours(*example), module(*example))
    assert written.stat().st_mode & 0o777 == 0o400


def test_checkpoint_comes_out_as_safetensors_of_the_same_tensors(opened, tmp_path: Path) -> None:
    described = ModelSpec.model_validate({"architecture": RESNET})
    module = build_network(architecture_inputs(described)[0])
    upload = save_state_dict(module, tmp_path / "weights.pt")
    spec = {**RECIPE, "model": {"format": "state_dict", "architecture": RESNET}}
    answer, order, _ = opened(upload, spec=Spec.model_validate(spec))
    assert answer is not None
    assert answer.converted == "model.safetensors", answer
    found = load_file(replaced(order, answer.converted, None))
    assert found.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(found[name], value), name


RESNET = {"library": "planish", "name": "cifar_resnet", "config": {"depth": 8}}


def test_checkpoint_of_names_that_are_not_taken_is_refused_and_breaks_nothing(
    opened, tmp_path: Path
) -> None:
    torch.save({"a\nweight": torch.zeros(4)}, tmp_path / "weights.pt")
    spec = Spec.model_validate({**RECIPE, "model": {"architecture": RESNET}})
    answer, _, code = opened(tmp_path / "weights.pt", spec=spec)
    assert (answer.error.code, code) == ("invalid_model", 0)


def test_onnx_graph_comes_out_in_one_piece_with_the_weights_of_its_parts(
    opened, tmp_path: Path
) -> None:
    module, example = zoo.mlp()
    path = export_onnx(module, example, tmp_path / "model.onnx", external=True)
    parts = [{"name": p.name, "path": p} for p in sorted(tmp_path.glob("model.onnx*"))]
    readme = {"name": "README.md", "path": tmp_path / "README.md"}
    readme["path"].write_text("a model")
    answer, order, _ = opened([*parts, readme])
    assert answer is not None
    assert answer.error is None, answer.error
    kept, written = replaced(order, answer.converted, None)
    assert (kept.name, written.name) == ("README.md", "model.onnx")
    assert written.path.stat().st_size > path.stat().st_size or len(parts) == 1
    feed = {answer.inputs[0].name: example[0].numpy()}
    ran = InferenceSession(written.path.read_bytes()).run(None, feed)[0]
    with torch.no_grad():
        np.testing.assert_allclose(ran, module(*example).numpy(), rtol=1e-4, atol=1e-5)


def test_packed_arrays_come_out_plain_and_plain_ones_stay(opened, tmp_path: Path) -> None:
    arrays = {"x": np.arange(12.0, dtype=np.float32).reshape(4, 3), "targets": np.arange(4)}
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    answer, order, _ = opened(tmp_path / "packed.npz", "data")
    assert answer is not None
    written = replaced(order, answer.converted, None)
    assert not any(header.member.deflated for header in read_headers(written))
    with np.load(written) as found:
        assert all((found[name] == values).all() for name, values in arrays.items())
    np.savez(tmp_path / "plain.npz", **arrays)
    answer, _, _ = opened(tmp_path / "plain.npz", "test_data")
    assert answer == Answer()


def test_columns_of_a_parquet_file_come_out_as_arrays(opened, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [[float(i), 1.0, 2.0] for i in range(8)]
    table = arrow.table({"x": arrow.array(rows, arrow.list_(arrow.float32())), "label": range(8)})
    parquet.write_table(table, tmp_path / "data.parquet")
    takes = [{"name": "x", "shape": ("batch", 3), "dtype": "float32"}]
    spec = Spec.model_validate({**RECIPE, "data": {"task": "classification"}})
    answer, order, _ = opened(tmp_path / "data.parquet", "data", inputs=takes, spec=spec)
    assert answer is not None
    assert answer.error is None, answer.error
    written = replaced(order, answer.converted, answer.columns)
    assert Columns.read(written) == answer.columns
    arrays = load_file(written)
    assert arrays[answer.columns.names["x"]].tolist() == rows


def test_upload_that_takes_more_memory_than_it_may_is_refused_as_such(
    opened, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(16 << 20)}, tmp_path / "weights.pt")
    spec = Spec.model_validate({**RECIPE, "model": {"architecture": RESNET}})
    limits = LIMITS.model_copy(update={"memory": 8 << 20})
    answer, _, _ = opened(tmp_path / "weights.pt", spec=spec, limits=limits)
    assert answer is None or answer.error.code == "conversion_failed", answer


def test_damaged_upload_is_refused_with_its_own_code(opened, tmp_path: Path) -> None:
    module, example = zoo.mlp()
    upload = export_pt2(module, example, tmp_path / "model.pt2")
    content = bytearray(upload.read_bytes())
    content[len(content) // 2] ^= 0xFF
    upload.write_bytes(content)
    answer, _, code = opened(upload)
    assert (answer.error.code, code) == ("invalid_model", 0)


def test_plan_over_a_checkpoint_and_columns_goes_all_the_way(
    zygote: Launcher, house: House, tmp_path: Path
) -> None:
    """The supervisor's own way: converter, gate, engine in its lock."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    described = ModelSpec.model_validate({"architecture": RESNET})
    module = build_network(architecture_inputs(described)[0])
    weights = save_state_dict(module, tmp_path / "weights.pt").read_bytes()
    images = [np.full((3, 32, 32), i, np.float32).tolist() for i in range(32)]
    kind = arrow.list_(arrow.list_(arrow.list_(arrow.float32())))
    table = arrow.table({"input": arrow.array(images, kind), "label": [i % 10 for i in range(32)]})
    parquet.write_table(table, tmp_path / "data.parquet")
    supervisor = Supervisor(
        ledger=house.ledger,
        files=house.files,
        blobs=house.blobs,
        launcher=zygote,
        settings=WorkerSettings(house.settings),
        worker="test",
        lifeline=Lifeline(),
    )
    spec = {
        "model": {"format": "state_dict", "architecture": RESNET},
        "data": {"task": "classification"},
    }
    plan = house.submit(
        spec,
        "plan",
        model=house.upload(weights),
        data=house.upload((tmp_path / "data.parquet").read_bytes()),
    )
    assert supervisor.answer(plan) is Done.ANSWERED
    outcome = house.outcome(plan)
    assert outcome.error is None, outcome.error
    assert outcome.plan is not None
    assert outcome.plan.before.params == sum(p.numel() for p in module.parameters())


def test_job_and_sandbox_speak_of_the_same_request(tmp_path: Path) -> None:
    """A request survives its file, with the spec that the sandbox changed."""
    spec = Spec.model_validate({**RECIPE, "model": {"format": "auto"}})
    content = {
        "job_id": "job_1", "kind": "plan", "spec": spec, "model": tmp_path, "artifacts": tmp_path,
        "scratch": tmp_path, "draft": tmp_path / "draft", "threads": 1, "guarded": True,
    }  # fmt: skip
    request = Request.model_validate(content)
    assert Request.model_validate(json.loads(request.model_dump_json())) == request
