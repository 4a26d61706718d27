"""ResNet-20 on CIFAR-10: what each ranking of single weights leaves, without any training.

    nice .venv/bin/python bench/resnet20_sparse_methods.py

Prunes the shared network (PLANISH_TEST_DATA, default ../shared/data) by every method, share and
scope, recalibrates BatchNorm on the same 512 training images, and counts right answers on the 2,000
test images. Prints a table and writes it to bench/results/. No setting is chosen by these figures.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _nets import NETS, ROOT, folds, splits_of

from planish.contract.recipe import Prune
from worker.engine.load.data import Splits
from worker.engine.model import Model
from worker.engine.passes import prune
from worker.engine.passes.protocol import Context
from worker.engine.progress import Silent

RESULT = ROOT / "bench" / "results" / "resnet20_sparse_methods.json"
METHODS = ("magnitude", "wanda", "sparsegpt", "taylor", "gradient", "random")
SHARES = (0.5, 0.8, 0.9)


def cases() -> Iterator[Prune]:
    """Yield what is compared."""
    for scope in ("layer", "global"):
        for method in METHODS:
            for share in SHARES:
                yield Prune.model_validate(
                    {
                        "structure": "unstructured",
                        "method": method,
                        "sparsity": share,
                        "scope": scope,
                    }
                )
    for method in METHODS:
        yield Prune.model_validate({"structure": "n:m", "method": method})


def right(model: Model, splits: Splits) -> float:
    """Return the share of right answers on the test images."""
    data = splits.sealed
    if data is None:
        raise RuntimeError("no test images")
    with torch.no_grad():
        counts = [int((model.module(*x).argmax(1) == y).sum()) for x, y in data.batches(500)]
    return sum(counts) / len(data)


def main() -> int:
    """Prune in every way and write what is left."""
    net = next(net for net in NETS if net.name == "ResNet-20")
    job = net.spec((Prune(structure="unstructured"),))
    model = net.load(job)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        splits = splits_of(net, model, job, folds(net)[0], Path(folder))
        ctx = Context(
            job, splits, Silent(), 0, 1, teacher=model.clone(), device=torch.device("cpu")
        )
        before = right(model, splits)
        for params in cases():
            began = time.monotonic()
            outcome = prune.run(model, params, ctx)
            rows.append(
                {
                    "structure": params.structure,
                    "method": params.method,
                    "scope": params.scope,
                    "sparsity": outcome.facts["sparsity"],
                    "accuracy": right(outcome.model, splits),
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            print(*rows[-1].values(), flush=True)
    record = {
        "command": "python bench/resnet20_sparse_methods.py",
        "accuracy_before": before,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
