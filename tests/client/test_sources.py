"""What people may name as a model: a file, several, a folder, ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from planish.client.folder import pick
from planish.client.sources import PartSource, Sources
from planish.contract.errors import MissingPart

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
RIDERS = ("config.json", "tokenizer.json", "LICENSE", "README.md")
ID = "sha256:" + "a" * 64


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x")
    return path


def test_of_a_hugging_face_folder_weights_and_companions_are_taken(tmp_path: Path) -> None:
    others = (".gitattributes", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "train.py")
    folder(tmp_path, "model.safetensors", *RIDERS, *others)
    assert set(pick(tmp_path)) == {"model.safetensors", *RIDERS}


def test_an_index_brings_its_shards_and_no_others(tmp_path: Path) -> None:
    folder(tmp_path, FIRST, SECOND, "old.safetensors", *RIDERS)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}))
    assert set(pick(tmp_path)) == {INDEX, FIRST, SECOND, *RIDERS}


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("pytorch_model.bin", "training_args.bin"), {"pytorch_model.bin"}),
        (("net.pt2",), {"net.pt2"}),
        (("net.th", "net.pt"), {"net.pt"}),
        (("m.onnx", "m.onnx.data", "a.txt"), {"m.onnx", "m.onnx.data"}),
    ],
)
def test_one_set_of_weights_is_taken(
    tmp_path: Path, names: tuple[str, ...], taken: set[str]
) -> None:
    assert set(pick(folder(tmp_path, *names))) == taken


@pytest.mark.parametrize("names", [("config.json",), ("a.safetensors", "b.safetensors")])
def test_a_folder_without_a_clear_model_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(MissingPart, match=str(tmp_path)):
        pick(folder(tmp_path, *names))


def test_an_index_that_is_none_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match="weight_map"):
        pick(folder(tmp_path, INDEX, FIRST))


def test_lists_take_the_names_of_their_paths_and_mappings_their_own(tmp_path: Path) -> None:
    folder(tmp_path, "a", "b")
    listed = Sources([tmp_path / "a", tmp_path / "b"]).given()["model"]
    assert listed == {"a": tmp_path / "a", "b": tmp_path / "b"}
    named = {"model.safetensors": ID, "LICENSE": tmp_path / "a"}
    assert Sources(named).given()["model"] == named


def test_one_file_stays_one_file(tmp_path: Path) -> None:
    folder(tmp_path, "m.safetensors")
    alone: list[PartSource] = [tmp_path / "m.safetensors", [tmp_path / "m.safetensors"], tmp_path]
    for source in alone:
        assert Sources(source).given()["model"] == tmp_path / "m.safetensors"
    assert Sources(ID).given()["model"] == ID


@pytest.mark.parametrize(
    "source",
    [
        [ID, "a"],
        [],
        ["a", "sub/a"],
        ["a", "missing"],
        {"../a": "a", "b": "a"},
        {"a": "a", "A": "a"},
        {str(at): "a" for at in range(129)},
    ],
)
def test_names_that_do_not_work_are_refused_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: list[str] | Mapping[str, str]
) -> None:
    monkeypatch.chdir(folder(tmp_path, "a", "sub/a"))
    with pytest.raises(MissingPart, match="model"):
        Sources(source).given()


def test_a_folder_of_data_is_not_a_model(tmp_path: Path) -> None:
    folder(tmp_path, "model.safetensors")
    with pytest.raises(MissingPart, match=r"data: .* is a folder"):
        Sources(tmp_path, data=tmp_path).given()
