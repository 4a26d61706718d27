"""What the front desk refuses before it accepts a job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from planish.contract.architectures import ARCHITECTURES
from planish.contract.errors import (
    AmbiguousLayout,
    ArchitectureRequired,
    InputNotFound,
    InvalidData,
    InvalidModel,
    InvalidRecipe,
    MissingPart,
    UnknownArchitecture,
    UnknownFormat,
)
from planish.contract.recipe import Distill, Pass, Quantize, Retrain
from planish.contract.spec import (
    Architecture,
    DataSpec,
    InputDeclaration,
    ModelSpec,
    Preprocess,
    Spec,
)
from planish.gate.answers import differ, program_answer
from planish.gate.archive import MAX_ENTRIES
from planish.gate.check import check_upload
from planish.gate.pickles import MAX_PICKLE
from planish.gate.pt2 import MAX_NODES, MAX_PROGRAM, open_package
from planish.gate.safetensors import MAX_HEADER, MAX_TENSORS
from planish.gate.signature import Signature, show_shape
from tests import zoo
from tests.conftest import ROOT
from tests.exports import export_pt2
from tests.gate.files import QUICK, STATIC, npz

IMAGES = np.zeros((20, 8, 8), np.uint8)
LABELS = np.arange(20) % 10


def _architecture(name: str = "cifar_resnet", **config: object) -> ModelSpec:
    return ModelSpec(architecture=Architecture(library="planish", name=name, config=config))


def test_a_good_upload_passes_and_says_what_it_is(pt2: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "a.npz", x=IMAGES, targets=LABELS, names=["a"])
    report = check_upload(STATIC, {"model": pt2, "data": data, "test_data": data})
    assert report.model_format == "pt2"
    assert report.inputs == (Signature("x", ("batch", 1, 8, 8), "float32"),)
    assert (report.has_data, report.has_targets) == (True, True)


def test_one_input_may_be_called_inputs(pt2: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "a.npz", inputs=IMAGES[..., None], targets=LABELS[:, None])
    assert check_upload(STATIC, {"model": pt2, "data": data}).has_targets


def test_task_none_uses_no_labels(pt2: Path, tmp_path: Path) -> None:
    data = npz(tmp_path / "a.npz", x=IMAGES, targets=["cat"] * 20)
    spec = Spec(recipe=(Quantize(),), data=DataSpec(task="none"))
    assert not check_upload(spec, {"model": pt2, "data": data}).has_targets


def test_data_without_the_input_names_what_is_there_and_what_is_wanted(
    pt2: Path, tmp_path: Path
) -> None:
    data = npz(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS)
    with pytest.raises(InputNotFound, match=r"'x' or 'inputs'.*x_train, y_train"):
        check_upload(QUICK, {"model": pt2, "data": data})


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": IMAGES, "targets": LABELS[:19]}, "first dimension must agree"),
        ({"x": IMAGES, "targets": LABELS.astype(float)}, "class indices are integers"),
        ({"x": IMAGES, "targets": np.eye(10)[LABELS].astype(int)}, "one class index"),
        ({"x": IMAGES[:, :7], "targets": LABELS}, "cannot feed"),
        ({"x": np.array("scalar")}, "cannot feed|numbers"),
        ({"x": IMAGES[:0], "targets": LABELS[:0]}, "no samples"),
        ({"x": IMAGES.astype(str), "targets": LABELS}, "numbers of 8 to 64 bits"),
    ],
)
def test_data_that_does_not_fit_is_refused(pt2: Path, tmp_path: Path, arrays, says: str) -> None:
    with pytest.raises(InvalidData, match=says):
        check_upload(QUICK, {"model": pt2, "data": npz(tmp_path / "a.npz", **arrays)})


def test_fractions_cannot_feed_token_ids(tmp_path: Path) -> None:
    module, example = zoo.tiny_transformer()
    model = export_pt2(module, example, tmp_path / "a.pt2")
    data = npz(tmp_path / "a.npz", ids=np.zeros((5, 12), np.float32))
    with pytest.raises(InvalidData, match="takes int64"):
        check_upload(QUICK, {"model": model, "data": data})


def test_means_must_be_one_or_one_for_each_channel(pt2: Path, tmp_path: Path) -> None:
    spec = Spec(recipe=QUICK.recipe, data=DataSpec(preprocess=Preprocess(mean=(0.1, 0.2, 0.3))))
    with pytest.raises(InvalidData, match="takes 1 or 1") as refused:
        check_upload(spec, {"model": pt2})
    assert refused.value.errors[0].pointer == "/data/preprocess/mean"


def test_an_ambiguous_layout_is_refused_until_it_is_stated(
    checkpoint: Path, tmp_path: Path
) -> None:
    shape = InputDeclaration(name="input", shape=("batch", 3, 3, 3))
    model = _architecture().model_copy(update={"inputs": (shape,)})
    data = npz(tmp_path / "a.npz", input=np.zeros((20, 3, 3, 3)), targets=LABELS)
    spec = Spec(recipe=QUICK.recipe, model=model)
    with pytest.raises(AmbiguousLayout):
        check_upload(spec, {"model": checkpoint, "data": data})
    stated = DataSpec(preprocess=Preprocess(layout="nhwc"))
    check_upload(spec.model_copy(update={"data": stated}), {"model": checkpoint, "data": data})


def test_bare_weights_need_an_architecture(checkpoint: Path) -> None:
    with pytest.raises(ArchitectureRequired, match="cifar_resnet") as refused:
        check_upload(QUICK, {"model": checkpoint})
    assert refused.value.errors[0].pointer == "/model/architecture"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (_architecture("cifar_resnt"), "did you mean 'cifar_resnet'"),
        (_architecture(dept=20), "did you mean 'depth'"),
        (_architecture(depth=21), "6n \\+ 2"),
        (_architecture(depth="20"), "integer"),
        (_architecture(num_classes=0), "greater than or equal to 1"),
        (ModelSpec(architecture=Architecture(library="timm", name="x")), "names match"),
    ],
)
def test_an_unknown_architecture_or_config_is_refused_with_the_nearest(
    checkpoint: Path, model: ModelSpec, says: str
) -> None:
    with pytest.raises(UnknownArchitecture, match=says):
        check_upload(Spec(recipe=QUICK.recipe, model=model), {"model": checkpoint})


@pytest.mark.parametrize(
    "inputs",
    [
        (InputDeclaration(name="input", shape=("batch", 1, 32, 32)),),
        (InputDeclaration(name="input", shape=(2, 3, 32, 32)),),
        (InputDeclaration(name="input", shape=("batch", 3, 32)),),
        (InputDeclaration(name="input", shape=("batch", 3, 32, 32), dtype="int64"),),
        (InputDeclaration(name="input", shape=("batch", 3, "h", 32)),),
    ],
)
def test_stated_inputs_must_suit_the_architecture(checkpoint: Path, inputs) -> None:
    model = _architecture().model_copy(update={"inputs": inputs})
    with pytest.raises(InvalidModel, match="cifar_resnet takes") as refused:
        check_upload(Spec(recipe=QUICK.recipe, model=model), {"model": checkpoint})
    assert refused.value.errors[0].pointer == "/model/inputs"


def test_a_stated_format_or_architecture_must_agree_with_the_content(pt2: Path) -> None:
    stated = Spec(recipe=QUICK.recipe, model=ModelSpec(format="safetensors"))
    with pytest.raises(UnknownFormat, match="content is pt2"):
        check_upload(stated, {"model": pt2})
    with pytest.raises(InvalidModel, match="leave architecture out"):
        check_upload(Spec(recipe=QUICK.recipe, model=_architecture()), {"model": pt2})


def test_recipes_are_checked_against_the_files(pt2: Path, tmp_path: Path) -> None:
    spec = Spec(recipe=(Retrain(),))
    with pytest.raises(InvalidRecipe, match="send a data file"):
        check_upload(spec, {"model": pt2})
    with pytest.raises(InvalidRecipe, match="needs labels"):
        check_upload(spec, {"model": pt2, "data": npz(tmp_path / "a.npz", x=IMAGES)})


def test_test_data_comes_with_data_and_labels(pt2: Path, tmp_path: Path) -> None:
    labelled = npz(tmp_path / "a.npz", x=IMAGES, targets=LABELS)
    bare = npz(tmp_path / "b.npz", x=IMAGES)
    with pytest.raises(InvalidData, match="without data"):
        check_upload(QUICK, {"model": pt2, "test_data": labelled})
    with pytest.raises(InvalidData, match="test_data has no array named 'targets'"):
        check_upload(QUICK, {"model": pt2, "data": labelled, "test_data": bare})


def test_a_teacher_must_see_what_the_model_sees(pt2: Path, tmp_path: Path) -> None:
    module, example = zoo.mlp()
    other = export_pt2(module, example, tmp_path / "a.pt2")
    with pytest.raises(InvalidModel, match="same data"):
        check_upload(QUICK, {"model": pt2, "teacher": other})
    check_upload(QUICK, {"model": pt2, "teacher": pt2})
    with pytest.raises(MissingPart, match="teacher"):
        check_upload(Spec(recipe=QUICK.recipe, teacher=ModelSpec()), {"model": pt2})
    with pytest.raises(MissingPart, match="model"):
        check_upload(QUICK, {})


def test_a_student_must_see_what_the_model_sees(pt2: Path, tmp_path: Path) -> None:
    module, example = zoo.mlp()
    other = export_pt2(module, example, tmp_path / "a.pt2")
    with pytest.raises(InvalidModel, match=r"the student takes.*same data") as error:
        check_upload(QUICK, {"model": pt2, "student": other})
    assert error.value.errors[0].pointer == "/student"
    check_upload(QUICK, {"model": pt2, "student": pt2})


@pytest.mark.parametrize("part", ["teacher", "student"])
def test_other_outputs_than_the_models_are_refused_at_submit(
    pt2: Path, tmp_path: Path, part: str
) -> None:
    module, example = zoo.small_residual_cnn(classes=7)
    other = export_pt2(module, example, tmp_path / "a.pt2")
    words = rf"the {part}'s outputs are \(7\) per sample, the model's \(10\)"
    with pytest.raises(InvalidModel, match=words) as error:
        check_upload(QUICK, {"model": pt2, part: other})
    assert error.value.errors[0].pointer == f"/{part}"


def test_outputs_that_vary_are_left_to_the_worker(tmp_path: Path) -> None:
    tokens = export_pt2(*zoo.tied(), tmp_path / "a.pt2")
    assert program_answer(open_package(tokens).program()) == (7, 20)
    assert not differ((7, 20), (None, 20))
    assert differ((7, 20), (None, 21))
    assert differ((7, 20), (20,))


def built(recipe: tuple[Pass, ...], name: str | None = "cifar_resnet") -> Spec:
    named = None if name is None else Architecture(library="planish", name=name)
    return Spec(recipe=recipe, student=ModelSpec(architecture=named))


def test_a_student_of_random_weights_must_be_trained(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    images = export_pt2(network, (torch.zeros(2, 3, 32, 32),), tmp_path / "a.pt2")
    data = tmp_path / "data.npz"
    np.savez(data, inputs=np.zeros((4, 3, 32, 32), "f4"), targets=np.zeros(4, "i8"))
    paths = {"model": images, "data": data}
    with pytest.raises(InvalidRecipe, match="put distill or retrain into the recipe"):
        check_upload(built((Quantize(),)), paths)
    check_upload(built((Distill(), Quantize())), paths)


def test_a_student_without_file_and_architecture_is_a_missing_part(pt2: Path) -> None:
    with pytest.raises(MissingPart, match="send its file, or name its architecture"):
        check_upload(built((Quantize(),), None), {"model": pt2})


def test_a_student_built_for_other_images_is_refused(pt2: Path) -> None:
    with pytest.raises(InvalidModel, match="the student takes"):
        check_upload(built((Distill(alpha=1),), "ds_cnn"), {"model": pt2})
    with pytest.raises(UnknownArchitecture, match="cifar_resnet"):
        check_upload(built((Distill(alpha=1),), "cifar_resnett"), {"model": pt2})


def test_the_page_on_formats_holds_what_the_code_does() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    for entry in ARCHITECTURES:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{entry.name}`"))
        assert all(f"`{field}`" in row for field in entry.config.model_fields)
        assert show_shape(entry.inputs[0].shape) in row
    for known in (MAX_ENTRIES, MAX_NODES, MAX_TENSORS):
        assert f"{known:,}" in page
    for known in (MAX_PROGRAM, MAX_HEADER, MAX_PICKLE):
        assert f"{known >> 20} MiB" in page
