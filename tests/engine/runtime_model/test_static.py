"""Static int8 of a trained network: calibrations, rescue, and ONNX Runtime's own tool by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from planish.contract.errors import InvalidRecipe, NothingChanged
from planish.contract.recipe import Quantize
from tests.engine.runtime_model.conftest import Trained
from tests.engine.runtime_model.nets import around, load
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import RuntimeOutcome
from worker.engine.runtime_model.quantize import run
from worker.engine.runtime_model.quantize import static as static_mode
from worker.engine.save.onnx import exporter_silenced

SAMPLES = 128


class Reader(CalibrationDataReader):
    """The same samples that our pass calibrates on."""

    def __init__(self, trained: Trained) -> None:
        head = trained.splits.calibration.head(SAMPLES)
        self.calls: Iterator[dict[str, NDArray[np.generic]]] = trained.model.calls(head)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self.calls, None)


def right(model: RuntimeModel, trained: Trained) -> int:
    sealed = trained.splits.sealed
    assert sealed is not None
    assert isinstance(sealed.targets, np.ndarray)
    return int((model.answers(sealed).numpy().argmax(-1) == sealed.targets).sum())


def quantized(trained: Trained, **params: object) -> RuntimeOutcome:
    wanted = Quantize.model_validate({"samples": SAMPLES, **params})
    return run(trained.model, wanted, around(trained.splits))


@pytest.fixture(scope="module")
def by_hand(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> RuntimeModel:
    out = tmp_path_factory.mktemp("hand") / "int8.onnx"
    with exporter_silenced():
        quantize_static(
            str(trained.path),
            out,
            Reader(trained),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return load(out)


@pytest.mark.parametrize("calibration", ["minmax", "moving_average", "entropy", "percentile"])
def test_accuracy_is_no_worse_than_the_tools_by_hand(
    calibration: str, trained: Trained, by_hand: RuntimeModel
) -> None:
    outcome = quantized(trained, calibration=calibration)
    assert right(outcome.model, trained) >= right(by_hand, trained)
    assert outcome.facts["calibration"] == calibration
    sqnr = outcome.facts["sqnr_db"]
    assert isinstance(sqnr, float)
    assert sqnr > 25


def test_all_layers_run_in_integers(trained: Trained, tmp_path: Path) -> None:
    outcome = quantized(trained)
    path = tmp_path / "int8.onnx"
    path.write_bytes(outcome.model.proto.SerializeToString())
    graph = read_runtime_graph(path)
    assert not graph.float_layers
    assert graph.integer_layers == len(outcome.layers) == 7


def test_per_tensor_and_uint8_weights(trained: Trained) -> None:
    outcome = quantized(trained, granularity="tensor", dtype="uint8")
    assert outcome.model.quantization is not None
    for layer in outcome.model.quantization.layers:
        assert (layer.dtype, len(layer.scale)) == ("uint8", 1)
    assert outcome.facts["weights"] == "uint8, asymmetric, per tensor"


def test_min_sqnr_puts_the_most_harmful_layers_back(trained: Trained) -> None:
    plain = quantized(trained).facts["sqnr_db"]
    assert isinstance(plain, float)
    outcome = quantized(trained, algorithm="rtn", min_sqnr=plain + 2)
    reached = outcome.facts["sqnr_db"]
    assert isinstance(reached, float)
    assert reached >= plain + 2
    freed = [layer.name for layer in outcome.skipped if "went back to float" in layer.why]
    table = outcome.facts["sensitivity"]
    assert isinstance(table, list)
    assert freed
    assert {row["layer"] for row in table if isinstance(row, dict) and row["float"]} == set(freed)
    with pytest.raises(NothingChanged, match="out of reach"):
        quantized(trained, algorithm="rtn", min_sqnr=99)


def test_a_layer_kept_float_is_float_in_the_runtime_too(trained: Trained, tmp_path: Path) -> None:
    outcome = quantized(trained, keep_float=["layer1.conv2"])
    path = tmp_path / "int8.onnx"
    path.write_bytes(outcome.model.proto.SerializeToString())
    assert read_runtime_graph(path).float_layers == ("layer1.conv2",)


def test_a_fixed_batch_is_calibrated_and_judged_too(trained: Trained) -> None:
    fixed = load(trained.fixed)
    params = Quantize(samples=24)
    outcome = run(fixed, params, around(trained.splits))
    assert outcome.facts["agreement"] is None or outcome.facts["agreement"] == 1.0
    assert right(outcome.model, trained) >= right(fixed, trained) - 5


def test_without_data_noise_calibrates_and_the_facts_warn(trained: Trained) -> None:
    outcome = static_mode.run(trained.model, Quantize(samples=32), around())
    assert "synthetic noise" in str(outcome.facts["warning"])


def test_histograms_that_cannot_hold_the_values_are_a_named_refusal(trained: Trained) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(trained.model.proto)
    scale = numpy_helper.from_array(np.array(1e-42, np.float32), "tiny")
    proto.graph.initializer.append(scale)
    first = proto.graph.node[0]
    shrink = helper.make_node("Mul", ["input", "tiny"], ["shrunk"], name="shrink")
    first.input[0] = "shrunk"
    proto.graph.node.insert(0, shrink)
    with pytest.raises(InvalidRecipe, match='set calibration to "minmax"'):
        run(
            trained.model.with_proto(proto),
            Quantize(samples=32, calibration="percentile"),
            around(trained.splits),
        )
