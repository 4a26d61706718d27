"""Load and run this model: `python load.py`, or `from load import load`.

A `.onnx` file needs numpy and onnxruntime; a `.pt2` file needs numpy and torch.

    python load.py                           one batch of noise through model.onnx (or model.pt2)
    python load.py --inputs in.npz --outputs out.npz      your arrays, one for each input name
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MODELS = ("model.onnx", "model.pt2")


class Input(NamedTuple):
    """Name, shape (a name stands for any size) and numpy type of a model input."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Network:
    """A loaded model: call it with one array for each input; it returns its outputs by name."""

    def __init__(
        self, inputs: tuple[Input, ...], run: Callable[[list[Array]], list[Array]]
    ) -> None:
        """Keep what `load` found."""
        self.inputs = inputs
        self._run = run

    def __call__(self, **arrays: Array) -> dict[str, Array]:
        """Run the model on a batch.

        Raises:
            KeyError: an input is missing.
        """
        outputs = self._run([np.asarray(arrays[i.name], i.dtype) for i in self.inputs])
        return {f"output_{n}" if n else "output": value for n, value in enumerate(outputs)}

    def example(self, batch: int = 1) -> dict[str, Array]:
        """Return noise (floats) or zeros (integers) in the shape of the inputs."""
        generator = np.random.default_rng(0)
        arrays: dict[str, Array] = {}
        for name, shape, dtype in self.inputs:
            sizes = [batch if isinstance(size, str) else size for size in shape]
            noise = generator.standard_normal(sizes) if "float" in dtype else np.zeros(sizes)
            arrays[name] = noise.astype(dtype)
        return arrays


def load(path: str | Path | None = None, threads: int | None = None) -> Network:
    """Open a model file; without a path, the one that lies beside this script.

    Args:
        path: a `.onnx` or `.pt2` file.
        threads: computing threads; None leaves it to the runtime.
    """
    file = Path(path) if path is not None else _beside()
    return _load_pt2(file, threads) if file.suffix == ".pt2" else _load_onnx(file, threads)


def _beside() -> Path:
    folder = Path(__file__).resolve().parent
    found = [folder / name for name in MODELS if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"neither {' nor '.join(MODELS)} lies beside {Path(__file__).name}")
    return found[0]


def _load_onnx(path: Path, threads: int | None) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = tuple(Input(i.name, tuple(i.shape), _numpy_type(i.type)) for i in session.get_inputs())
    names = [i.name for i in inputs]

    def run(arrays: list[Array]) -> list[Array]:
        return list(session.run(None, dict(zip(names, arrays, strict=True))))

    return Network(inputs, run)


def _numpy_type(onnx_type: str) -> str:
    """Return ``float32`` for ``tensor(float)``."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _load_pt2(path: Path, threads: int | None) -> Network:
    import torch
    from torch.ao.quantization.fx import _decomposed  # noqa: F401  # registers the q/dq operators
    from torch.utils import _pytree as pytree

    if threads is not None:
        torch.set_num_threads(threads)
    program = torch.export.load(path)
    module = program.module()
    values: Mapping[str, Any] = {
        node.name: node.meta["val"]
        for node in program.graph_module.graph.nodes
        if node.op == "placeholder"
    }
    names = [str(name) for name in program.graph_signature.user_inputs]
    inputs = tuple(Input(n, _sizes(values[n]), str(values[n].dtype)[6:]) for n in names)

    def run(arrays: list[Array]) -> list[Array]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        with torch.no_grad():
            return [value.numpy() for value in pytree.tree_leaves(module(*tensors))]

    return Network(inputs, run)


def _sizes(value: Any) -> tuple[int | str, ...]:  # noqa: ANN401  # torch is not imported up here
    return tuple(size if isinstance(size, int) else str(size) for size in value.shape)


def main() -> None:
    """Run one batch and say what went in and came out."""
    parser = argparse.ArgumentParser(description="Load the model and run one batch.")
    parser.add_argument(
        "model", nargs="?", help="a .onnx or .pt2 file; default: beside this script"
    )
    parser.add_argument("--inputs", help="an .npz file with one array for each input")
    parser.add_argument("--outputs", help="an .npz file to write the outputs to")
    parser.add_argument("--batch", type=int, default=1, help="size of the batch of noise")
    parser.add_argument("--threads", type=int, help="computing threads")
    options = parser.parse_args()
    network = load(options.model, options.threads)
    arrays = network.example(options.batch)
    if options.inputs:
        with np.load(options.inputs, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    outputs = network(**arrays)
    if options.outputs:
        np.savez(options.outputs, **outputs)  # type: ignore[arg-type]  # the stub mixes up a keyword
    for kind, values in (("input", arrays), ("output", outputs)):
        for name, value in values.items():
            sys.stdout.write(f"{kind} {name}: {value.dtype}{list(value.shape)}\n")


if __name__ == "__main__":
    main()
