"""What a thinner shape saves, measured in the target's runtime before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue

from worker.engine.measure.latency import Contender, compare_latency, paired_ratio
from worker.engine.measure.opened import Settings
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.save.onnx import save_onnx
from worker.engine.save.pt2 import save_pt2

ROUNDS = 12
SECONDS = 20.0
_WRITERS: dict[str, tuple[Callable[[Model, Path], None], str]] = {
    "onnxruntime": (save_onnx, "onnx"),
    "openvino": (save_onnx, "onnx"),  # it reads ONNX as well
    "torch": (save_pt2, "pt2"),
}


class Timed:
    """Times models against the original, in turns; what the weights are does not matter for time.

    Args:
        original: the model as the pass got it.
        ctx: gives the target.
        folder: an empty one, for the files that are timed.
    """

    def __init__(self, original: Model, ctx: Context, folder: Path) -> None:
        self._ctx, self._folder = ctx, folder
        self._original = self._save(original, "original")
        self.seen: list[JsonValue] = []
        """Share of the original's time that each measured model took, in order."""

    def share(self, model: Model) -> float:
        """Return a model's time of one call as a share of the original's, in float.

        Raises:
            JobFailed: the runtime cannot run it.
        """
        target = self._ctx.spec.target
        example = model.example(target.batch_size, self._ctx.seed)
        call = {s.name: t.numpy() for s, t in zip(model.inputs, example, strict=True)}
        contenders = {
            "original": self._original,
            "thinner": self._save(model, f"thinner{len(self.seen)}"),
        }
        times = compare_latency(contenders, call, rounds=ROUNDS, budget_seconds=SECONDS)
        share = 1 / paired_ratio(times["original"], times["thinner"])
        self.seen.append(round(share, 4))
        self._ctx.progress.update(min(len(self.seen) / 8, 0.9), "timing thinner shapes")
        return share

    def _save(self, model: Model, name: str) -> Contender:
        target = self._ctx.spec.target
        save, ending = _WRITERS[target.runtime]
        path = self._folder / f"{name}.{ending}"
        save(model, path)
        return Contender(path, Settings(target.runtime, target.threads, target.device))
