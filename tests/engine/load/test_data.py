"""Data files become model inputs: layouts, types, ranges, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import fx, nn

from planish.contract.errors import InvalidData, LabelOutOfRange, NonFiniteData
from planish.contract.recipe import Simplify
from planish.contract.spec import DataSpec, ModelSpec, Preprocess, Spec
from tests import zoo
from tests.exports import export_pt2
from tests.gate.files import npz
from worker.engine.load import load_model
from worker.engine.load.data import load_splits, synthetic
from worker.engine.model import InputSpec, Model

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) // 10


def _model(shape: tuple[int | str, ...] = ("batch", 3, 6, 5), classes: int = 4) -> Model:
    features = int(np.prod(shape[1:]))
    net = nn.Sequential(nn.Flatten(), nn.Linear(features, classes))
    return Model(fx.symbolic_trace(net).eval(), (InputSpec("image", shape, torch.float32),))


def _spec(**preprocess: object) -> Spec:
    return Spec(recipe=(Simplify(),), data=DataSpec(preprocess=Preprocess(**preprocess)))


def _read(path: Path, spec: Spec, model: Model) -> tuple[torch.Tensor, torch.Tensor | None]:
    splits = load_splits(spec, model, path, path)
    assert splits is not None
    assert splits.sealed is not None
    (images,), targets = splits.sealed.prepare(np.arange(len(splits.sealed)))
    return images, targets


WANTED = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(
    "stored",
    [
        IMAGES,
        IMAGES.transpose(0, 3, 1, 2),
        np.asfortranarray(IMAGES),
        IMAGES.astype(np.float64),
        IMAGES.astype(">i4"),
    ],
    ids=["nhwc", "nchw", "fortran", "double", "big endian"],
)
@pytest.mark.parametrize("save", ["npz", "packed", "safetensors"])
def test_images_arrive_as_nchw_floats(tmp_path: Path, stored: np.ndarray, save: str) -> None:
    path = tmp_path / "data"
    if save == "safetensors":
        native = stored.astype(stored.dtype.newbyteorder("="))
        save_file({"image": np.ascontiguousarray(native), "targets": LABELS}, path)
    else:
        with path.open("wb") as file:
            (np.savez if save == "npz" else np.savez_compressed)(file, image=stored, targets=LABELS)
    images, targets = _read(path, _spec(), _model())
    assert torch.equal(images, WANTED)
    assert images.is_contiguous()
    assert targets is not None
    assert targets.tolist() == LABELS.tolist()


def test_preprocessing_is_scale_then_mean_and_deviation_per_channel(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", image=IMAGES, targets=LABELS)
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    images, _ = _read(path, _spec(scale=1 / 255, mean=mean, std=std), _model())
    shape = (1, 3, 1, 1)
    wanted = (WANTED / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    assert torch.allclose(images, wanted, atol=1e-6)


def test_a_missing_channel_axis_is_added(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", image=IMAGES[..., 0], targets=LABELS)
    images, _ = _read(path, _spec(), _model(("batch", 1, 6, 5)))
    assert torch.equal(images, WANTED[:, :1])


def test_stored_arrays_are_mapped_and_not_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", image=IMAGES, targets=LABELS)
    splits = load_splits(_spec(), _model(), path, None)
    assert splits is not None
    values = splits.train.inputs[0].values
    assert isinstance(values.base, np.memmap) or isinstance(values, np.memmap)
    assert not values.flags.writeable


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "uint64"])
@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_labels_of_any_integer_type_are_taken(tmp_path: Path, dtype: str, shape) -> None:
    path = npz(tmp_path / "a.npz", image=IMAGES, targets=LABELS.astype(dtype).reshape(shape))
    _, targets = _read(path, _spec(), _model())
    assert targets is not None
    assert targets.dtype == torch.int64
    assert targets.tolist() == LABELS.tolist()


@pytest.mark.parametrize(("label", "dtype"), [(4, int), (-1, int), (2**64 - 1, np.uint64)])
def test_a_label_outside_the_classes_is_named_with_its_place(
    tmp_path: Path, label: int, dtype: type
) -> None:
    labels = LABELS.astype(dtype)
    labels[17] = label
    path = npz(tmp_path / "a.npz", image=IMAGES, targets=labels)
    with pytest.raises(LabelOutOfRange, match=rf"targets\[17\] is {label}; .* from 0 to 3"):
        load_splits(_spec(), _model(), path, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite_are_named_with_their_place(
    tmp_path: Path, value: float
) -> None:
    images = IMAGES.astype(np.float64)
    images[7, 2, 1, 0] = value
    path = npz(tmp_path / "a.npz", image=images, targets=LABELS)
    with pytest.raises(NonFiniteData, match=r"'image' holds .* at \[7, 2, 1, 0\]"):
        load_splits(_spec(), _model(), path, None)


def test_token_ids_outside_the_embedding_are_refused(tmp_path: Path) -> None:
    module, example = zoo.tiny_transformer()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    ids = np.zeros((20, 12), np.uint16)
    good = npz(tmp_path / "a.npz", ids=ids, targets=np.arange(20) % 4)
    (tokens,), _ = load_splits(_spec(), model, good, good).sealed.prepare(np.arange(3))
    assert tokens.dtype == torch.int64
    ids[3, 3] = 50
    path = npz(tmp_path / "b.npz", ids=ids, targets=np.arange(20) % 4)
    with pytest.raises(InvalidData, match="'embed' takes 0 to 49"):
        load_splits(_spec(), model, path, None)


def test_only_images_are_normalized_where_there_are_images(tmp_path: Path) -> None:
    module, example = zoo.two_inputs()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    image, facts = np.ones((30, 6, 6), np.float32), np.ones((30, 5), np.float32)
    path = npz(tmp_path / "a.npz", image=image, facts=facts, targets=np.arange(30) % 3)
    splits = load_splits(_spec(scale=0.5, mean=(0.5,), std=(2.0,)), model, path, path)
    (first, second), _ = splits.sealed.prepare(np.arange(2))
    assert first.unique().tolist() == [0.0]
    assert second.unique().tolist() == [1.0]


def test_classification_needs_logits_of_two_dimensions(tmp_path: Path) -> None:
    module, example = zoo.tied()
    model = load_model(export_pt2(module, example, tmp_path / "a.pt2"), ModelSpec())
    path = npz(tmp_path / "a.npz", ids=np.zeros((9, 7), int))
    with pytest.raises(InvalidData, match=r'set data\.task to "none"'):
        load_splits(_spec(), model, path, None)
    spec = Spec(recipe=(Simplify(),), data=DataSpec(task="none"))
    assert load_splits(spec, model, path, None).train.targets is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_changed_byte_of_an_array_is_found(tmp_path: Path, save) -> None:
    save(tmp_path / "a.npz", image=IMAGES, targets=LABELS)
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(InvalidData, match="damaged"):
        load_splits(_spec(), _model(), tmp_path / "a.npz", None)


def test_without_data_there_are_no_splits_but_noise() -> None:
    model = _model()
    assert load_splits(_spec(), model, None, None) is None
    one, two = synthetic(model, 6, 3), synthetic(model, 6, 3)
    assert len(one) == 6
    (first,), targets = one.prepare(np.arange(6))
    assert torch.equal(first, two.prepare(np.arange(6))[0][0])
    assert targets is None


def test_values_never_show_in_a_representation(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", image=IMAGES, targets=LABELS)
    splits = load_splits(_spec(), _model(), path, None)
    assert str(int(IMAGES[0, 0, 0, 0])) + "," not in repr(splits)
    assert len(repr(splits)) < 2000
