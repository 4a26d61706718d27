"""Model formats are told by content; what carries code is refused by name."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from planish.contract.errors import InvalidModel, MissingPart, UnknownFormat, UnsafeModel
from planish.gate.identify import check_checkpoint, identify_model
from tests import zoo


class Canary:
    """A pickle of this object writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def test_known_formats_are_told_by_content_whatever_the_name(
    pt2: Path, checkpoint: Path, tmp_path: Path
) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.pt2")
    assert identify_model(pt2) == "pt2"
    assert identify_model(checkpoint) == "state_dict"
    assert identify_model(tmp_path / "weights.pt2") == "safetensors"


def test_old_checkpoints_without_a_zip_are_known(tmp_path: Path) -> None:
    module, _ = zoo.mlp()
    path = tmp_path / "old.pt"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False)
    assert identify_model(path) == "state_dict"
    assert check_checkpoint(path) is None


def test_an_empty_file_is_a_missing_part(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").touch()
    with pytest.raises(MissingPart, match="empty"):
        identify_model(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"Dear Planish, please find attached", "text file"),
        ("Grüße".encode() * 1000, "text file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"GGUF" + bytes(100), "GGUF"),
        (b"PAR1" + bytes(100), "parquet"),
        (bytes(range(200, 256)), "no known format"),
        (b"PK", "text file"),
    ],
)
def test_other_files_are_refused_with_what_they_are(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "a.pt2").write_bytes(content)
    with pytest.raises(UnknownFormat, match=says):
        identify_model(tmp_path / "a.pt2")


def test_other_zip_files_are_refused_with_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"")
    with pytest.raises(UnknownFormat, match="npz"):
        identify_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/code/__torch__.py", b"")
    with pytest.raises(UnsafeModel, match="TorchScript"):
        identify_model(path)


def test_a_bare_pickle_is_refused_unopened(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(UnsafeModel, match="pickle"):
        identify_model(tmp_path / "a.pt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["canary", "module"])
def test_a_checkpoint_that_holds_more_than_tensors_is_refused(
    tmp_path: Path, zipped: bool, kind: str
) -> None:
    content = Canary(tmp_path / "canary") if kind == "canary" else nn.Linear(2, 2)
    path = tmp_path / "a.pt"
    torch.save(
        {"state_dict": OrderedDict(a=torch.zeros(2)), "more": content},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(UnsafeModel, match=r"pickled (posix|torch)"):
        check_checkpoint(path)
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_with_another_protocol_is_refused_or_safe(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(2)}, path, pickle_protocol=4)
    with pytest.raises(UnsafeModel, match="STACK_GLOBAL"):
        check_checkpoint(path)


def test_an_old_layout_of_pt2_says_how_to_go_on(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", b"{}")
    with pytest.raises(InvalidModel, match="export the model again"):
        identify_model(tmp_path / "a.pt2")


def test_a_pickle_of_endless_steps_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"N0" * (1 << 20) + b"N.")
    with pytest.raises(InvalidModel, match="more than"):
        check_checkpoint(tmp_path / "a.pt")
