"""Latency: each side in its own lean process, in turns, and failures that say why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planish.contract.errors import JobFailed
from planish.contract.report import Latency
from tests.engine.passes.models import canonical, zoo_model
from tests.zoo import mlp
from worker.engine.measure.latency import Contender, SideTimes, compare_latency, paired_ratio
from worker.engine.measure.opened import Settings
from worker.engine.save.onnx import save_onnx


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contender]:
    """A wide and a narrow network with the same inputs."""
    folder = tmp_path_factory.mktemp("models")
    paths = {"wide": folder / "wide.onnx", "narrow": folder / "narrow.onnx"}
    save_onnx(canonical(*mlp(width=2048)), paths["wide"])
    save_onnx(zoo_model("mlp"), paths["narrow"])
    return {name: Contender(path, Settings()) for name, path in paths.items()}


CALL = {"input": np.zeros((64, 16), np.float32)}


def test_the_bigger_network_is_slower(models: dict[str, Contender]) -> None:
    done: list[float] = []
    times = compare_latency(models, CALL, rounds=8, on_progress=done.append)
    assert paired_ratio(times["wide"], times["narrow"]) > 3
    for side in times.values():
        assert len(side.rounds) == 8
        assert side.latency.samples == 24
        assert 0 < side.latency.p50 <= side.latency.p90 <= side.latency.p99
        assert side.peak_memory_bytes is not None
        assert side.peak_memory_bytes > 10 << 20
    assert done[-1] == 1.0


def test_a_spent_budget_leaves_five_rounds(models: dict[str, Contender]) -> None:
    times = compare_latency(models, CALL, rounds=50, budget_seconds=0)
    assert [len(side.rounds) for side in times.values()] == [5, 5]


def test_a_file_that_cannot_be_loaded_is_named(
    tmp_path: Path, models: dict[str, Contender]
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no protobuf")
    with pytest.raises(JobFailed, match="optimized"):
        compare_latency(
            {"baseline": models["wide"], "optimized": Contender(broken, Settings())}, CALL
        )


def test_the_ratio_is_paired_by_round() -> None:
    def side(*rounds: float) -> SideTimes:
        return SideTimes(Latency(p50=1, p90=1, p99=1, samples=3), rounds, None)

    assert paired_ratio(side(2, 20, 200), side(1, 10, 100)) == 2


def test_a_side_process_imports_neither_torch_nor_the_contract() -> None:
    code = (
        "import sys, worker.engine.measure.latency_side as _\n"
        "heavy = {'torch', 'onnx', 'pydantic', 'planish'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
