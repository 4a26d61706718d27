"""Several files of one model: shards with their index, and companions that only ride along."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from planish.contract.errors import InvalidModel, MissingPart
from planish.contract.parts import is_part_name, is_rider, repeated
from planish.gate.parts import MAX_RIDER, Part, Parts, model_files, riders_of
from tests.gate.files import safetensors

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
MAP = {"a": FIRST, "b": SECOND, "c": SECOND}


def shard(path: Path, *names: str) -> Path:
    header = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * at, 8 * at + 8]}
        for at, name in enumerate(names)
    }
    return safetensors(path, header, bytes(8 * len(names)))


def sharded(folder: Path, index: object, **changed: Path | None) -> Parts:
    """Two shards and an index; a file may be changed or left out."""
    (folder / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))
    files: dict[str, Path | None] = {
        INDEX: folder / INDEX,
        FIRST: shard(folder / FIRST, "a"),
        SECOND: shard(folder / SECOND, "b", "c"),
        **changed,
    }
    return Parts(tuple(Part(n, path) for n, path in files.items() if path is not None))


def test_the_shards_of_a_right_index_are_the_weights(tmp_path: Path) -> None:
    parts = sharded(tmp_path, {"metadata": {"total_size": 24}, "weight_map": MAP})
    files = model_files(parts)
    assert files.weights == (tmp_path / FIRST, tmp_path / SECOND)
    assert files.riders == ()


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {**MAP, "d": "other.safetensors"}}, "did not come: other.safetensors"),
        ({"weight_map": {**MAP, "d": "../../etc/passwd"}}, "did not come: ../../etc/passwd"),
        ({"weight_map": {"a": FIRST}}, f"nowhere in the index: {SECOND}"),
        ({"weight_map": {**MAP, "d": FIRST}}, "files without them: d"),
        ({"weight_map": {"a": FIRST, "b": SECOND}}, "'c'; the index has it nowhere"),
        ({"weight_map": {**MAP, "b": FIRST}}, f"'b'; the index has it in {FIRST}"),
        ({"weight_map": MAP, "metadata": {"total_size": 23}}, "says 23 bytes"),
        ({"weight_map": MAP, "metadata": {"total_size": "24"}}, "no number"),
        ({"weight_map": MAP, "metadata": {"total_size": True}}, "no number"),
        ({"weight_map": {**MAP, "a": 1}}, "no file name"),
        ({"weight_map": []}, "weight_map"),
        ([], "weight_map"),
        ("{", "not valid JSON"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "stands twice"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, index: object, says: str) -> None:
    with pytest.raises(InvalidModel, match=says.replace("(", r"\(")):
        model_files(sharded(tmp_path, index))


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    twice = {SECOND: shard(tmp_path / "twice", "a", "b", "c")}
    with pytest.raises(InvalidModel, match=f"'a'; the index has it in {FIRST}"):
        model_files(sharded(tmp_path, {"weight_map": MAP}, **twice))


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(shard(tmp_path / "whole", "b", "c").read_bytes()[:-1])
    with pytest.raises(InvalidModel, match=SECOND):
        model_files(sharded(tmp_path, {"weight_map": MAP}, **{SECOND: cut}))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=SECOND):
        model_files(sharded(tmp_path, {"weight_map": MAP}, **{SECOND: None}))


def _parts(folder: Path, **contents: bytes) -> Parts:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return Parts(tuple(Part(name, folder / name) for name in contents))


def test_companions_ride_along_and_are_no_weights(tmp_path: Path) -> None:
    parts = _parts(tmp_path, **{"model.bin": b"x", "config.json": b"{}", "LICENSE": b"free"})
    files = model_files(parts)
    assert files.weights == (tmp_path / "model.bin",)
    assert [rider.name for rider in files.riders] == ["config.json", "LICENSE"]
    assert files.config == tmp_path / "config.json"
    assert riders_of(parts) == files.riders
    assert model_files(tmp_path / "model.bin").config is None


def test_a_companion_may_not_be_nested_deep_nor_huge(tmp_path: Path) -> None:
    deep = _parts(tmp_path, **{"m": b"x", "tokenizer.json": b'{"a":' + b"[" * 64 + b"]" * 64})
    with pytest.raises(InvalidModel, match="nested deeper than 64"):
        model_files(deep)
    with (tmp_path / "vocab.txt").open("wb") as file:
        file.truncate(MAX_RIDER + 1)
    huge = Parts((*deep.files[:1], Part("vocab.txt", tmp_path / "vocab.txt")))
    with pytest.raises(InvalidModel, match=r"vocab.txt has \d+ bytes"):
        model_files(huge)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": "' + b"[" * 1000 + b'"}',
        b'"' + rb"\"" * 2_000_000,
        b'"' * 2_000_001,
        b"]" * 2_000_000,
        b'{"[": "\\\\", "b": ["\\"[[["]}',
    ],
)
def test_depth_is_counted_outside_of_strings_and_quickly(tmp_path: Path, content: bytes) -> None:
    model_files(_parts(tmp_path, **{"m": b"x", "tokenizer.json": content}))


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (("config.json", "README.md"), MissingPart),
        (("a.safetensors", "b.safetensors"), InvalidModel),
        (("model.safetensors", "evil.py"), InvalidModel),
        ((INDEX, "b.safetensors.index.json", "c"), InvalidModel),
    ],
)
def test_files_that_belong_to_nothing_are_refused(
    tmp_path: Path, names: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        model_files(_parts(tmp_path, **dict.fromkeys(names, b"{}")))


@pytest.mark.parametrize(
    ("tell", "good", "bad"),
    [
        (is_part_name, ["a", "a.b-c_1", "A" * 128], ["", "..", ".a", "a/b", "a\n", "ä", "A" * 129]),
        (
            is_rider,
            ["LICENSE", "LICENSE.txt", "LICENCE-2.md", "README.md", "vocab.txt", "NOTICE"],
            ["LICENSE.py", "x.json", "README.md.sh", "tokenizer.py", "LICENSE\n"],
        ),
    ],
)  # fmt: skip
def test_names_are_told_apart(tell: Callable[[str], bool], good: list[str], bad: list[str]) -> None:
    assert all(map(tell, good))
    assert not any(map(tell, bad))


def test_names_that_differ_in_case_alone_are_the_same() -> None:
    assert repeated(["a", "B", "b"]) == "b"
    assert repeated(["a", "b"]) is None
