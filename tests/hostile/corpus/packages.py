"""Exported programs (.pt2) with code, lies and floods in their documents."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from typing import Any

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import HARMLESS, Upload, hostile, model
from tests.hostile.fuzz import seeds
from tests.hostile.fuzz.zips import Member, write_zip

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def members() -> dict[str, bytes]:
    """Return the members of a real package by their names below its root."""
    return {m.name.decode().partition("/")[2]: m.content for m in seeds.members(seeds.pt2())}


def package(**changed: bytes) -> Upload:
    """Return a package; names have ``__`` for slashes."""
    return made({name.replace("__", "/"): content for name, content in changed.items()})


def made(changed: dict[str, bytes]) -> Upload:
    """Return a package with members replaced or added."""
    found = members() | changed
    return model(write_zip([Member(f"archive/{n}".encode(), c) for n, c in found.items()]))


def document(change: Callable[[Any], object], name: str = PROGRAM) -> Upload:
    """Return a package with one of its documents changed in place."""
    value = json.loads(members()[name])
    change(value)
    return made({name: json.dumps(value).encode()})


def _size(text: str) -> Upload:
    def change(program: Any) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        values["input"]["sizes"][0]["as_expr"]["expr_str"] = text

    return document(change)


def _target(name: str) -> Upload:
    return document(lambda p: p["graph_module"]["graph"]["nodes"][0].update(target=name))


def _weight(**changes: object) -> Upload:
    return document(lambda c: c["config"]["weight"]["tensor_meta"].update(changes), WEIGHTS)


@hostile("unsafe_model")
def code_as_a_size(canary: Canary) -> Upload:
    """sympy's parser runs Python."""
    return _size(canary.code.replace(";", " or"))


@hostile("unsafe_model")
def call_as_a_size(canary: Canary) -> Upload:
    """A plain call of a builtin."""
    return _size(f"exec({canary.code!r})")


@hostile("unsafe_model")
def attribute_as_a_size(canary: Canary) -> Upload:
    """The classical way out of a sandbox."""
    return _size("Symbol('s0').__class__.__mro__[1].__subclasses__()")


@hostile("unsafe_model")
def size_of_endless_signs(canary: Canary) -> Upload:
    """Deep enough to overflow a recursive reader."""
    return _size("-" * 1_900 + "1")


@hostile("unsafe_model")
def size_of_endless_brackets(canary: Canary) -> Upload:
    """Deep enough to overflow Python's own parser."""
    return _size("Add(" * 490 + "1" + ")" * 490)


@hostile(HARMLESS)
def guard_code(canary: Canary) -> Upload:
    """torch.export runs guards_code; the strict reader never looks at it."""
    return document(lambda program: program.update(guards_code=[canary.code]))


@hostile(HARMLESS)
def code_in_the_metadata(canary: Canary) -> Upload:
    """Stack traces and module stacks are text."""
    node = {"stack_trace": canary.code, "nn_module_stack": "L__self__,,os.system"}
    return document(lambda p: p["graph_module"]["graph"]["nodes"][0]["metadata"].update(node))


@hostile(HARMLESS)
def pickle_as_sample_inputs(canary: Canary) -> Upload:
    """torch.export.load unpickles these, and falls back to full pickle when refused."""
    return package(data__sample_inputs__model__pt=b"", **{
        "data__sample_inputs__model.pt": pickle.dumps(canary.gadget())
    })  # fmt: skip


@hostile("unsafe_model")
def pickled_weight(canary: Canary) -> Upload:
    """use_pickle makes torch unpickle a weight."""
    gadget = {"data/weights/weight_0": pickle.dumps(canary.gadget())}
    config = json.loads(members()[WEIGHTS])
    config["config"]["weight"]["use_pickle"] = True
    return made({WEIGHTS: json.dumps(config).encode(), **gadget})


@hostile("unsafe_model")
def pickled_constant(canary: Canary) -> Upload:
    """The same for a constant."""
    meta = json.loads(members()[WEIGHTS])["config"]["bias"]
    config = {"config": {"c": {**meta, "path_name": "tensor_0", "use_pickle": True}}}
    gadget = {"data/constants/tensor_0": pickle.dumps(canary.gadget())}
    return made({CONSTANTS: json.dumps(config).encode(), **gadget})


@hostile("unsafe_model")
def custom_object(canary: Canary) -> Upload:
    """A TorchBind object is restored by its own code."""
    return package(data__constants__custom_obj_0=pickle.dumps(canary.gadget()))


@hostile("unsafe_model")
def compiled_code(canary: Canary) -> Upload:
    """A shared library of AOTInductor is loaded by dlopen."""
    return package(data__aotinductor__model__model=b"\x7fELF" + bytes(100))


@hostile("unsafe_model")
def program_of_executorch(canary: Canary) -> Upload:
    """Another runtime's program in the same archive."""
    return package(data__executorch__model=b"ET12")


@hostile("unsafe_model")
def weight_outside_its_folder(canary: Canary) -> Upload:
    """A path in place of a plain name."""
    return document(
        lambda c: c["config"]["weight"].update(path_name="../../../../etc/passwd"), WEIGHTS
    )


@hostile("operator_not_allowed")
def operator_that_reads_files(canary: Canary) -> Upload:
    """aten::from_file maps any file, for writing too."""
    return _target("torch.ops.aten.from_file.default")


@hostile("operator_not_allowed")
def operator_of_a_stranger(canary: Canary) -> Upload:
    """A namespace that some library may have registered."""
    return _target("torch.ops.evil.run.default")


@hostile("operator_not_allowed")
def operator_that_runs_a_program(canary: Canary) -> Upload:
    """A higher-order operator that calls Python."""
    return _target("torch.ops.higher_order.call_torchbind")


@hostile("operator_not_allowed")
def operator_that_is_a_function(canary: Canary) -> Upload:
    """A Python function by its name."""
    return _target("os.system")


@hostile("operator_not_allowed")
def operator_that_shows_memory(canary: Canary) -> Upload:
    """Uninitialized memory is somebody's data."""
    return _target("torch.ops.aten.empty.memory_format")


@hostile("invalid_model")
def program_nested_too_deep(canary: Canary) -> Upload:
    """A hundred thousand brackets."""
    return made({PROGRAM: b'{"graph_module":' + b"[" * 100_000 + b"]" * 100_000 + b"}"})


@hostile("invalid_model")
def program_with_a_key_twice(canary: Canary) -> Upload:
    """The first or the last: readers differ."""
    return made({PROGRAM: members()[PROGRAM].replace(b'{"graph', b'{"opset_version":1,"graph', 1)})


@hostile("invalid_model")
def program_with_nan(canary: Canary) -> Upload:
    """NaN is no JSON."""
    raw = members()[PROGRAM].replace(b'"min_val": 0', b'"min_val": NaN')
    return made({PROGRAM: raw})


@hostile("invalid_model")
def program_of_tiny_values(canary: Canary) -> Upload:
    """12 MB of JSON that become gigabytes of lists."""
    return made({PROGRAM: b"[" + b"[]," * 4_000_000 + b"[]]"})


@hostile("invalid_model")
def program_in_another_encoding(canary: Canary) -> Upload:
    """UTF-16, which some readers guess."""
    return made({PROGRAM: members()[PROGRAM].decode().encode("utf-16")})


@hostile("invalid_model")
def program_of_another_schema(canary: Canary) -> Upload:
    """A major version that nobody has read."""
    return document(lambda program: program["schema_version"].update(major=99))


@hostile("invalid_model")
def two_programs(canary: Canary) -> Upload:
    """Which of them is meant?"""
    return package(models__other=b"", **{"models__other.json": members()[PROGRAM]})


@hostile("invalid_model")
def package_of_another_byte_order(canary: Canary) -> Upload:
    """Big-endian weights."""
    return package(byteorder=b"big")


@hostile("invalid_model")
def weight_of_exabytes(canary: Canary) -> Upload:
    """2^62 rows."""
    return _weight(sizes=[{"as_int": 1 << 62}, {"as_int": 4}])


@hostile("invalid_model")
def weight_with_negative_size(canary: Canary) -> Upload:
    """Minus three rows."""
    return _weight(sizes=[{"as_int": -3}, {"as_int": 4}])


@hostile("invalid_model")
def weight_that_strides_out(canary: Canary) -> Upload:
    """Strides beyond the storage (pytorch#184652)."""
    return _weight(strides=[{"as_int": 1 << 40}, {"as_int": 1}])


@hostile("invalid_model")
def weight_that_strides_back(canary: Canary) -> Upload:
    """Negative strides read what lies before."""
    return _weight(strides=[{"as_int": -4}, {"as_int": 1}])


@hostile("invalid_model")
def weight_that_begins_outside(canary: Canary) -> Upload:
    """An offset beyond the storage."""
    return _weight(storage_offset={"as_int": 1 << 40})


@hostile("invalid_model")
def weight_of_an_unknown_layout(canary: Canary) -> Upload:
    """Sparse storage without indices."""
    return _weight(layout=1)


@hostile("invalid_model")
def weights_that_are_no_numbers(canary: Canary) -> Upload:
    """NaN and infinity."""
    return package(data__weights__weight_0=struct.pack("<12f", *[float("nan")] * 11, float("inf")))


@hostile("invalid_model")
def input_named_like_code(canary: Canary) -> Upload:
    """A name that becomes source text must be a name."""
    raw = members()[PROGRAM].replace(b'"input"', b'"x=exec(y)"')
    return made({PROGRAM: raw})


@hostile("invalid_model")
def graph_that_uses_what_is_not_there(canary: Canary) -> Upload:
    """An argument that no node makes."""

    def change(program: Any) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["inputs"][0]["arg"]["as_tensor"]["name"] = "nowhere"

    return document(change)
