"""What travels with a model: the manifest, and a script that stands alone."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planish.contract.recipe import Quantize, Simplify
from planish.contract.spec import Spec
from tests.engine.passes.models import context, noise_splits, zoo_model
from worker.engine.passes import quantize
from worker.engine.save.loader import write_loader
from worker.engine.save.manifest import write_manifest
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2

ALLOWED = {
    "argparse",
    "functools",
    "importlib",
    "json",
    "time",
    "sys",
    "collections",
    "pathlib",
    "typing",
    "numpy",
    "onnxruntime",
    "openvino",
    "torch",
}


def test_the_manifest_holds_the_digest_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "report.json").write_bytes(b"{}")
    path = write_manifest(tmp_path, Spec(recipe=(Simplify(),), seed=7), {"torch": "2"})
    manifest = json.loads(path.read_text())
    assert [entry["name"] for entry in manifest["files"]] == ["model.onnx", "report.json"]
    entry = manifest["files"][0]
    assert entry["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert entry["size"] == 7
    assert manifest["seeds"] == {"job": 7}
    assert manifest["versions"] == {"torch": "2"}
    assert Spec.model_validate_json(json.dumps(manifest["spec"])).recipe == (Simplify(),)


def test_load_py_imports_nothing_but_numpy_and_the_runtime(tmp_path: Path) -> None:
    tree = ast.parse(write_loader(tmp_path).read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            roots.add(str(node.module).partition(".")[0])
    assert roots <= ALLOWED


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_load_py_runs_a_batch_of_an_int8_model(kind: str, tmp_path: Path) -> None:
    model = zoo_model("two_inputs")
    splits = noise_splits(model, labels=False)
    model = quantize.run(model, Quantize(), context(model, Quantize(), splits=splits)).model
    save = save_onnx if kind == "onnx" else save_pt2
    save(model, tmp_path / f"model.{kind}")
    write_loader(tmp_path)
    done = subprocess.run(
        [sys.executable, "load.py", "--batch", "3", "--outputs", "out.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "input image: float32[3, 1, 6, 6]",
        "input facts: float32[3, 5]",
        "output output: float32[3, 3]",
        "output output_1: float32[3, 8]",
    ]
    with np.load(tmp_path / "out.npz") as outputs:
        assert set(outputs.files) == {"output", "output_1"}


def test_load_py_says_what_is_missing(tmp_path: Path) -> None:
    path = write_loader(tmp_path)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "model.onnx" in done.stderr
