"""Safetensors files: headers that flood, overlap, repeat and lie."""

from __future__ import annotations

import json
import struct

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import ARCHITECTURE, Upload, hostile, weights
from tests.hostile.fuzz.seeds import safetensors


def tensor(*shape: object, dtype: str = "F32", span: tuple[object, object] = (0, 4)) -> object:
    """Return the description of a tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


def header(body: bytes = bytes(4), **tensors: object) -> Upload:
    """Return a file of these descriptions."""
    return weights(safetensors(json.dumps(tensors).encode(), body))


@hostile("invalid_model", "unknown_model_format")
def header_of_exabytes(canary: Canary) -> Upload:
    """2^63 bytes of header."""
    return weights(struct.pack("<Q", 1 << 63) + b"{}")


@hostile("invalid_model")
def header_beyond_the_file(canary: Canary) -> Upload:
    """More header than file."""
    return weights(struct.pack("<Q", 1000) + b"{}")


@hostile("invalid_model")
def header_of_megabytes(canary: Canary) -> Upload:
    """100 MB of metadata took other readers seconds and gigabytes."""
    return weights(safetensors(b'{"__metadata__":{"a":"' + b"x" * (9 << 20) + b'"}}', b""))


@hostile("invalid_model")
def header_of_empty_tensors(canary: Canary) -> Upload:
    """A flood of tensors of no bytes."""
    items = ",".join(
        f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(100_001)
    )
    return weights(safetensors(b"{" + items.encode() + b"}", b""))


@hostile("invalid_model")
def header_nested_too_deep(canary: Canary) -> Upload:
    """A hundred thousand brackets."""
    return weights(safetensors(b'{"a":' + b"[" * 100_000))


@hostile("invalid_model")
def name_stands_twice(canary: Canary) -> Upload:
    """The first or the last: readers differ."""
    one = json.dumps(tensor(1))
    return weights(safetensors(f'{{"a":{one},"a":{one}}}'.encode(), bytes(4)))


@hostile("invalid_model")
def tensors_that_overlap(canary: Canary) -> Upload:
    """Two tensors of the same bytes."""
    return header(a=tensor(1), b=tensor(1))


@hostile("invalid_model")
def bytes_between_tensors(canary: Canary) -> Upload:
    """A gap that hides something."""
    return header(bytes(12), a=tensor(1), b=tensor(1, span=(8, 12)))


@hostile("invalid_model")
def bytes_after_the_tensors(canary: Canary) -> Upload:
    """A second file behind the first."""
    return header(bytes(4) + b"PK\x05\x06" + bytes(18), a=tensor(1))


@hostile("invalid_model")
def shape_that_overflows(canary: Canary) -> Upload:
    """2^32 times 2^32 is nothing, in 64 bits."""
    return header(a=tensor(1 << 32, 1 << 32, span=(0, 0)), body=b"")


@hostile("invalid_model")
def dimension_of_exabytes(canary: Canary) -> Upload:
    """An empty tensor of 2^62 columns."""
    return header(b"", a=tensor(0, 1 << 62, span=(0, 0)))


@hostile("invalid_model")
def shape_of_floats(canary: Canary) -> Upload:
    """One and a half rows."""
    return header(a=tensor(1.5))


@hostile("invalid_model")
def shape_of_truths(canary: Canary) -> Upload:
    """True is an integer in Python."""
    return header(a=tensor(True))


@hostile("invalid_model")
def shape_of_too_many_dimensions(canary: Canary) -> Upload:
    """A thousand dimensions of one."""
    return header(a=tensor(*[1] * 1000))


@hostile("invalid_model")
def span_that_runs_backwards(canary: Canary) -> Upload:
    """The end lies before the beginning."""
    return header(a=tensor(1, span=(4, 0)))


@hostile("invalid_model")
def span_below_zero(canary: Canary) -> Upload:
    """The header read as a tensor."""
    return header(a=tensor(1, span=(-4, 0)))


@hostile("invalid_model")
def type_of_a_stranger(canary: Canary) -> Upload:
    """A type that is none."""
    return header(a=tensor(1, dtype="OBJECT"))


@hostile("invalid_model")
def constants_that_are_no_json(canary: Canary) -> Upload:
    """Infinity as an offset."""
    return weights(
        safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,Infinity]}}', bytes(4))
    )


@hostile("invalid_model")
def name_that_is_a_path(canary: Canary) -> Upload:
    """A path with a zero byte."""
    return header(**{"../../etc/x\x00": tensor(1)})


@hostile("invalid_model")
def name_with_half_a_character(canary: Canary) -> Upload:
    """A lone surrogate cannot be sent back in an error."""
    return header(**{"a\ud800": tensor(1)})


@hostile("invalid_model")
def metadata_that_is_no_text(canary: Canary) -> Upload:
    """Objects where texts belong."""
    return header(a=tensor(1), __metadata__={"a": {"b": []}})


@hostile("invalid_model")
def header_of_another_kind(canary: Canary) -> Upload:
    """A tensor that is a list."""
    return header(a=[1, 2, 3])


def _shards(index: object, **shards: bytes) -> Upload:
    files = [("model.safetensors.index.json", json.dumps(index).encode())]
    files += [(name.replace("_", "-") + ".safetensors", raw) for name, raw in shards.items()]
    spec = {"model": ARCHITECTURE, "recipe": [{"op": "simplify"}]}
    return Upload(tuple(("model", name, raw) for name, raw in files), spec)


ONE = safetensors(json.dumps({"a": tensor(1)}).encode(), bytes(4))


@hostile("invalid_model")
def index_that_climbs(canary: Canary) -> Upload:
    """The index names a file outside the upload."""
    return _shards({"weight_map": {"a": "../../etc/passwd"}}, one=ONE)


@hostile("invalid_model")
def index_that_misplaces(canary: Canary) -> Upload:
    """A tensor that lies in another file than the index says."""
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    return _shards(index, one=ONE, two=ONE)


@hostile("invalid_model")
def index_of_lies(canary: Canary) -> Upload:
    """Sizes that do not add up."""
    index = {"metadata": {"total_size": 1 << 60}, "weight_map": {"a": "one.safetensors"}}
    return _shards(index, one=ONE)
