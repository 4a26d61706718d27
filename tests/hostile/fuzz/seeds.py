"""Small valid files of every format: what the mutators start from. Made once for each process."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache

import numpy as np

from tests.hostile.fuzz.zips import Member

SPEC = {
    "name": "n",
    "labels": {"team": "edge"},
    "seed": 3,
    "model": {
        "format": "auto",
        "architecture": {"library": "planish", "name": "cifar_resnet", "config": {"depth": 8}},
        "inputs": [{"name": "input", "shape": ["batch", 3, 32, 32], "dtype": "float32"}],
    },
    "data": {"task": "classification", "preprocess": {"scale": 0.5, "mean": [0.1], "std": [0.2]}},
    "recipe": [
        {"op": "prune", "structure": "channel", "sparsity": 0.5},
        {"op": "distill", "temperature": 4.0, "train": {"epochs": 1, "batch_size": 8}},
        {"op": "quantize", "mode": "static", "dtype": "int8"},
    ],
    "target": {"device": "cpu", "runtime": "onnxruntime", "batch_size": 1, "threads": 2},
    "outputs": ["onnx", "pt2"],
    "resources": {"gpus": 0, "run_seconds": 60},
}


@cache
def pt2() -> bytes:
    """An exported program of one linear layer with a dynamic batch."""
    import torch

    batch = torch.export.Dim("batch")
    program = torch.export.export(
        torch.nn.Linear(4, 3).eval(), (torch.zeros(2, 4),), dynamic_shapes=({0: batch},)
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


@cache
def checkpoint() -> bytes:
    """A torch checkpoint of a few small tensors."""
    import torch

    state = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@cache
def legacy_checkpoint() -> bytes:
    """A checkpoint of the layout of before torch 1.6."""
    import torch

    buffer = io.BytesIO()
    state = torch.nn.Linear(2, 2).state_dict()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def members(raw: bytes) -> list[Member]:
    """Return the members of an archive."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return [
            Member(item.filename.encode(), archive.read(item), item.compress_type == 8)
            for item in archive.infolist()
        ]


@cache
def safetensors_header() -> dict[str, object]:
    """Four tensors of 3 types in 44 bytes."""
    return {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "a.bias": {"dtype": "F16", "shape": [3], "data_offsets": [24, 30]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [30, 38]},
        "c": {"dtype": "U8", "shape": [1, 6], "data_offsets": [38, 44]},
    }


def safetensors(header: bytes, body: bytes = bytes(44)) -> bytes:
    """Return a file of any header."""
    return len(header).to_bytes(8, "little") + header + body


@cache
def npz(compressed: bool) -> bytes:
    """Images and targets."""
    buffer = io.BytesIO()
    arrays = {"inputs": np.zeros((6, 2, 2), np.float32), "targets": np.arange(6) % 3}
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


@cache
def onnx() -> tuple[bytes, ...]:
    """A small convolutional network, one with a branch, and one with its weights elsewhere."""
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, *shape: object, kind: int = TensorProto.FLOAT) -> object:
        return helper.make_tensor_value_info(name, kind, shape)

    def model(nodes: list[object], weights: list[object], out: object) -> bytes:
        graph = helper.make_graph(nodes, "g", [value("x", "n", 3, 8, 8)], [out], weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(made, {"k": "v"})
        return bytes(made.SerializeToString())

    kernel = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    half = helper.make_tensor("b", TensorProto.FLOAT16, [4], [0.0] * 4)
    nodes = [
        helper.make_node(
            "Conv", ["x", "w"], ["h"], name="c", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Cast", ["b"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Clip", ["h"], ["i"]),
        helper.make_node("ReduceMean", ["i"], ["y"], keepdims=0),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(3), "t")),
    ]
    plain = model(nodes, [kernel, half], value("y"))
    inner = helper.make_graph([helper.make_node("Neg", ["h"], ["q"])], "b", [], [value("q")])
    yes = numpy_helper.from_array(np.array(True), "yes")
    choice = helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner)
    branched = model([nodes[0], choice], [kernel, yes], value("z", "n", None))
    outside = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "w.bin"), ("offset", "0"), ("length", "432")):
        outside.external_data.add(key=key, value=text)
    return plain, branched, model(nodes[:1], [outside], value("h", "n", 4, 8, 8))


@cache
def parquet() -> tuple[bytes, ...]:
    """Images with labels, and token ids with numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    note = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    pictures = pa.table(
        {"image": pa.array([{"bytes": b"png", "path": None}] * 4, kind), "label": [0, 1, 0, 1]}
    ).replace_schema_metadata({"huggingface": json.dumps(note)})
    tokens = pa.table({"input_ids": pa.array([[1, 2]] * 4, pa.list_(pa.int32())), "x": [0.5] * 4})
    made = []
    for table, options in (
        (pictures, {"compression": "none", "store_schema": False}),
        (tokens, {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 2}),
    ):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, **options)
        made.append(buffer.getvalue())
    return tuple(made)
