"""What a job on an ONNX graph begins with."""

from __future__ import annotations

from dataclasses import dataclass

from planish.contract.checks import check_recipe
from planish.contract.onnx_models import check_onnx
from planish.contract.spec import Spec
from planish.gate.inputs import model_format
from planish.gate.parts import model_files, only_file
from worker.engine.load.data import Splits, load_splits
from worker.engine.passes.protocol import Surroundings
from worker.engine.prepare import JobInputs
from worker.engine.progress import Progress
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.read import load_onnx


@dataclass(frozen=True)
class RuntimePrepared:
    """The parts of a job in the engine's own forms; none of them is ever changed.

    Attributes:
        original: the uploaded graph: the baseline, and what the recipe works on.
        splits: the data's parts.
    """

    spec: Spec
    original: RuntimeModel
    splits: Splits | None

    def around(self, step: int, progress: Progress) -> Surroundings:
        """Return what the pass at `step` (from 1) may use; each step has a seed of its own."""
        seed = (self.spec.seed + step) % 2**32
        return Surroundings(self.spec, self.splits, progress, seed, step)


def is_onnx(inputs: JobInputs) -> bool:
    """Tell whether the job's model is an ONNX graph."""
    return model_format(model_files(inputs.model).main, inputs.spec.model) == "onnx"


def prepare_onnx(inputs: JobInputs) -> RuntimePrepared:
    """Load and check everything that came with the job.

    Raises:
        InvalidModel, InvalidData, InvalidRecipe: what came cannot be used; the text says why.
    """
    spec = inputs.spec
    files = model_files(inputs.model)
    beside = {part.name: part.path for part in files.beside}
    model = load_onnx(files.main, spec.model, beside)
    check_onnx(spec, batch=model.batch, quantized=model.already_quantized, others=_others(inputs))
    data, test_data = (
        None if given is None else only_file(given, part)
        for given, part in ((inputs.data, "data"), (inputs.test_data, "test_data"))
    )
    splits = load_splits(spec, model, data, test_data)
    has_targets = splits is not None and splits.train.targets is not None
    check_recipe(spec, has_data=splits is not None, has_targets=has_targets)
    return RuntimePrepared(spec, model, splits)


def _others(inputs: JobInputs) -> tuple[str, ...]:
    return tuple(part for part in ("teacher", "student") if getattr(inputs, part) is not None)
