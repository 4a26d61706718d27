"""Parquet files become the same samples as arrays do; what cannot is refused by name."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import fx, nn

from planish.contract.errors import InputNotFound, InvalidData, LabelOutOfRange, NonFiniteData
from planish.contract.recipe import Simplify
from planish.contract.spec import DataSpec, Preprocess, Spec, Task
from tests.engine.load.parquet_files import encoded, images, labels, parquet
from worker.engine.load.data import load_splits
from worker.engine.load.dataset import Dataset
from worker.engine.model import InputSpec, Model

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) // 10
PNGS = [encoded(image) for image in PIXELS]
WANTED = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float()
NOTES = {"image": {"_type": "Image"}, "label": labels(4)}


def flat(*shape: int | str, classes: int = 4, name: str = "x") -> Model:
    """A linear layer over everything."""
    sizes = [size for size in shape if isinstance(size, int)]
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(sizes)), classes))
    return Model(fx.symbolic_trace(net).eval(), (InputSpec(name, shape, torch.float32),))


PHOTOS = flat("batch", 3, 6, 5)


class Reads(nn.Module):
    """Token ids, with or without a mask, in; logits over 20 tokens, or one class of 4, out."""

    def __init__(self, masked: bool, pooled: bool) -> None:
        super().__init__()
        self.masked, self.pooled = masked, pooled
        self.embed = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 4 if pooled else 20)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        if self.masked:
            x = x * attention_mask.unsqueeze(-1)
        return self.head(x.sum(1) if self.pooled else x)


def reads(length: int | str, *, masked: bool, pooled: bool) -> Model:
    module = fx.symbolic_trace(Reads(masked, pooled)).eval()
    inputs = [InputSpec("input_ids", ("batch", length), torch.int64)]
    if masked:
        inputs.append(InputSpec("attention_mask", ("batch", length), torch.int64))
    else:
        mask = module.graph.find_nodes(op="placeholder")[1]
        module.graph.erase_node(mask)
        module.recompile()
    return Model(module, tuple(inputs))


def load(path: Path, model: Model, task: Task = "classification", **data: object) -> Dataset:
    """Return everything in the file, in its order."""
    preprocess = Preprocess(**data.pop("preprocess", {}))
    spec = Spec(recipe=(Simplify(),), data=DataSpec(task=task, preprocess=preprocess, **data))
    splits = load_splits(spec, model, path, path)
    assert splits is not None
    assert splits.sealed is not None
    return splits.sealed


def everything(data: Dataset) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
    return data.prepare(np.arange(len(data)))


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("column", ["image", "img", "x"])
def test_images_and_class_labels_are_samples(tmp_path: Path, codec: str, column: str) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        {column: images(PNGS), "label": LABELS},
        {column: {"_type": "Image"}, "label": labels(4)},
        compression=codec,
        row_group_size=7,
    )
    (pixels,), targets = everything(load(path, PHOTOS))
    assert torch.equal(pixels, WANTED)
    assert targets.tolist() == LABELS.tolist()


def test_images_are_preprocessed_as_arrays_are(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"image": images(PNGS), "label": LABELS}, NOTES)
    given = {"scale": 1 / 255, "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
    (pixels,), _ = everything(load(path, PHOTOS, preprocess=given))
    mean, std = (torch.tensor(given[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    assert torch.allclose(pixels, (WANTED / 255 - mean) / std, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("stored", ["grey", "colour", "clear", "jpeg"])
def test_images_of_any_mode_get_the_models_channels(
    tmp_path: Path, channels: int, stored: str
) -> None:
    grey = PIXELS[..., 0]
    clear = np.concatenate([PIXELS, np.full((40, 6, 5, 1), 7, np.uint8)], -1)
    pixels = {"grey": grey, "colour": PIXELS, "clear": clear, "jpeg": PIXELS}[stored]
    kind = "JPEG" if stored == "jpeg" else "PNG"
    column = images([encoded(image, kind) for image in pixels])
    path = parquet(tmp_path / "a.parquet", {"image": column, "label": LABELS}, NOTES)
    (found,), _ = everything(load(path, flat("batch", channels, 6, 5)))
    assert found.shape == (40, channels, 6, 5)
    if stored == "grey":
        assert torch.equal(found[:, 0], torch.from_numpy(grey).float())
    if stored == "clear" and channels == 4:
        assert found[:, 3].unique().tolist() == [7.0]
    if stored in ("clear", "colour") and channels >= 3:
        assert torch.equal(found[:, :3], WANTED)


def test_images_of_all_sizes_are_resized_and_cut_where_asked(tmp_path: Path) -> None:
    shapes = [(12, 10), (30, 10), (12, 40), (6, 5), (3, 9)]
    grey = [np.full((*shape, 3), 9 * i, np.uint8) for i, shape in enumerate(shapes)]
    column = images([encoded(image) for image in grey * 4])
    path = parquet(tmp_path / "a.parquet", {"image": column, "label": LABELS[::2]}, NOTES)
    with pytest.raises(InvalidData, match=r"'image' row 0 is 12 x 10 pixels, 6 x 5 .*resize"):
        load(path, PHOTOS)
    (found,), _ = everything(load(path, PHOTOS, preprocess={"resize": 6}))
    assert found.shape == (20, 3, 6, 5)
    assert found[:5, 0, 0, 0].tolist() == [0, 9, 18, 27, 36]
    with pytest.raises(InvalidData, match=r"after data\.preprocess\.resize 5"):
        load(path, PHOTOS, preprocess={"resize": 5})


def test_images_stand_upright_as_their_exif_data_says(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # the right side of the file is the top
    turned = [encoded(np.rot90(image), exif=exif) for image in PIXELS]
    path = parquet(tmp_path / "a.parquet", {"image": images(turned), "label": LABELS}, NOTES)
    (found,), _ = everything(load(path, PHOTOS))
    assert torch.equal(found, WANTED)


@pytest.mark.parametrize("form", ["lists", "fixed", "nested fixed", "large"])
def test_lists_of_numbers_are_tensors(tmp_path: Path, form: str) -> None:
    rows = RNG.normal(size=(40, 2, 3)).astype(np.float32)
    kind = {
        "lists": pa.list_(pa.list_(pa.float32())),
        "fixed": pa.list_(pa.list_(pa.float32(), 3)),
        "nested fixed": pa.list_(pa.list_(pa.float32(), 3), 2),
        "large": pa.large_list(pa.large_list(pa.float32())),
    }[form]
    features = {"x": {"shape": [2, 3], "dtype": "float32", "_type": "Array2D"}}
    columns = {
        "x": pa.array(rows.tolist(), kind),
        "labels": LABELS.astype(np.int8),
        "text": ["a"] * 40,
    }
    path = parquet(tmp_path / "a.parquet", columns, features, row_group_size=9)
    (found,), targets = everything(load(path, flat("batch", 2, 3)))
    assert torch.equal(found, torch.from_numpy(rows))
    assert targets.tolist() == LABELS.tolist()


def test_numbers_are_targets_of_regression(tmp_path: Path) -> None:
    rows, wanted = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 4))
    for column, classes in ((wanted.tolist(), 4), (wanted[:, 0], 1)):
        path = parquet(tmp_path / "a.parquet", {"inputs": rows.tolist(), "label": column})
        _, targets = everything(load(path, flat("batch", 3, classes=classes), "regression"))
        assert torch.allclose(targets, torch.tensor(wanted[:, :classes], dtype=torch.float32))


def test_rows_of_tokens_are_padded_and_the_mask_is_made(tmp_path: Path) -> None:
    rows = [[1, 2, 3], [4], [5, 6, 7, 8], [9, 10]] * 10
    path = parquet(tmp_path / "a.parquet", {"input_ids": rows, "label": LABELS}, row_group_size=11)
    (ids, mask), _ = everything(load(path, reads(6, masked=True, pooled=True)))
    assert ids[:2].tolist() == [[1, 2, 3, 0, 0, 0], [4, 0, 0, 0, 0, 0]]
    assert mask[:2].tolist() == [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    (ids, _), _ = everything(load(path, reads("tokens", masked=True, pooled=True)))
    assert ids.shape == (40, 4)
    with pytest.raises(InvalidData, match="no input 'attention_mask' that would hide padding"):
        load(path, reads(6, masked=False, pooled=True))
    with pytest.raises(InvalidData, match=r"4 tokens in row 2; 1 to 3 .*truncation=True"):
        load(path, reads(3, masked=True, pooled=True))


def test_long_rows_are_cut_into_windows_of_the_model(tmp_path: Path) -> None:
    rows = [list(range(10)), [], [1], list(range(5)), list(range(10, 18))]
    path = parquet(tmp_path / "a.parquet", {"input_ids": pa.array(rows, pa.list_(pa.uint16()))})
    data = load(path, reads(4, masked=False, pooled=False), "language_modeling")
    (ids,), targets = everything(data)
    wanted = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [0, 1, 2, 3], [10, 11, 12, 13], [14, 15, 16, 17]]
    padded = [row + [-100] * (4 - len(row)) for row in wanted]
    assert targets.tolist() == padded
    assert ids.tolist() == [[max(token, 0) for token in row] for row in padded]
    masked = load(path, reads(4, masked=True, pooled=False), "language_modeling")
    (_, mask), targets = everything(masked)
    assert targets.tolist() == padded
    assert mask.tolist() == [[int(token >= 0) for token in row] for row in padded]
    assert (
        len(load(path, reads("s", masked=True, pooled=False), "language_modeling", window=5)) == 5
    )


def test_labels_of_tokens_are_cut_as_the_tokens_are(tmp_path: Path) -> None:
    rows = [list(range(1, 8))] * 20
    wanted = [[-100, *row[1:]] for row in rows]
    path = parquet(tmp_path / "a.parquet", {"input_ids": rows, "labels": wanted})
    _, targets = everything(load(path, reads(4, masked=True, pooled=False), "language_modeling"))
    assert targets[:2].tolist() == [[-100, 2, 3, 4], [5, 6, 7, -100]]
    wanted[3] = wanted[3][:-1]
    path = parquet(tmp_path / "a.parquet", {"input_ids": rows, "labels": wanted})
    with pytest.raises(InvalidData, match=r"'labels' has 6 values in row 3, the token ids 7"):
        load(path, reads(4, masked=True, pooled=False), "language_modeling")


def test_a_stream_of_tokens_is_cut_in_every_format(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    stream = np.arange(50) % 20
    np.savez(tmp_path / "a.npz", input_ids=stream, doc=np.zeros(3))
    save_file({"inputs": stream}, tmp_path / "a.safetensors")
    parquet(tmp_path / "a.parquet", {"input_ids": stream})
    for name in ("a.npz", "a.safetensors", "a.parquet"):
        data = load(tmp_path / name, reads(8, masked=False, pooled=False), "language_modeling")
        (ids,), targets = everything(data)
        assert torch.equal(ids, torch.from_numpy(stream[:48].reshape(6, 8)))
        assert torch.equal(ids, targets)


ROWS = {"x": RNG.normal(size=(40, 3)).tolist(), "label": LABELS}


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"image": images([*PNGS[:-1], None])}, InvalidData, "no bytes in row 39"),
        ({"image": images([b"GIF89a"] * 40)}, InvalidData, "row 0 is no whole PNG"),
        (
            {"image": images([*PNGS[:9], PNGS[9][:60], *PNGS[10:]])},
            InvalidData,
            "row 9 is no whole",
        ),
        ({"image": images([*PNGS[1:], encoded(PIXELS[0, :3])])}, InvalidData, "row 39 is 3 x 5"),
        ({"label": LABELS - 1}, LabelOutOfRange, r"label\[0\] is -1"),
        ({"label": LABELS.astype(float)}, InvalidData, "one class index"),
        ({"label": ["a"] * 40}, InvalidData, "class_encode_column"),
        ({"label": pa.array([None, *LABELS[1:]])}, InvalidData, "null in row 0"),
        ({"image": images([]), "label": LABELS[:0]}, InvalidData, "rows"),
        ({"image": PNGS}, InputNotFound, "no column named 'x' or 'inputs'"),
        ({"x": PNGS}, InvalidData, "holds bytes; for images"),
        ({"x": ["a"] * 40}, InvalidData, "holds texts"),
        ({"x": ROWS["x"]}, InvalidData, "nested 1 deep"),
    ],
)
def test_what_no_image_model_can_take_is_refused_by_name(
    tmp_path: Path, columns: dict[str, object], error: type[Exception], words: str
) -> None:
    whole = {"image": images(PNGS), "label": LABELS}
    path = parquet(tmp_path / "a.parquet", whole | columns)
    with pytest.raises(error, match=words):
        load(path, PHOTOS)


def test_rows_of_other_shapes_nulls_and_nan_are_named_with_their_place(tmp_path: Path) -> None:
    rows = RNG.normal(size=(40, 2, 3)).tolist()
    model = flat("batch", 2, 3)

    def refused(match: str, error: type[Exception] = InvalidData) -> None:
        path = parquet(tmp_path / "a.parquet", {"x": rows, "label": LABELS}, row_group_size=7)
        with pytest.raises(error, match=match):
            load(path, model)

    rows[23][1] = [1.0, 2.0]
    refused("'x' has 2 values in a list of row 23 where 3 are taken")
    rows[23][1] = [1.0, 2.0, None]
    refused("'x' is null in row 23")
    rows[23][1] = [1.0, 2.0, float("nan")]
    refused(r"'x' holds nan at \[23, 1, 2\]", NonFiniteData)
    rows[23] = None
    refused("'x' is null in row 23")


def test_a_damaged_page_is_invalid_data(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet", {"x": ROWS["x"], "label": LABELS}, write_page_checksum=True
    )
    whole = path.read_bytes()
    refused = 0
    for at in range(4, len(whole) - 700, 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            load(path, flat("batch", 3))
        except InvalidData:
            refused += 1
    assert refused


def test_several_class_labels_need_a_name(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "fine": labels(4), "coarse": labels(2)}
    columns = {"image": images(PNGS), "fine": LABELS, "coarse": LABELS // 2}
    with pytest.raises(InvalidData, match="'fine', 'coarse'; rename"):
        load(parquet(tmp_path / "a.parquet", columns, features), PHOTOS)
    del features["coarse"]
    data = load(parquet(tmp_path / "a.parquet", columns, features), PHOTOS)
    assert data.targets.tolist() == LABELS.tolist()


def test_the_scratch_file_goes_with_the_last_dataset(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = parquet(tmp_path / "a.parquet", {"image": images(PNGS), "label": LABELS}, NOTES)
    data = load(path, PHOTOS).head(3)
    gc.collect()
    assert len(list(tmp_path.glob("planish-data-*/*"))) == 1
    del data
    gc.collect()
    assert not list(tmp_path.glob("planish-data-*"))
