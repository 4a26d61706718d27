"""Ranges of activations by ONNX Runtime's calibrators, found once for each way of calibrating."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Quantize
from worker.engine.load.dataset import Dataset
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.session import Array

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "moving_average": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
PRODUCTS = ("Conv", "Gemm", "MatMul")
OPERATORS = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""What may compute in integers: convolutions, products, and what hands their values on. Softmax,
sigmoid, normalizations and products of two activations stay float: little work, much noise."""


def operators_of(proto: ModelProto) -> tuple[str, ...]:
    """Return what may compute in integers in this graph.

    Where attention multiplies computed values, products with weights alone: its sums hold masks of
    huge numbers, and its residual stream values of very different sizes.
    """
    fixed = {tensor.name for tensor in proto.graph.initializer}
    attends = any(
        node.op_type == "MatMul" and not fixed & set(node.input) for node in proto.graph.node
    )
    return PRODUCTS if attends else OPERATORS


def calibrate(
    model: RuntimeModel,
    params: Quantize,
    method: str,
    samples: Dataset,
    cache: Path,
    tell: Callable[[int], None],
) -> None:
    """Write the ranges of every value of a graph into a file that `quantize_static` reads.

    Args:
        model: float.
        params: percentile.
        method: ``minmax``, ``moving_average``, ``entropy`` or ``percentile``.
        samples: to observe.
        cache: the file.
        tell: told how many samples were observed.

    Raises:
        InvalidRecipe: the histograms of this way of calibrating cannot hold the values.
    """
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        source = Path(folder, "model.onnx")
        onnx.save_model(model.proto, source)
        calibrator = create_calibrator(
            source,
            operators_of(model.proto),
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=METHODS[method],
            extra_options=_options(params, method),
        )
        done = 0
        # One call at a time: the calibrators hold all outputs of what they are given at once.
        try:
            for call in model.calls(samples):
                tell(done)
                calibrator.collect_data(_Once(call))
                done += len(next(iter(call.values())))
            save_tensors_data(calibrator.compute_data(), cache)
        except ValueError as error:
            raise InvalidRecipe(
                f"calibration {method} finds no ranges for the values of this graph ({error}); "
                'set calibration to "minmax"'
            ) from error


def _options(params: Quantize, method: str) -> dict[str, bool | float]:
    options: dict[str, bool | float] = {"symmetric": False}
    if method == "moving_average":
        options["moving_average"] = True
    if method == "percentile":
        options["percentile"] = params.percentile
    return options


class _Once(CalibrationDataReader):  # type: ignore[misc]  # the base class has no types
    """One call's inputs."""

    def __init__(self, call: dict[str, Array]) -> None:
        self._calls: Iterator[dict[str, Array]] = iter((call,))

    def get_next(self) -> dict[str, Array] | None:
        """Return the inputs, then None."""
        return next(self._calls, None)
