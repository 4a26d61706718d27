"""Bad models and data against a real service: a clear 4xx or a failed job, never a 500."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from planish.contract.job import Job
from tests.cli.conftest import Service
from tests.engine.digits import SCALE, Digits
from tests.zoo import mlp

SPEC = {
    "recipe": [{"op": "quantize", "samples": 64}],
    "data": {"preprocess": {"scale": SCALE}},
}


def post(service: Service, spec: object, files: dict[str, bytes]) -> httpx.Response:
    parts = {name: (name, content) for name, content in files.items()}
    return httpx.post(
        f"{service.url}/jobs", data={"spec": json.dumps(spec)}, files=parts, timeout=60
    )


def ended(service: Service, answer: httpx.Response) -> Job:
    assert answer.status_code == 202, answer.text
    done = service.run("wait", answer.json()["id"], "--timeout", 200, "--json")
    assert done.code == 4, done.err
    return Job.model_validate_json(httpx.get(service.url + answer.headers["Location"]).content)


def arrays(tmp_path: Path, **values: np.ndarray) -> bytes:
    np.savez(tmp_path / "data.npz", **values)
    return (tmp_path / "data.npz").read_bytes()


def test_label_outside_the_classes_fails_with_its_value(
    service: Service, digits: Digits, tmp_path: Path
) -> None:
    data = np.load(digits.data)
    labels = data["targets"].copy()
    labels[7] = 12
    content = arrays(tmp_path, inputs=data["inputs"], targets=labels)
    job = ended(service, post(service, SPEC, {"model": digits.model.read_bytes(), "data": content}))
    assert job.error is not None
    assert job.error.code == "label_out_of_range"
    assert "12" in job.error.detail


def test_nan_pixel_fails_as_non_finite(service: Service, digits: Digits, tmp_path: Path) -> None:
    data = np.load(digits.data)
    images = data["inputs"].astype(np.float32)
    images[3, 0, 2, 2] = np.nan
    content = arrays(tmp_path, inputs=images, targets=data["targets"])
    job = ended(service, post(service, SPEC, {"model": digits.model.read_bytes(), "data": content}))
    assert job.error is not None
    assert job.error.code == "non_finite_data"


def test_weights_of_another_architecture_name_the_keys(service: Service, tmp_path: Path) -> None:
    torch.save(mlp()[0].state_dict(), tmp_path / "mlp.pt")
    architecture = {"library": "planish", "name": "cifar_resnet", "config": {"depth": 20}}
    spec = {"recipe": [{"op": "simplify"}], "model": {"architecture": architecture}}
    answer = post(service, spec, {"model": (tmp_path / "mlp.pt").read_bytes()})
    job = ended(service, answer)
    assert job.error is not None
    assert job.error.code == "state_dict_mismatch"
    assert "conv1.weight" in job.error.detail


@pytest.mark.parametrize("place", range(1, 21))
def test_model_cut_anywhere_is_refused_at_submit(
    service: Service, digits: Digits, place: int
) -> None:
    whole = digits.model.read_bytes()
    cut = whole[: len(whole) * place // 21]
    answer = post(service, SPEC, {"model": cut, "data": digits.data.read_bytes()})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in {"invalid_model", "unknown_model_format"}
