"""What the sandbox costs a job: one conversion from fork to answer, with its guards and without.

ResNet-20 as a ``.pt2`` (1.1 MB), its weights as a torch checkpoint, and 1,000 CIFAR-10 images as a
compressed and as a plain ``.npz``. Both sides take turns; figures are medians in milliseconds.
Writes bench/results/sandbox.json. Run: python bench/sandbox.py [ROUNDS]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "sandbox.json"
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from planish.contract.spec import ModelSpec, Spec  # noqa: E402
from planish.gate.inputs import architecture_inputs  # noqa: E402
from worker.engine.load.architectures.build import build_network  # noqa: E402
from worker.launcher import Launcher  # noqa: E402
from worker.sandbox.order import ORDER, Limits, Order, Role  # noqa: E402
from worker.sandbox.outcome import read_answer  # noqa: E402

RESNET = {"library": "planish", "name": "cifar_resnet", "config": {"depth": 20}}
LIMITS = Limits(seconds=120, cpu_seconds=120, memory=4 << 30, output=1 << 30)


def uploads(folder: Path) -> dict[str, tuple[Role, Path]]:
    """Write the files that are opened."""
    described = ModelSpec.model_validate({"architecture": RESNET})
    network = build_network(architecture_inputs(described)[0]).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        network, (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, folder / "model.pt2")
    torch.save(network.state_dict(), folder / "weights.pt")
    images = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), np.uint8)
    arrays = {"input": images, "targets": np.arange(1000) % 10}
    np.savez_compressed(folder / "packed.npz", **arrays)
    np.savez(folder / "plain.npz", **arrays)
    return {
        "pt2": ("model", folder / "model.pt2"),
        "state_dict": ("model", folder / "weights.pt"),
        "npz, compressed": ("data", folder / "packed.npz"),
        "npz, plain": ("data", folder / "plain.npz"),
    }


def once(zygote: Launcher, role: Role, source: Path, *, guarded: bool) -> float:
    """Open one upload; return the milliseconds from the fork to the answer."""
    spec = {"recipe": [{"op": "simplify"}]}
    if source.suffix == ".pt":
        spec["model"] = {"architecture": RESNET}  # type: ignore[assignment]
    folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
    order = Order(
        role=role,
        source=source,
        spec=Spec.model_validate(spec),
        folder=folder,
        threads=1,
        limits=LIMITS,
        guarded=guarded,
    )
    for path in (order.result, order.spare):
        path.mkdir(mode=0o700)
    (folder / ORDER).write_text(order.model_dump_json())
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        child = zygote.launch(str(folder / ORDER), log.fileno(), opens=True)
        code = child.wait(120)
        took = time.perf_counter() - began
        child.close()
    answer = read_answer(order.result)
    if code != 0 or answer is None or answer.error is not None:
        raise SystemExit(f"{source.name} was refused: {code} {answer}")
    shutil.rmtree(folder)
    return took * 1000


def main(rounds: int) -> None:
    """Measure, print and write down."""
    zygote = Launcher()
    zygote.start()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for label, (role, source) in uploads(Path(name)).items():
            sides: dict[bool, list[float]] = {True: [], False: []}
            for number in range(2 * rounds + 2):
                guarded = bool(number % 2)
                took = once(zygote, role, source, guarded=guarded)
                if number > 1:
                    sides[guarded].append(took)
            medians = {
                "guarded_ms": round(statistics.median(sides[True]), 1),
                "unguarded_ms": round(statistics.median(sides[False]), 1),
            }
            found[label] = {**medians, "bytes": source.stat().st_size}
            print(f"{label:16} {medians}")
    zygote.close()
    load = os.getloadavg()[0]
    RESULTS.write_text(json.dumps({"rounds": rounds, "load": load, "uploads": found}, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
