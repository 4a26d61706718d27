"""``python -m planish.verify.fresh LOADER DIR MODEL…``: runs models and prints one JSON object.

Each model runs in a process of its own, by the loader given, on the same noise. The outputs of
later models are held against the first one's: the shapes must be equal, and the distance at most
half the norm, the bound of the engine's own reload check (integer kernels round ties differently).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH = 4
LIMIT = 0.5
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch"}

Outputs = list[NDArray[np.float64]]
Answer = dict[str, str | float | list[str]]


def main(loader: Path, folder: Path, names: list[str]) -> None:
    """Run the models and print what was found, by name."""
    first: Outputs | None = None
    answers: dict[str, Answer] = {}
    for name in names:
        runtime = RUNTIMES[Path(name).suffix]
        if find_spec(runtime) is None:
            answers[name] = {"missing": runtime}
            continue
        try:
            outputs = run(loader, folder / name)
            answers[name] = {"outputs": [f"output{list(value.shape)}" for value in outputs]}
            if first is not None:
                answers[name]["difference"] = distance(first, outputs)
            first = first or outputs
        except ValueError as error:
            answers[name] = {"error": str(error)}
    sys.stdout.write(json.dumps(answers) + "\n")


def run(loader: Path, model: Path) -> Outputs:
    """Return the outputs of a model for seeded noise.

    Raises:
        ValueError: it does not open or run, or gives NaN or infinity.
    """
    with tempfile.TemporaryDirectory(prefix="planish-") as scratch:
        answers = Path(scratch, "outputs.npz")
        # -P: nothing that lies beside the loader may shadow an installed package.
        command = [sys.executable, "-P", str(loader), str(model)]
        options = ["--outputs", str(answers), "--batch", str(BATCH)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ValueError(f"does not run in a fresh process: {last}")
        with np.load(answers, allow_pickle=False) as stored:
            outputs = [stored[name].astype(np.float64) for name in stored.files]
    if not all(np.isfinite(value).all() for value in outputs):
        raise ValueError("its outputs hold NaN or infinity")
    return outputs


def distance(first: Outputs, other: Outputs) -> float:
    """Return the largest ``|a - b| / |a|`` (Euclidean) over the outputs.

    Raises:
        ValueError: other shapes, or farther than `LIMIT`.
    """
    if [value.shape for value in first] != [value.shape for value in other]:
        raise ValueError("its outputs have other shapes than the first model's")
    pairs = zip(first, other, strict=True)
    worst = max(
        float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-6)) for a, b in pairs
    )
    if worst > LIMIT:
        raise ValueError(f"its outputs are {worst:.3g} of the norm away from the first model's")
    return worst


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
