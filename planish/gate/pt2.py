"""What a ``.pt2`` file (torch.export program) says about itself, read without torch.

The archive holds JSON and raw weights; it may also hold pickles, native code and Python source.
Those are refused or never opened. Facts: torch/_export/serde/schema.py, schema version 8.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from planish.contract.errors import InvalidModel, UnsafeModel
from planish.gate.archive import Archive, Entry, read_archive
from planish.gate.document import Value, parse
from planish.gate.operators import REGIONS, SIZE_ARITHMETIC, split_target
from planish.gate.signature import BATCH, Signature
from planish.gate.symbols import is_symbol, read_size

SCHEMA_MAJOR = 8
MAX_PROGRAM = 64 << 20
MAX_CONFIG = 32 << 20
MAX_NODES = 100_000
MAX_RANK = 8
MAX_TRACE = 20_000

SCALAR_TYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}
PAYLOADS = (("data/weights", "weights"), ("data/constants", "constants"))
_NATIVE = ("data/aotinductor/", "data/executorch/")
_OBJECT = re.compile(r"data/(weights|constants)/(custom_obj|opaque_obj)_\d+")
_PAYLOAD = re.compile(r"(weight|tensor)_\d{1,7}")
_PATH = re.compile(r"[\w.]{1,500}", re.ASCII)
_LINE = re.compile(
    r'^ *File "(?:[^"\n]*[/\\])?([\w.-]{1,100})", line (\d{1,7})', re.ASCII | re.MULTILINE
)
_MODEL = re.compile(r"models/([\w\-]{1,200})\.json")


@dataclass(frozen=True)
class Package:
    """An opened ``.pt2``: `tag` names its one model; all members lie in the folder `root`."""

    archive: Archive
    root: str
    tag: str

    def entry(self, name: str) -> Entry:
        """Return a member by its name below the root; raises `InvalidModel` when absent."""
        found = self.archive.entries.get(f"{self.root}/{name}")
        if found is None:
            raise InvalidModel(f"the .pt2 archive lacks {name!r}; send the file torch.export wrote")
        return found

    def program_size(self) -> int:
        """Return the size of the exported program's JSON in bytes."""
        return self.entry(f"models/{self.tag}.json").size

    def program(self) -> Value:
        """Return the exported program, of a schema that can be read.

        Raises:
            InvalidModel: another schema, damaged, or larger than `MAX_PROGRAM` bytes.
        """
        name = f"models/{self.tag}.json"
        program = parse(self.archive.read(self.entry(name).name, MAX_PROGRAM), name)
        version = program["schema_version"]
        major = version["major"].integer()
        if major != SCHEMA_MAJOR:
            raise InvalidModel(
                f"the .pt2 has schema version {major}; version {SCHEMA_MAJOR} is read: "
                "export the model again with torch 2.13"
            )
        return program

    def config(self, folder: str, kind: str) -> Value:
        """Return a payload config, e.g. of ``data/weights``; maps names to descriptions."""
        name = f"{folder}/{self.tag}_{kind}_config.json"
        if f"{self.root}/{name}" not in self.archive.entries:
            self._refuse_pickled(folder)
        return parse(self.archive.read(self.entry(name).name, MAX_CONFIG), name)["config"]

    def _refuse_pickled(self, folder: str) -> None:
        """Name an older layout, whose weights are one pickle for each folder."""
        old = f"{self.root}/{folder}/{self.tag}.pt"
        if old in self.archive.entries:
            raise InvalidModel(
                f"the .pt2 is of an older layout, with pickled weights ({folder}/{self.tag}.pt); "
                "export the model again with torch 2.13"
            )


def open_package(path: Path) -> Package:
    """Return the package in a ``.pt2`` file.

    Raises:
        InvalidModel: damaged, no exported program, or several models in one file.
        UnsafeModel: native code or pickled objects inside.
    """
    archive = read_archive(path, InvalidModel)
    roots = {name.partition("/")[0] for name in archive.entries}
    if len(roots) != 1:
        raise InvalidModel("the .pt2 archive has members outside its one root folder")
    root = roots.pop()
    names = [name.partition("/")[2] for name in archive.entries]
    for name in names:
        if name.startswith(_NATIVE):
            raise UnsafeModel(
                f"the .pt2 holds compiled code ({name[:100]}); send the exported program"
            )
        if _OBJECT.fullmatch(name):
            raise UnsafeModel(f"the .pt2 holds a pickled object ({name}); plain tensors are read")
    models = [match[1] for name in names if (match := _MODEL.fullmatch(name))]
    if len(models) != 1:
        raise InvalidModel(f"the .pt2 holds {len(models)} programs; exactly one is taken")
    package = Package(archive, root, models[0])
    if archive.read(package.entry("archive_format").name, 64) != b"pt2":
        raise InvalidModel("the archive says that it is no .pt2")
    if f"{root}/byteorder" in archive.entries:
        order = archive.read(f"{root}/byteorder", 64)
        if order != b"little":
            raise InvalidModel(
                "the .pt2 was written on a big-endian machine; export on another one"
            )
    return package


def check_content(package: Package, program: Value) -> None:
    """Refuse what the loader would refuse: foreign operators and pickled weights.

    Raises:
        OperatorNotAllowed: the graph calls an operator outside the table.
        UnsafeModel: a weight or constant is pickled.
    """
    for node in program["graph_module"]["graph"]["nodes"].items():
        target = node["target"].text()
        if target not in REGIONS and target not in SIZE_ARITHMETIC:
            split_target(target, partial(place_of, node))
    for folder, kind in PAYLOADS:
        for name, meta in package.config(folder, kind).members():
            payload_file(name, meta)


def payload_file(name: str, meta: Value) -> str:
    """Return the member that holds a tensor's bytes; raises `UnsafeModel` where it is pickled."""
    file = meta["path_name"].text()
    if meta["use_pickle"].boolean() or not _PAYLOAD.fullmatch(file):
        raise UnsafeModel(
            f"{name[:200]!r} is stored as a pickled object; plain tensors are read. Export a model "
            "without tensor subclasses and custom objects"
        )
    return file


def layer_of(node: Value) -> str:
    """Return the module path of a node: ``…;L__self__conv1,conv1,torch.nn…Conv2d`` → ``conv1``."""
    stack = node["metadata"].get("nn_module_stack")
    last = stack.text().rpartition(";")[2].split(",") if stack is not None else []
    path = last[1] if len(last) > 1 else ""
    return path if _PATH.fullmatch(path) else ""


def place_of(node: Value) -> str:
    """Return where a call stands, for error texts: `` in layer 'conv1' (line 12 of net.py)``."""
    layer = layer_of(node)
    trace = node["metadata"].get("stack_trace")
    lines = _LINE.findall(trace.text()[-MAX_TRACE:]) if trace is not None else []
    line = f" (line {lines[-1][1]} of {lines[-1][0]})" if lines else ""
    return (f" in layer {layer!r}" if layer else "") + line


def pt2_inputs(path: Path) -> tuple[Signature, ...]:
    """Return the inputs of a ``.pt2`` file; see `program_inputs` for what is raised."""
    return program_inputs(open_package(path).program())


def program_inputs(program: Value) -> tuple[Signature, ...]:
    """Return the inputs of an exported program, in order.

    The symbol of the first dimension is named ``batch``; other symbols ``dim_1``, ``dim_2`` ….

    Raises:
        InvalidModel: no input, an input that is no tensor, or a fixed batch dimension.
    """
    graph = program["graph_module"]["graph"]
    specs = program["graph_module"]["signature"]["input_specs"].items()
    unions = [spec.union() for spec in specs]
    names = [_tensor_name(spec["arg"]) for kind, spec in unions if kind == "user_input"]
    if not names:
        raise InvalidModel("the model has no tensor input")
    symbols: dict[str, str] = {}
    inputs = tuple(_signature(name, graph["tensor_values"][name], symbols) for name in names)
    for item in inputs:
        if not item.shape or item.shape[0] != BATCH:
            raise _fixed_batch(item, names)
    return inputs


def _tensor_name(argument: Value) -> str:
    kind, content = argument.union()
    if kind != "as_tensor":
        raise InvalidModel("the model has an input that is no tensor; export it with tensors only")
    return content["name"].text()


def _signature(name: str, meta: Value, symbols: dict[str, str]) -> Signature:
    dtype = SCALAR_TYPES.get(meta["dtype"].integer())
    if dtype is None:
        raise InvalidModel(f"input {name!r} has a number type that is not supported")
    shape: list[int | str] = []
    for place, size in enumerate(read_size(item) for item in meta["sizes"].items()):
        if isinstance(size, str):
            if not is_symbol(size):
                raise InvalidModel(
                    f"dimension {place} of input {name!r} depends on another one ({size}); export "
                    "with dynamic dimensions that are independent of each other"
                )
            first = BATCH if place == 0 and BATCH not in symbols.values() else f"dim_{len(symbols)}"
            size = symbols.setdefault(size, first)
        shape.append(size)
    if len(shape) > MAX_RANK or not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidModel(f"input {name[:100]!r} has too many dimensions or is no name")
    return Signature(name, tuple(shape), dtype)


def _fixed_batch(item: Signature, names: list[str]) -> InvalidModel:
    shapes = ", ".join("{0: batch}" for _ in names) + ("," if len(names) == 1 else "")
    if item.shape and isinstance(item.shape[0], str):
        found = "has a batch dimension of its own"
    elif item.shape:
        found = f"has a fixed batch of {item.shape[0]}"
    else:
        found = "has no batch dimension"
    return InvalidModel(
        f"input {item.name!r} {found}; the first dimension of every input must be one dynamic "
        "batch. Export again with an example batch of 2: batch = torch.export.Dim('batch'); "
        f"torch.export.export(model, ({', '.join(names)},), dynamic_shapes=({shapes}))"
    )
