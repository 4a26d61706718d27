"""``python -m planish.verify.fresh``: runs models and prints one JSON object.

Standard input holds a `Request`. Each model runs in a process of its own, by the loader given, on
the inputs stored with the artifacts; without them on noise. What it answers is held against the
outputs stored with it, and against those of the first model: integer kernels round ties otherwise
on other processors and in other runtimes, so the bounds are `STORED` and `LIMIT` of the norm.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish.contract.wire import REFERENCE
from planish.verify.request import CALLS, Request, Run, Runs

BATCH = 4
LIMIT = 0.5
STORED = 0.1
MAX_VALUES = 1 << 16
ORIGINAL = "original"
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch", ".safetensors": "torch"}
_MEDIAN = re.compile(r"^median of \d+ calls: ([\d.]+) ms$", re.MULTILINE)

Array = NDArray[np.generic]
Outputs = list[NDArray[np.float64]]


def main(request: Request) -> Runs:
    """Run the models in turn."""
    first: Outputs | None = None
    answers: dict[str, Run] = {}
    for name in request.models:
        missing = next((n for n in ("numpy", *_needed(name)) if find_spec(n) is None), None)
        if missing is not None:
            answers[name] = Run(missing=missing)
            continue
        try:
            outputs, median = run(request, name)
            answers[name] = _compared(request, name, outputs, first, median)
            first = first or outputs
        except ValueError as error:
            answers[name] = Run(error=str(error))
    return Runs(runs=answers)


def run(request: Request, name: str) -> tuple[Outputs, float | None]:
    """Return a model's outputs, and the median of its calls where it is to be timed.

    Raises:
        ValueError: it does not open or run, or gives NaN or infinity.
    """
    threads = [] if request.threads is None else ["--threads", str(request.threads)]
    with tempfile.TemporaryDirectory(prefix="planish-") as scratch:
        answers, given = Path(scratch, "outputs.npz"), Path(scratch, "inputs.npz")
        inputs = _inputs(request.folder)
        if inputs:
            np.savez(given, **inputs)  # type: ignore[arg-type]  # the stub mixes up a keyword
        source = ["--inputs", str(given)] if inputs else ["--batch", str(BATCH)]
        _call(request, name, [*source, *threads, "--outputs", str(answers)])
        with np.load(answers, allow_pickle=False) as stored:
            outputs = [stored[key].astype(np.float64) for key in stored.files]
    if not all(np.isfinite(value).all() for value in outputs):
        raise ValueError("its outputs hold NaN or infinity")
    if name != request.timed:
        return outputs, None
    repeat = ["--batch", str(request.batch), "--repeat", str(CALLS)]
    found = _MEDIAN.search(_call(request, name, [*repeat, *threads]))
    return outputs, float(found[1]) if found else None


def _call(request: Request, name: str, options: list[str]) -> str:
    # -P: nothing that lies beside the loader may shadow an installed package.
    command = [sys.executable, "-P", str(request.loader), str(request.folder / name), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"does not run in a fresh process: {last}")
    return done.stdout


def _needed(name: str) -> tuple[str, ...]:
    suffix = Path(name).suffix
    return (RUNTIMES[suffix], *(("safetensors",) if suffix == ".safetensors" else ()))


def _inputs(folder: Path) -> dict[str, Array]:
    """Return the stored inputs by name; none without a reference."""
    prefix = "input."
    stored = _reference(folder)
    return {key.removeprefix(prefix): a for key, a in stored.items() if key.startswith(prefix)}


def _reference(folder: Path) -> dict[str, Array]:
    path = folder / REFERENCE
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def _compared(
    request: Request, name: str, outputs: Outputs, first: Outputs | None, median: float | None
) -> Run:
    kept = _reference(request.folder)
    found = [_thinned(value) for value in outputs]
    own, original = _kept(kept, name, len(found)), _kept(kept, ORIGINAL, len(found))
    stored = None if own is None else distance(own, found, STORED, "those stored with it")
    cosine = None
    if original is not None and [a.shape for a in original] == [b.shape for b in found]:
        cosine = min(_cosine(a, b) for a, b in zip(original, found, strict=True))
    difference = None if first is None else distance(first, outputs, LIMIT, "the first model's")
    return Run(
        outputs=tuple(f"output{list(value.shape)}" for value in outputs),
        difference=difference,
        stored=stored,
        cosine=cosine,
        median_ms=median,
    )


def _kept(kept: dict[str, Array], name: str, count: int) -> Outputs | None:
    keys = [f"{name}.{index}" for index in range(count)]
    return [kept[key].astype(np.float64) for key in keys] if set(keys) <= kept.keys() else None


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values that a reference holds of an output: every n-th, at most `MAX_VALUES`."""
    flat = values.reshape(-1)
    return flat[:: -(-flat.size // MAX_VALUES) or 1]


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def distance(first: Outputs, other: Outputs, limit: float, whose: str) -> float:
    """Return the largest ``|a - b| / |a|`` (Euclidean) over the outputs.

    Raises:
        ValueError: other shapes, or farther than `limit`.
    """
    if [value.shape for value in first] != [value.shape for value in other]:
        raise ValueError(f"its outputs have other shapes than {whose}")
    pairs = zip(first, other, strict=True)
    worst = max(
        float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-6)) for a, b in pairs
    )
    if worst > limit:
        raise ValueError(f"its outputs are {worst:.3g} of the norm away from {whose}")
    return worst


if __name__ == "__main__":
    sys.stdout.write(main(Request.model_validate_json(sys.stdin.read())).model_dump_json() + "\n")
