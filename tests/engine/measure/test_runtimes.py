"""One file, or one model, in every runtime: the same answers, times from each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.contract.spec import Target
from tests.engine.passes.models import noise_splits, zoo_model
from worker.engine.measure.latency import Contender, compare_latency
from worker.engine.measure.opened import Settings, open_model
from worker.engine.measure.outputs import dataset_outputs
from worker.engine.measure.tune import tune
from worker.engine.save.onnx import save_onnx
from worker.engine.save.openvino_ir import save_openvino
from worker.engine.save.pt2 import save_pt2

pytest.importorskip("openvino")
NOISE = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small network in the format of each runtime."""
    folder = tmp_path_factory.mktemp("files")
    model = zoo_model("mlp")
    paths = {"onnxruntime": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
    writers = (save_onnx, save_openvino, save_pt2)
    for save, name in zip(writers, paths.values(), strict=True):
        save(model, folder / name)
    return {runtime: folder / name for runtime, name in paths.items()}


def test_every_runtime_gives_the_same_answers(files: dict[str, Path]) -> None:
    data = noise_splits(zoo_model("mlp"), samples=70).train
    found = [dataset_outputs(path, data, Settings(name)) for name, path in files.items()]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)


def test_every_runtime_is_timed_beside_the_others(files: dict[str, Path]) -> None:
    sides = {name: Contender(path, Settings(name)) for name, path in files.items()}
    times = compare_latency(sides, {"input": NOISE}, rounds=5)
    assert all(side.latency.p50 > 0 and len(side.rounds) == 5 for side in times.values())
    assert {side.precision for side in times.values()} == {"float32"}


def test_openvino_opens_onnx_as_well_and_says_what_it_computes_in(files: dict[str, Path]) -> None:
    want = open_model(files["onnxruntime"], Settings()).run([NOISE])
    got = open_model(files["onnxruntime"], Settings("openvino"), [NOISE.shape]).run([NOISE])
    np.testing.assert_allclose(got[0], want[0], atol=1e-5)
    asked = Settings("openvino", options={"INFERENCE_PRECISION_HINT": "bf16"})
    assert open_model(files["openvino"], asked).precision in ("bfloat16", "float32")


def test_settings_travel_as_text() -> None:
    settings = Settings("openvino", 3, options={"ENABLE_CPU_PINNING": "NO"})
    assert Settings.from_json(settings.to_json()) == settings


def test_tuning_tries_threads_options_and_batches(files: dict[str, Path]) -> None:
    found = tune(files["onnxruntime"], Target(batch_size=2), Settings(), {"input": NOISE})
    assert {trial.batch_size for trial in found.trials} == {1, 2, 4, 8, 16, 32}
    assert {trial.threads for trial in found.trials} >= {1}
    assert any(trial.options for trial in found.trials)
    assert found.fastest.batch_size == 2
    assert found.fastest.latency_ms == min(
        trial.latency_ms for trial in found.trials if trial.batch_size == 2
    )
    assert found.busiest.samples_per_second >= found.fastest.samples_per_second
