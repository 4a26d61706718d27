"""Load and run this model: `python load.py`, or `from load import load`.

`pip install -r requirements.txt` gets what the files need: numpy, and onnxruntime for `.onnx`,
openvino for `.xml` (with its `.bin`), torch for `.pt2`, torch and safetensors for `.safetensors`
(with architecture.json and rebuild.py). An `.aoti.pt2` is native code, made for one kind of
processor and one version of torch: open it only if you trust where it comes from.

    python load.py                           one batch of noise through the model beside this script
    python load.py --inputs in.npz --outputs out.npz      your arrays, one for each input name
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MODELS = {
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "model.pt2": "torch",
    "model.safetensors": "torch",
    "model.aoti.pt2": "torch",
}
NATIVE = ".aoti.pt2"
WARM_CALLS = 5
NATIVE_INPUTS = "PLANISH_INPUTS"
PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class Input(NamedTuple):
    """Name, shape (a name stands for any size) and numpy type of a model input."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Network:
    """A loaded model: call it with one array for each input; it returns its outputs by name.

    Attributes:
        inputs: what it takes.
        run: the same call with arrays in the order of `inputs`, and a list of outputs.
        precision: the type that the runtime computes in where the file does not say integers.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        run: Callable[[list[Array]], list[Array]],
        precision: str = "float32",
    ) -> None:
        """Keep what `load` found."""
        self.inputs = tuple(inputs)
        self.run = run
        self.precision = precision

    def __call__(self, **arrays: Array) -> dict[str, Array]:
        """Run the model on a batch.

        Raises:
            KeyError: an input is missing.
        """
        outputs = self.run([np.asarray(arrays[i.name], i.dtype) for i in self.inputs])
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


def load(
    path: str | Path | None = None,
    threads: int | None = None,
    *,
    runtime: str | None = None,
    device: str = "cpu",
    shapes: Sequence[Sequence[int]] | None = None,
    options: Mapping[str, str] | None = None,
) -> Network:
    """Open a model file; without a path, the one that lies beside this script.

    Args:
        path: a `.onnx`, `.xml`, `.pt2`, `.safetensors` or `.aoti.pt2` file.
        threads: computing threads; None leaves it to the runtime.
        runtime: ``onnxruntime``, ``openvino`` (opens `.onnx` too) or ``torch``; None for the one
            that the file's ending names.
        device: ``cpu``, or for torch ``cuda``: arrays are then copied there and back in every call.
        shapes: of the inputs in every call from now on; openvino is faster for knowing them.
        options: further settings of the runtime by its own names; an empty text leaves one to it.
    """
    file = Path(path) if path is not None else _beside()
    runtime = runtime or MODELS.get(f"model{file.suffix}", "onnxruntime")
    if runtime == "torch":
        return _open_torch(file, threads, device)
    if runtime == "openvino":
        return _open_openvino(file, threads, shapes, options or {})
    return _open_onnxruntime(file, threads, options or {})


def _beside() -> Path:
    folder = Path(__file__).resolve().parent
    found = [folder / name for name in MODELS if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"none of {', '.join(MODELS)} lies beside {Path(__file__).name}")
    return found[0]


def _open_onnxruntime(path: Path, threads: int | None, options: Mapping[str, str]) -> Network:
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    session_options.inter_op_num_threads = 1
    if threads is not None:
        session_options.intra_op_num_threads = threads
    for name, value in options.items():
        if name == "graph_optimization_level":
            level = getattr(onnxruntime.GraphOptimizationLevel, value)
            session_options.graph_optimization_level = level
        else:
            session_options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(
        str(path), session_options, providers=["CPUExecutionProvider"]
    )
    inputs = [Input(i.name, tuple(i.shape), _numpy_type(i.type)) for i in session.get_inputs()]
    names = [i.name for i in inputs]

    def run(arrays: list[Array]) -> list[Array]:
        return list(session.run(None, dict(zip(names, arrays, strict=True))))

    return Network(inputs, run)


def _numpy_type(onnx_type: str) -> str:
    """Return ``float32`` for ``tensor(float)``."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


@functools.cache
def openvino_core() -> Any:  # noqa: ANN401  # openvino is imported only where it is used
    """Return the one core of this process, never dropped.

    Its CPU plugin gives the thread that first uses it a signal stack, and unmaps that stack when
    the plugin goes, be it on another thread: the next signal then kills the process (openvino
    2026.4, sigstack_manager.cpp).
    """
    import openvino

    return openvino.Core()


def _open_openvino(
    path: Path,
    threads: int | None,
    shapes: Sequence[Sequence[int]] | None,
    options: Mapping[str, str],
) -> Network:
    core = openvino_core()
    model = core.read_model(str(path))
    inputs = [
        Input(
            port.get_any_name(),
            tuple(str(size) if size.is_dynamic else len(size) for size in port.partial_shape),
            np.dtype(port.get_element_type().to_dtype()).name,
        )
        for port in model.inputs
    ]
    if shapes is not None:
        model.reshape({port: list(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
    # Without a hint openvino computes in bfloat16 wherever the processor can.
    noted = model.has_rt_info(["planish", "precision"])
    hint = str(model.get_rt_info(["planish", "precision"]).value) if noted else "f32"
    if hint == "f16" and "FP16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        hint = "f32"  # or openvino would fall back to bfloat16, which has three bits less
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", **options}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    chosen = {name: value for name, value in settings.items() if value}
    compiled = core.compile_model(model, "CPU", chosen)
    request = compiled.create_infer_request()
    count = len(compiled.outputs)

    def run(arrays: list[Array]) -> list[Array]:
        ready = [np.ascontiguousarray(array) for array in arrays]
        results = request.infer(ready, share_inputs=True, share_outputs=True)
        return [np.array(results[index]) for index in range(count)]

    kind = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return Network(inputs, run, PRECISIONS.get(kind, kind))


def _open_torch(path: Path, threads: int | None, device: str) -> Network:
    import torch
    from torch.utils import _pytree as pytree

    if threads is not None:
        torch.set_num_threads(threads)
    if path.suffix == ".safetensors":
        inputs, module = _rebuilt(path, device)
    elif path.name.endswith(NATIVE):
        inputs, module = _native(path)
    else:
        inputs, module = _exported(path, device)

    def run(arrays: list[Array]) -> list[Array]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]
        with torch.inference_mode():
            return [value.cpu().numpy() for value in pytree.tree_leaves(module(*tensors))]

    return Network(inputs, run)


def _exported(path: Path, device: str) -> tuple[list[Input], Callable[..., Any]]:
    import torch
    from torch.ao.quantization.fx import _decomposed  # noqa: F401  # registers the q/dq operators

    program = torch.export.load(path)
    values: Mapping[str, Any] = {
        node.name: node.meta["val"]
        for node in program.graph_module.graph.nodes
        if node.op == "placeholder"
    }
    names = [str(name) for name in program.graph_signature.user_inputs]
    inputs = [Input(n, _sizes(values[n]), str(values[n].dtype)[6:]) for n in names]
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return inputs, program.module()


def _rebuilt(path: Path, device: str) -> tuple[list[Input], Callable[..., Any]]:
    """Have rebuild.py, which lies beside this script, make the network from architecture.json."""
    spec = importlib.util.spec_from_file_location("rebuild", Path(__file__).with_name("rebuild.py"))
    if spec is None or spec.loader is None:
        raise FileNotFoundError("rebuild.py does not lie beside this script")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    description = path.with_name("architecture.json")
    stated = json.loads(description.read_bytes())["inputs"]
    inputs = [Input(item["name"], tuple(item["shape"]), item["dtype"]) for item in stated]
    return inputs, builder.rebuild(description, path).to(device)


def _native(path: Path) -> tuple[list[Input], Callable[..., Any]]:
    from torch._inductor import aoti_load_package

    module = aoti_load_package(str(path))
    stated = json.loads(module.get_metadata()[NATIVE_INPUTS])
    return [Input(name, tuple(shape), dtype) for name, shape, dtype in stated], module


def _sizes(value: Any) -> tuple[int | str, ...]:  # noqa: ANN401  # torch is not imported up here
    return tuple(size if isinstance(size, int) else str(size) for size in value.shape)


def main() -> None:
    """Run one batch and say what went in and came out."""
    parser = argparse.ArgumentParser(description="Load the model and run one batch.")
    parser.add_argument(
        "model", nargs="?", help="a model file; default: the first one beside this script"
    )
    parser.add_argument("--runtime", help="onnxruntime, openvino or torch; default: by the file")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for torch")
    parser.add_argument("--inputs", help="an .npz file with one array for each input")
    parser.add_argument("--outputs", help="an .npz file to write the outputs to")
    parser.add_argument("--batch", type=int, default=1, help="size of the batch of noise")
    parser.add_argument("--threads", type=int, help="computing threads")
    parser.add_argument("--repeat", type=int, default=0, help="time as many calls: their median")
    chosen = parser.parse_args()
    network = load(chosen.model, chosen.threads, runtime=chosen.runtime, device=chosen.device)
    arrays = network.example(chosen.batch)
    if chosen.inputs:
        with np.load(chosen.inputs, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    outputs = network(**arrays)
    if chosen.outputs:
        np.savez(chosen.outputs, **outputs)  # type: ignore[arg-type]  # the stub mixes up a keyword
    for kind, values in (("input", arrays), ("output", outputs)):
        for name, value in values.items():
            sys.stdout.write(f"{kind} {name}: {value.dtype}{list(value.shape)}\n")
    if chosen.repeat:
        shapes = [arrays[i.name].shape for i in network.inputs]
        network = load(
            chosen.model,
            chosen.threads,
            runtime=chosen.runtime,
            device=chosen.device,
            shapes=shapes,
        )
        median = _median(network, arrays, chosen.repeat)
        sys.stdout.write(f"median of {chosen.repeat} calls: {median:.4f} ms\n")


def _median(network: Network, arrays: Mapping[str, Array], count: int) -> float:
    """Return the median time of a call in milliseconds; the first calls are not counted."""
    times = []
    for index in range(count + WARM_CALLS):
        start = time.perf_counter()
        network(**arrays)
        if index >= WARM_CALLS:
            times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


if __name__ == "__main__":
    main()
