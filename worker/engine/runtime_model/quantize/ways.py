"""How an ONNX graph is treated and judged on its way to integers, for the rescue ladder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from torch import Tensor

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Quantize
from worker.engine.load.dataset import Dataset
from worker.engine.passes.protocol import Surroundings
from worker.engine.quantize.quality import Quality, quality_of
from worker.engine.quantize.sensitivity import SAMPLES, Harm, by_worth
from worker.engine.quantize.treatment import Treatment
from worker.engine.runtime_model.figures import product_macs
from worker.engine.runtime_model.layers import layers_of
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.quantize.calibrate import METHODS, calibrate, operators_of
from worker.engine.save.float_layers import keep_in_float
from worker.engine.save.onnx import exporter_silenced

WEIGHTS = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
OTHER_CALIBRATIONS = ("percentile", "entropy")


@dataclass(frozen=True)
class RuntimeTreated:
    """A quantized graph.

    Attributes:
        treatment: what was done.
        layers: which layers are in integers.
        proto: with q/dq pairs.
    """

    treatment: Treatment
    layers: tuple[str, ...]
    proto: ModelProto


@dataclass(frozen=True)
class RuntimeWays:
    """What there is for an ONNX graph; see `worker.engine.passes.quantize.rescue`.

    Attributes:
        model: float, simplified; stays as it is.
        params: dtype, granularity, percentile.
        samples: what ranges are found on.
        judging: other samples that judge; None where there are none.
        around: for progress and task.
        folder: of the ranges, one file for each way of calibrating.
    """

    model: RuntimeModel
    params: Quantize
    samples: Dataset
    judging: Dataset | None
    around: Surroundings
    folder: Path
    _wanted: list[Tensor] = field(default_factory=list)

    def rungs(self, best: Callable[[], Treatment]) -> Iterator[tuple[str, Treatment]]:
        """Yield the other ways of calibrating that find ranges."""
        for calibration in OTHER_CALIBRATIONS:
            other = replace(best(), calibration=calibration)
            if calibration != self.params.calibration and self._finds_ranges(other):
                yield f"calibration {calibration}", other

    def treat(self, treatment: Treatment, layers: tuple[str, ...]) -> RuntimeTreated:
        """Quantize with the ranges of this way of calibrating."""
        kept = {layer.name for layer in layers_of(self.model.proto)} - set(layers)
        proto = self._quantized(treatment, excluded=sorted(kept))
        keep_in_float(proto)
        return RuntimeTreated(treatment, layers, proto)

    def is_idle(self, treated: RuntimeTreated, best: RuntimeTreated) -> bool:
        """No way of treating an ONNX graph finds nothing to do."""
        return False

    def judge(self, treated: RuntimeTreated) -> Quality:
        """Return how near the outputs are to the float model's."""
        return self._quality(treated.proto, self._samples())

    def harms(self, treated: RuntimeTreated) -> tuple[Harm, ...]:
        """Return what each layer does alone, in the order in which they should go to float."""
        few = self._samples().head(SAMPLES)
        sqnr = {}
        for index, name in enumerate(treated.layers):
            self.around.progress.update(index / len(treated.layers), f"measuring {name} alone")
            proto = self._quantized(treated.treatment, only=[name])
            sqnr[name] = self._quality(proto, few).sqnr_db
        batch = self.model.batch or 1
        call = self.model.named(self.model.example(batch))
        macs = product_macs(self.model.proto, call, batch)
        return by_worth(sqnr, {name: macs.get(name, 0) for name in sqnr})

    def _samples(self) -> Dataset:
        if self.judging is None:
            raise RuntimeError("nothing judges without data")
        return self.judging

    def _quality(self, proto: ModelProto, samples: Dataset) -> Quality:
        if not self._wanted:
            self._wanted.append(self.model.answers(self._samples()))
        classes = self.around.spec.data.task == "classification"
        got = self.model.with_proto(proto).answers(samples)
        return quality_of(got, self._wanted[0][: len(samples)], classes=classes)

    def _quantized(
        self, treatment: Treatment, excluded: Sequence[str] = (), only: Sequence[str] = ()
    ) -> ModelProto:
        ranges = self._ranges(treatment)
        with tempfile.TemporaryDirectory(prefix="planish-") as folder, exporter_silenced():
            out = Path(folder, "int8.onnx")
            copy = ModelProto()
            copy.CopyFrom(self.model.proto)
            quantize_static(
                copy,
                out,
                None,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(operators_of(copy)),
                per_channel=self.params.granularity == "channel",
                activation_type=QuantType.QUInt8,
                weight_type=WEIGHTS[self.params.dtype],
                nodes_to_quantize=list(only),
                nodes_to_exclude=list(excluded),
                calibrate_method=METHODS[treatment.calibration],
                extra_options={"MatMulConstBOnly": True},
                calibration_cache_path=ranges,
            )
            return onnx.load(out)

    def _finds_ranges(self, treatment: Treatment) -> bool:
        try:
            self._ranges(treatment)
        except InvalidRecipe:
            return False
        return True

    def _ranges(self, treatment: Treatment) -> Path:
        cache = self.folder / f"{treatment.calibration}.json"
        total = len(self.samples)
        if not cache.exists():
            with exporter_silenced():
                calibrate(
                    self.model,
                    self.params,
                    treatment.calibration,
                    self.samples,
                    cache,
                    lambda done: self.around.progress.update(
                        min(done / total, 1.0),
                        f"{treatment.calibration}: calibrating {done}/{total}",
                    ),
                )
        return cache
