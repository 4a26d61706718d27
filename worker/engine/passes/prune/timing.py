"""What a thinner shape saves, measured in the target's runtime before anything is trained."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import JsonValue

from planish.contract.spec import FORMATS
from worker.engine.measure.latency import compare_latency, paired_ratio
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.publish import export

ROUNDS = 12


class Timed:
    """Times models against the original, in turns; weights do not matter for time.

    Args:
        original: the model as the pass got it.
        ctx: gives the target.
    """

    def __init__(self, original: Model, ctx: Context) -> None:
        self._original, self._ctx = original, ctx
        self.seen: list[JsonValue] = []
        """Share of the original's time of each model that was measured, in order."""

    def share(self, model: Model) -> float:
        """Return a model's median time as a share of the original's.

        Raises:
            InvalidModel: the graph cannot be written for the runtime.
            JobFailed: the runtime cannot run it.
        """
        target = self._ctx.spec.target
        inputs = {
            spec.name: tensor.numpy()
            for spec, tensor in zip(
                model.inputs, model.example(target.batch_size, self._ctx.seed), strict=True
            )
        }
        output = FORMATS[target.runtime]
        with tempfile.TemporaryDirectory(prefix="planish-") as folder:
            files = {
                name: export(one, Path(folder, name), (output,))[output]
                for name, one in (("original", self._original), ("thinner", model))
            }
            times = compare_latency(files, inputs, target.threads, rounds=ROUNDS)
        share = 1 / paired_ratio(times["original"], times["thinner"])
        self.seen.append(round(share, 4))
        self._ctx.progress.update(min(len(self.seen) / 8, 0.9), "timing thinner shapes")
        return share
