"""Each gate with what feeds it: `mutate` makes one more input, `run` gives it to the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from planish.contract.errors import InvalidInput, InvalidModel
from planish.contract.validation import parse_spec
from planish.gate.answers import program_answer
from planish.gate.archive import read_archive
from planish.gate.arrays import read_headers
from planish.gate.identify import check_checkpoint, identify_model
from planish.gate.onnx import check_external, onnx_inputs, read_onnx
from planish.gate.parquet import read_parquet
from planish.gate.pickles import check_legacy, check_pickle
from planish.gate.pt2 import check_content, open_package, program_inputs
from planish.gate.safetensors import read_tensors
from tests.hostile.fuzz import seeds
from tests.hostile.fuzz.documents import mutate_json
from tests.hostile.fuzz.forms import feed_form, feed_tus, mutate_form, mutate_tus, scratch_folder
from tests.hostile.fuzz.pickled import mutate_pickle, split_pickle
from tests.hostile.fuzz.plain import mutate_bytes
from tests.hostile.fuzz.wire import mutate_message, mutate_struct, read_struct, write_value
from tests.hostile.fuzz.zips import Member, mutate_zip, write_zip

Mutate = Callable[[Random], bytes]
Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One way into a gate. `run` returns, or raises an error of the contract; the rest escapes.

    Attributes:
        name: of this way.
        gate: several ways may lead into one.
        share: of the runs of its gate.
        mutate: makes an input.
        run: what the front desk does with it.
        suffix: of a file that an input is kept in.
    """

    name: str
    gate: str
    share: float
    mutate: Mutate
    run: Run
    suffix: str = ""


@cache
def _scratch() -> Path:
    """A file in memory where there is such a folder: a million runs write it a million times."""
    return scratch_folder() / "file"


def _file(check: Callable[[Path], object]) -> Run:
    def run(raw: bytes) -> None:
        path = _scratch()
        path.write_bytes(raw)
        check(path)

    return run


def _with_bytes(rng: Random, raw: bytes, share: float = 0.15) -> bytes:
    """Return what a structured mutator made, sometimes with its bytes changed as well."""
    return mutate_bytes(rng, raw) if rng.random() < share else raw


# zip and pt2


@cache
def _pt2() -> tuple[list[Member], dict[str, object]]:
    members = [m for m in seeds.members(seeds.pt2()) if b"/.data/" not in m.name]
    documents = {m.name.decode(): json.loads(m.content) for m in members if b".json" in m.name}
    return members, documents


def mutate_pt2(rng: Random) -> bytes:
    """Change a document of the package, or its archive."""
    members, documents = _pt2()
    if rng.random() < 0.25:
        return _with_bytes(rng, mutate_zip(rng, members))
    names = list(documents)
    name = rng.choice((*names, *[n for n in names if "/models/" in n] * 4))
    changed = mutate_json(rng, documents[name])
    return write_zip(
        [Member(m.name, changed if m.name == name.encode() else m.content) for m in members]
    )


def check_pt2(path: Path) -> None:
    """Do all that the front desk does with a package."""
    if identify_model(path) != "pt2":
        return
    package = open_package(path)
    program = package.program()
    program_inputs(program)
    check_content(package, program)
    program_answer(program)


def mutate_archive(rng: Random) -> bytes:
    """Change an archive of any kind."""
    source = rng.choice((seeds.checkpoint(), seeds.npz(True), seeds.pt2()))
    return _with_bytes(rng, mutate_zip(rng, _members(source)), 0.4)


@cache
def _members(raw: bytes) -> list[Member]:
    return seeds.members(raw)


def check_archive(path: Path) -> None:
    """Read an archive's directory and all its members."""
    archive = read_archive(path, InvalidModel, allow_deflate=True)
    for name in archive.entries:
        archive.read(name, 1 << 20)


# pickles


@cache
def _pickle() -> list[bytes]:
    return split_pickle(next(m.content for m in _members(seeds.checkpoint()) if b".pkl" in m.name))


def mutate_checkpoint(rng: Random) -> bytes:
    """Change the pickle of a checkpoint, its archive, or one of the old layout."""
    kind = rng.random()
    if kind < 0.6:
        changed = _with_bytes(rng, mutate_pickle(rng, _pickle()))
        members = _members(seeds.checkpoint())
        return write_zip(
            [Member(m.name, changed if b".pkl" in m.name else m.content) for m in members]
        )
    if kind < 0.8:
        return _with_bytes(rng, mutate_zip(rng, _members(seeds.checkpoint())))
    return mutate_bytes(rng, seeds.legacy_checkpoint())


def check_weights(path: Path) -> None:
    """Do all that the front desk does with a checkpoint."""
    if identify_model(path) == "state_dict":
        check_checkpoint(path)


def mutate_bare_pickle(rng: Random) -> bytes:
    """Change the pickle of a checkpoint."""
    return _with_bytes(rng, mutate_pickle(rng, _pickle()))


def run_pickle(raw: bytes) -> None:
    """Walk bare pickles of both layouts."""
    for check in (check_pickle, check_legacy):
        try:
            check(raw)
        except InvalidInput as error:
            last = error
        else:
            return
    raise last


# arrays


def mutate_safetensors(rng: Random) -> bytes:
    """Change the header, the length before it, or the bytes after it."""
    raw = seeds.safetensors(mutate_json(rng, seeds.safetensors_header()))
    return _with_bytes(rng, raw, 0.25)


def check_tensors(path: Path) -> None:
    """Read the header of a safetensors file."""
    read_tensors(path, InvalidModel)


def mutate_npz(rng: Random) -> bytes:
    """Change an array's header, or the archive."""
    members = list(_members(seeds.npz(rng.random() < 0.5)))
    if rng.random() < 0.4:
        return _with_bytes(rng, mutate_zip(rng, members))
    at = rng.randrange(len(members))
    member = members[at]
    header, body = member.content[10:128], member.content[128:]
    changed = mutate_bytes(rng, header)
    content = member.content[:8] + len(changed).to_bytes(2, "little") + changed + body
    if rng.random() < 0.1:
        content = mutate_bytes(rng, member.content)
    members[at] = Member(member.name, content, member.deflated)
    return write_zip(members)


# onnx and parquet


def mutate_onnx(rng: Random) -> bytes:
    """Change a field at any depth."""
    return _with_bytes(rng, mutate_message(rng, rng.choice(seeds.onnx())), 0.1)


def check_onnx(path: Path) -> None:
    """Do all that the front desk does with an ONNX file."""
    identify_model(path)
    header = read_onnx(path)
    check_external(header, {"w.bin": path})
    onnx_inputs(header)


@cache
def _footers() -> tuple[tuple[bytes, object], ...]:
    cut = [(raw, len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")) for raw in seeds.parquet()]
    return tuple((raw[:end], read_struct(raw[end:-8])[0]) for raw, end in cut)


def mutate_parquet(rng: Random) -> bytes:
    """Change the footer's struct, a page's header, or any byte."""
    body, footer = rng.choice(_footers())
    if rng.random() < 0.2:
        body = mutate_bytes(rng, body)
    else:
        footer = mutate_struct(rng, footer)
    tail = write_value(footer)
    return _with_bytes(rng, body + tail + len(tail).to_bytes(4, "little") + b"PAR1", 0.1)


# what the front desk reads beside files


def mutate_spec(rng: Random) -> bytes:
    """Change the spec of a job."""
    return mutate_json(rng, seeds.SPEC)


def check_spec(raw: bytes) -> None:
    """Read a spec."""
    parse_spec(raw)


TARGETS = {
    target.name: target
    for target in (
        Target("pt2", "pt2/zip", 0.25, mutate_pt2, _file(check_pt2), ".pt2"),
        Target("zip", "pt2/zip", 0.75, mutate_archive, _file(check_archive), ".zip"),
        Target("state_dict", "pickle", 0.2, mutate_checkpoint, _file(check_weights), ".pt"),
        Target("pickle", "pickle", 0.8, mutate_bare_pickle, run_pickle, ".pkl"),
        Target("safetensors", "safetensors", 1, mutate_safetensors, _file(check_tensors)),
        Target("npz", "npz/npy", 1, mutate_npz, _file(read_headers), ".npz"),
        Target("onnx", "onnx", 1, mutate_onnx, _file(check_onnx), ".onnx"),
        Target("parquet", "parquet", 1, mutate_parquet, _file(read_parquet), ".parquet"),
        Target("spec", "spec", 1, mutate_spec, check_spec, ".json"),
        Target("multipart", "multipart/tus", 0.6, mutate_form, feed_form),
        Target("tus", "multipart/tus", 0.4, mutate_tus, feed_tus, ".json"),
    )
}
