"""Another network in the model's place: uploaded, or built from its architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import JsonValue
from torch import Tensor, nn

from planish.contract.architectures import CifarResNet
from planish.contract.errors import InvalidModel, InvalidRecipe, MissingPart
from planish.contract.report import Report
from planish.contract.spec import Architecture, ModelSpec, Spec
from planish.contract.validation import spec_from
from tests import zoo
from tests.engine.digits import SCALE, Digits, trained_digits
from tests.engine.passes.models import same_weights, weights
from tests.exports import export_pt2, save_state_dict
from worker.engine.load.architectures.build import build_network
from worker.engine.load.construct import construct_model
from worker.engine.pipeline import JobInputs, make_plan, optimize
from worker.engine.prepare import prepare
from worker.engine.progress import Silent

DISTILL: dict[str, JsonValue] = {
    "op": "distill",
    "control": True,
    "train": {"epochs": 5, "lr": 0.1, "batch_size": 64},
}


class Small(nn.Module):
    """A network with another name for its input than the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 4 * 4, 10)

    def forward(self, scan: Tensor) -> Tensor:
        """Return logits, (N, 10)."""
        return self.head(torch.relu(self.norm(self.conv(scan))).flatten(1))


def job(*recipe: JsonValue, **more: JsonValue) -> Spec:
    data = {"preprocess": {"scale": SCALE}}
    target: JsonValue = {"threads": 1}
    return spec_from({"data": data, "recipe": list(recipe), "target": target, **more})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return trained_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("small") / "small.pt2"
    return export_pt2(Small().eval(), (torch.zeros(2, 1, 8, 8),), path)


@pytest.fixture(scope="module")
def finished(
    digits: Digits, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, Path]:
    inputs = JobInputs(
        None, job(DISTILL), digits.model, digits.data, digits.test_data, student=small
    )
    out = tmp_path_factory.mktemp("out")
    return optimize(inputs, out, Silent()), out


def test_the_student_is_delivered_and_the_model_is_the_baseline(
    finished: tuple[Report, Path],
) -> None:
    report, out = finished
    ours = sum(p.numel() for p in Small().parameters())
    assert report.optimized.params == ours
    assert report.baseline.params > 5 * ours
    assert report.optimized.metric.value > 0.5
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["x"]


def test_the_report_says_that_a_student_was_used(finished: tuple[Report, Path]) -> None:
    (done,) = finished[0].passes
    before, after = finished[0].baseline.params, finished[0].optimized.params
    words = (
        f"uploaded, from its own weights, {after:,} parameters in place of the model's {before:,}"
    )
    assert done.facts["student"] == words


def test_the_report_tells_what_the_teacher_was_worth(finished: tuple[Report, Path]) -> None:
    report, out = finished
    facts = report.passes[0].facts
    control = facts["control"]
    assert control["sealed_samples"] == 450
    assert control["sealed_with_teacher"] == pytest.approx(report.optimized.metric.value, abs=0.01)
    assert [layer.name for layer in report.layers] == ["conv", "head"]
    assert "points of accuracy" in facts["teacher_gain"]
    assert str(facts["teacher_gain"]) in (out / "report.html").read_text()


def test_a_plan_works_on_the_student(digits: Digits, small: Path) -> None:
    plan = make_plan(JobInputs(None, job(DISTILL), digits.model, digits.data, student=small))
    assert plan.after.params < plan.before.params
    assert [layer.name for layer in plan.passes[0].layers] == ["conv", "head"]


def resnet(width: int) -> ModelSpec:
    config: dict[str, JsonValue] = {"depth": 8, "width": width}
    named = Architecture(library="planish", name="cifar_resnet", config=config)
    return ModelSpec(architecture=named)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights of a ResNet-8 of eight channels, and a few images."""
    folder = tmp_path_factory.mktemp("images")
    torch.manual_seed(0)
    network = build_network(CifarResNet(depth=8, width=8))
    data = folder / "data.npz"
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, (40, 32, 32, 3), np.uint8)
    np.savez(data, inputs=values, targets=np.arange(40) % 10)
    return save_state_dict(network, folder / "model.pt"), data


def test_an_architecture_alone_starts_at_weights_of_the_seed(images: tuple[Path, Path]) -> None:
    model, data = images
    more = {
        "model": resnet(8).model_dump(mode="json"),
        "student": resnet(4).model_dump(mode="json"),
    }
    prepared = [
        prepare(JobInputs(None, job(DISTILL, seed=seed, **more), model, data)) for seed in (3, 3, 4)
    ]
    first, same, other = (weights(each.start) for each in prepared)
    assert same_weights(first, same)
    assert not same_weights(first, other)
    assert prepared[0].student_is_built
    assert prepared[0].start.inputs == prepared[0].original.inputs


def test_built_networks_are_drawn_as_he_says_and_leave_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    model = construct_model(resnet(16), 0)
    assert torch.equal(state, torch.random.get_rng_state())
    conv = model.module.get_parameter("layer3.0.conv2.weight")
    assert conv.detach().std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert bool((model.module.get_parameter("layer3.0.bn2.weight") == 1).all())


def test_a_built_student_that_nobody_trains_is_refused(images: tuple[Path, Path]) -> None:
    model, data = images
    more = {
        "model": resnet(8).model_dump(mode="json"),
        "student": resnet(4).model_dump(mode="json"),
    }
    with pytest.raises(InvalidRecipe, match="put distill or retrain into the recipe"):
        prepare(JobInputs(None, job({"op": "quantize"}, **more), model, data))


def test_a_student_that_is_only_described_is_a_missing_part(digits: Digits) -> None:
    with pytest.raises(MissingPart, match="send its file, or name its architecture"):
        prepare(JobInputs(None, job(DISTILL, student={}), digits.model, digits.data))


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (zoo.small_residual_cnn(classes=7), r"the student's outputs are \(7,\).*model's \(10,\)"),
        (zoo.mlp(), "the student takes .*, the model x"),
    ],
    ids=["outputs", "inputs"],
)
def test_a_student_that_answers_something_else_is_refused(
    digits: Digits, tmp_path: Path, net: tuple[nn.Module, tuple[Tensor, ...]], why: str
) -> None:
    other = export_pt2(*net, tmp_path / "other.pt2")
    with pytest.raises(InvalidModel, match=why) as error:
        prepare(JobInputs(None, job(DISTILL), digits.model, digits.data, student=other))
    assert error.value.errors[0].pointer == "/student"
