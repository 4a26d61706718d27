"""Does every artifact open in a fresh process, and does it still give the same outputs?

The fresh process runs the very ``load.py`` that travels with the artifacts. Its outputs are held
against those of the same file in this process (ONNX, IR), or of the graph itself (what torch runs).
Same runtime, same thread count: all that may differ is the order of float sums, hence the tolerance
of 1e-3 of the largest output.

ONNX, IR and native code are held against the torch graph as well. There a float model may differ by
as much, but integer kernels round ties otherwise than torch does, and one step in an early layer
moves later ones: an int8 file passes while the error stays below half the norm of the outputs, far
above rounding and far below what a misplaced scale, layer or axis does. Runtimes round 16-bit
floats in other places than torch does (or not at all), by some multiples of the type's precision.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from planish.contract.errors import ReloadMismatch
from planish.contract.report import Reload
from worker.engine.measure.opened import Settings, open_model
from worker.engine.measure.reference import ORIGINAL, reference_inputs, write_reference
from worker.engine.measure.written import format_of
from worker.engine.model import AnyModel
from worker.engine.save.loader import LOADER_SOURCE
from worker.engine.save.standalone import NATIVE

SAME_RUNTIME = 1e-3
FLOAT_EXPORT = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
INTEGER_EXPORT = 0.5
_BATCH = 4
_SHOWN_ERROR = 500

Outputs = list[NDArray[np.generic]]


def check_reload(
    model: AnyModel,
    paths: Sequence[Path],
    threads: int,
    seed: int = 0,
    *,
    original: AnyModel | None = None,
    reference: Path | None = None,
) -> Reload:
    """Open each artifact of a model in a fresh process and compare outputs.

    Args:
        model: what the artifacts were saved from.
        paths: `.onnx`, `.xml`, `.pt2`, `.safetensors` and `.aoti.pt2` files.
        threads: computing threads of ONNX Runtime and OpenVINO, the same on both sides.
        seed: of the noise that is sent through.
        original: the uploaded model; its outputs go into the reference.
        reference: file to keep the noise and all outputs in, for later checks.

    Raises:
        ReloadMismatch: a file does not open, or its outputs are others.
    """
    inputs = reference_inputs(model, model.batch or _BATCH, seed, original)
    graph = model.outputs(inputs)
    worst = 0.0
    found: dict[str, Outputs] = {}
    for path in paths:
        reloaded = found[path.name] = _fresh_outputs(model, path, inputs, _threads(path, threads))
        if path.name.endswith(NATIVE):
            _check_export(model, path, graph, reloaded)
            continue
        expected = graph
        if path.suffix in (".onnx", ".xml"):
            settings = Settings("openvino" if path.suffix == ".xml" else "onnxruntime", threads)
            expected = open_model(path, settings).run([i.numpy() for i in inputs])
            _check_export(model, path, graph, expected)
        worst = max(worst, _check_same(path, expected, reloaded))
    if reference is not None:
        if original is not None:
            found[ORIGINAL] = original.outputs(inputs)
        write_reference(reference, _named(model, inputs), found)
    formats = {path.name: format_of(path) for path in paths}
    return Reload(ok=True, max_abs_error=worst, formats=formats)


def _threads(path: Path, threads: int) -> int:
    """What torch runs is held against this process's graph: with its number of threads."""
    return threads if path.suffix in (".onnx", ".xml") else torch.get_num_threads()


def _named(model: AnyModel, inputs: Sequence[torch.Tensor]) -> dict[str, NDArray[np.generic]]:
    return {spec.name: tensor.numpy() for spec, tensor in zip(model.inputs, inputs, strict=True)}


def _fresh_outputs(
    model: AnyModel, path: Path, inputs: Sequence[torch.Tensor], threads: int
) -> Outputs:
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        stored, answers = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(stored, **_named(model, inputs))  # type: ignore[arg-type]  # the stub mixes up a keyword
        # -P: the script's own folder holds modules that must not shadow installed packages.
        command = [sys.executable, "-P", str(LOADER_SOURCE), str(path.resolve())]
        options = ["--inputs", str(stored), "--outputs", str(answers), "--threads", str(threads)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = done.stderr[-_SHOWN_ERROR:].strip().rpartition("\n")[2]
            raise ReloadMismatch(f"{path.name} does not open in a fresh process: {last}")
        with np.load(answers, allow_pickle=False) as outputs:
            return [outputs[name] for name in outputs.files]


def _check_same(path: Path, expected: Outputs, reloaded: Outputs) -> float:
    """Return the largest difference; raises when it is more than another order of sums explains."""
    _check_shapes(path, expected, reloaded)
    worst = 0.0
    for before, after in zip(expected, reloaded, strict=True):
        error, size = _largest(_difference(before, after)), _largest(before)
        if not error <= SAME_RUNTIME * max(size, 1.0):
            raise ReloadMismatch(
                f"{path.name}: outputs up to {size:.4g} differ by {error:.4g} in a fresh process"
            )
        worst = max(worst, error)
    return worst


def _check_export(model: AnyModel, path: Path, graph: Outputs, exported: Outputs) -> None:
    """Hold a file of another runtime against the torch graph that it was written from.

    A dynamic int8 file is another function than its float graph; only its shapes are held.
    """
    _check_shapes(path, graph, exported)
    if model.quantization is not None and model.quantization.params.mode == "dynamic":
        return
    limit = FLOAT_EXPORT[model.precision] if model.quantization is None else INTEGER_EXPORT
    for before, after in zip(graph, exported, strict=True):
        norm, error = np.linalg.norm(before), np.linalg.norm(_difference(before, after))
        if not error <= limit * max(float(norm), 1e-6):
            raise ReloadMismatch(
                f"{path.name}: outputs of norm {norm:.4g} are {error:.4g} away from the model's"
            )


def _check_shapes(path: Path, expected: Outputs, found: Outputs) -> None:
    before, after = [value.shape for value in expected], [value.shape for value in found]
    if before != after:
        raise ReloadMismatch(f"{path.name}: outputs of shapes {after} instead of {before}")


def _difference(before: NDArray[np.generic], after: NDArray[np.generic]) -> NDArray[np.float64]:
    return before.astype(np.float64) - after.astype(np.float64)


def _largest(values: NDArray[np.generic]) -> float:
    return float(np.abs(values.astype(np.float64)).max(initial=0.0))
