"""How a torch graph is treated and judged on its way to integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from planish.contract.recipe import Quantize
from worker.engine.load.dataset import Dataset
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.quantize.quality import Judge, Quality
from worker.engine.quantize.sensitivity import Harm, measure_harm
from worker.engine.quantize.treatment import Treated, Treatment, treat

OTHER_CALIBRATIONS = ("mse", "percentile", "entropy")


@dataclass(frozen=True)
class GraphWays:
    """The methods that there are for a torch graph; see `worker.engine.passes.quantize.rescue`.

    Attributes:
        model: float; stays as it is.
        samples: what ranges, biases and rounding are found on.
        judge: holds what the float model answers to other samples.
    """

    model: Model
    params: Quantize
    samples: Dataset
    judging: Judge
    context: Context

    def rungs(self, best: Callable[[], Treatment]) -> Iterator[tuple[str, Treatment]]:
        """Yield what may help, each on top of the best so far."""
        yield "cross_layer_equalization", replace(best(), equalized=True)
        if any(isinstance(layer, nn.LayerNorm) for layer in self.model.module.modules()):
            yield "smoothquant", replace(best(), smoothed=True)
        yield "bias_correction", replace(best(), corrected=True)
        for calibration in OTHER_CALIBRATIONS:
            if calibration != self.params.calibration:
                yield f"calibration {calibration}", replace(best(), calibration=calibration)
        yield "adaround", replace(best(), adaptive=True)

    def treat(self, treatment: Treatment, layers: tuple[str, ...]) -> Treated:
        """Apply a treatment to a copy and calibrate it."""
        total, what = len(self.samples), treatment.words()

        def tell(done: int) -> None:
            self.context.progress.update(done / total, f"{what}: calibrating {done}/{total}")

        return treat(
            self.model, self.params, layers, treatment, self.samples, self.context.seed, tell
        )

    def is_idle(self, treated: Treated, best: Treated) -> bool:
        """Whether equalization found no stream to balance."""
        asked = treated.treatment.equalized and not best.treatment.equalized
        return asked and not treated.equalized

    def judge(self, treated: Treated) -> Quality:
        """Return the quality of the prepared graph with all its pairs rounding."""
        return self.judging.judge(treated.prepared.graph)

    def harms(self, treated: Treated) -> tuple[Harm, ...]:
        """Return the harm of each layer."""
        return measure_harm(treated.prepared, self.judging)
