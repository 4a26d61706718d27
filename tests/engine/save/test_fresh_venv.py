"""load.py of every output runs where nothing but requirements.txt is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from planish.contract.spec import Output
from tests.conftest import ROOT
from tests.engine.passes.models import zoo_model
from tests.engine.save.isolated import environment_of, run_alone
from worker.engine.measure.reload import check_reload
from worker.engine.publish import WRITERS
from worker.engine.report.result import MODEL_FILES
from worker.engine.save.loader import write_loader
from worker.engine.save.requirements import NEEDS, write_requirements

NATIVE: Output = "aotinductor"


def bundle(output: Output, folder: Path) -> Path:
    """Write what a client gets of one output."""
    # Native code takes its compiler many seconds, for a small network fewer.
    model = zoo_model("mlp" if output == NATIVE else "two_inputs")
    path = folder / MODEL_FILES[output]
    WRITERS[output](model, path)
    check_reload(model, [path], threads=1, original=model, reference=folder / "reference.npz")
    write_loader(folder)
    write_requirements(folder, [output])
    return folder


@pytest.mark.parametrize("output", NEEDS)
def test_load_py_needs_nothing_but_its_requirements(output: Output, tmp_path: Path) -> None:
    if output == "openvino":
        pytest.importorskip("openvino")
    (tmp_path / "out").mkdir()
    folder = bundle(output, tmp_path / "out")
    if output == NATIVE:
        assert not _traces(folder / MODEL_FILES[output])
    packages = environment_of(folder / "requirements.txt", tmp_path / "packages")
    with np.load(folder / "reference.npz") as stored:
        inputs = {k.removeprefix("input."): stored[k] for k in stored.files if "input." in k}
        prefix = f"{MODEL_FILES[output]}."
        wanted = [stored[name] for name in stored.files if name.startswith(prefix)]
    np.savez(tmp_path / "in.npz", **inputs)
    given = ("--inputs", str(tmp_path / "in.npz"), "--outputs", str(tmp_path / "out.npz"))
    run_alone(packages, folder, "load.py", "--threads", "1", *given)
    with np.load(tmp_path / "out.npz") as outputs:
        found = [outputs[name].reshape(-1) for name in outputs.files]
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def _traces(path: Path) -> list[str]:
    """Return what names this machine, or sources, in the members of a package."""
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    places = (str(ROOT), str(Path.home()), sys.prefix, "/tmp/", ".py", ".cpp\n")
    return [place for place in places if place != "/" and place.encode() in content]


def test_a_package_that_is_not_declared_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(f"numpy=={np.__version__}\n")
    packages = environment_of(tmp_path / "requirements.txt", tmp_path / "packages")
    script = (
        "import importlib.util as u; print(u.find_spec('numpy') is not None, u.find_spec('onnx'))"
    )
    assert run_alone(packages, tmp_path, "-c", script).strip() == "True None"


@pytest.mark.wheel
@pytest.mark.parametrize("output", ["onnx"])
def test_pip_makes_an_environment_that_load_py_runs_in(output: Output, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = bundle(output, tmp_path / "out")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = ("-m", "pip", "install", "-q", "--no-compile", "-r", "requirements.txt")
    subprocess.run([python, *install], cwd=folder, check=True)
    done = subprocess.run(
        [python, "load.py", "--batch", "3"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "output output: float32[3, 3]" in done.stdout
