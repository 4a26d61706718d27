"""ONNX files: foreign operators, foreign files, and messages that no honest writer makes."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import TensorProto, helper

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import Upload, hostile, model
from tests.hostile.fuzz import seeds
from tests.hostile.fuzz.wire import join_message, split_message, varint


def changed(change: Callable[[onnx.ModelProto], object], which: int = 0) -> Upload:
    """Return a small model, changed in place."""
    proto = onnx.ModelProto.FromString(seeds.onnx()[which])
    change(proto)
    return model(proto.SerializeToString(), name="model.onnx")


def node(**fields: str) -> Upload:
    """Return a small model whose first node has other fields."""

    def change(proto: onnx.ModelProto) -> None:
        for name, value in fields.items():
            setattr(proto.graph.node[0], name, value)

    return changed(change)


def outside(*parts: tuple[str, bytes], **entries: str) -> Upload:
    """Return a model with its weights in another file, and these words about where."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        del tensor.external_data[:]
        for key, value in {"location": "w.bin", "offset": "0", **entries}.items():
            tensor.external_data.add(key=key, value=value)

    upload = changed(change, 2)
    return Upload((*upload.files, *(("model", name, raw) for name, raw in parts)), upload.spec)


@hostile("operator_not_allowed")
def operator_of_a_custom_domain(canary: Canary) -> Upload:
    """An operator of a library that the runtime would load."""
    return node(domain="evil.ops", op_type="Run")


@hostile("operator_not_allowed")
def operator_that_is_unknown(canary: Canary) -> Upload:
    """An operator that is none."""
    return node(op_type="Exec")


@hostile("operator_not_allowed")
def operator_that_runs_python(canary: Canary) -> Upload:
    """ONNX Runtime's training build calls Python through this."""
    return node(domain="com.microsoft", op_type="PythonOp")


@hostile("operator_not_allowed")
def operator_that_loops_forever(canary: Canary) -> Upload:
    """A loop without an end."""
    return node(op_type="Loop")


@hostile("operator_not_allowed")
def operator_that_decodes_pictures(canary: Canary) -> Upload:
    """A whole image library behind one operator."""
    return node(op_type="ImageDecoder")


@hostile("operator_not_allowed")
def operator_of_strings(canary: Canary) -> Upload:
    """Regular expressions that never end."""
    return node(op_type="RegexFullMatch")


@hostile("unsafe_model")
def model_with_functions(canary: Canary) -> Upload:
    """An operator of the table, redefined."""
    return changed(lambda proto: proto.functions.add(name="Conv", domain=""))


@hostile("unsafe_model")
def model_that_trains(canary: Canary) -> Upload:
    """A second graph for training."""
    return changed(lambda proto: proto.training_info.add())


@hostile("invalid_model")
def sparse_weights(canary: Canary) -> Upload:
    """Indices that nobody checks."""
    return changed(lambda proto: proto.graph.sparse_initializer.add())


@hostile("invalid_model")
def weights_of_text(canary: Canary) -> Upload:
    """Strings in place of numbers."""
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"x" * 100])
    return changed(lambda proto: proto.graph.initializer.append(text))


@hostile("invalid_model")
def weights_of_a_parent_folder(canary: Canary) -> Upload:
    """CVE-2022-25882."""
    return outside(location="../../../etc/passwd")


@hostile("invalid_model")
def weights_by_an_absolute_path(canary: Canary) -> Upload:
    """Any file of the machine."""
    return outside(location="/etc/passwd")


@hostile("invalid_model")
def weights_by_a_crooked_path(canary: Canary) -> Upload:
    """CVE-2024-27318."""
    return outside(location="x/../../etc/passwd")


@hostile("invalid_model")
def weights_of_another_system(canary: Canary) -> Upload:
    """Backslashes and a drive."""
    return outside(location="C:\\windows\\win.ini")


@hostile("invalid_model")
def weights_in_a_hidden_file(canary: Canary) -> Upload:
    """The folder itself."""
    return outside(location="..")


@hostile("invalid_model")
def weights_of_nobody(canary: Canary) -> Upload:
    """A part that did not come."""
    return outside()


@hostile("invalid_model")
def weights_beyond_their_part(canary: Canary) -> Upload:
    """More bytes than the part has."""
    return outside(("w.bin", bytes(431)))


@hostile("invalid_model")
def weights_at_an_offset_of_exabytes(canary: Canary) -> Upload:
    """An offset that wraps around."""
    return outside(("w.bin", bytes(432)), offset=str((1 << 64) - 432))


@hostile("invalid_model")
def weights_at_a_negative_offset(canary: Canary) -> Upload:
    """What lies before the part."""
    return outside(("w.bin", bytes(432)), offset="-8")


@hostile("invalid_model")
def weights_of_another_length(canary: Canary) -> Upload:
    """A length that the shape does not have."""
    return outside(("w.bin", bytes(999)), length="999")


@hostile("invalid_model")
def weights_that_overlap(canary: Canary) -> Upload:
    """Two tensors in the same bytes of a part."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer.add(name="w2", data_type=1, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", "400")):
            tensor.external_data.add(key=key, value=value)

    upload = changed(change, 2)
    return Upload((*upload.files, ("model", "w.bin", bytes(500))), upload.spec)


@hostile("invalid_model")
def weights_inside_and_outside(canary: Canary) -> Upload:
    """Bytes in two places."""
    return changed(lambda proto: setattr(proto.graph.initializer[0], "raw_data", bytes(432)), 2)


@hostile("invalid_model")
def weights_of_two_kinds(canary: Canary) -> Upload:
    """raw_data and float_data at once."""
    return changed(lambda proto: proto.graph.initializer[0].float_data.append(1.0))


@hostile("invalid_model")
def weights_of_exabytes(canary: Canary) -> Upload:
    """2^62 rows in 432 bytes."""
    return changed(lambda proto: proto.graph.initializer[0].dims.__setitem__(0, 1 << 62))


@hostile("invalid_model")
def weights_of_negative_size(canary: Canary) -> Upload:
    """Minus one row."""
    return changed(lambda proto: proto.graph.initializer[0].dims.__setitem__(0, -1))


@hostile("invalid_model")
def weights_of_two_names(canary: Canary) -> Upload:
    """One name for two weights."""
    return changed(lambda proto: setattr(proto.graph.initializer[1], "name", "w"))


@hostile("invalid_model")
def value_made_twice(canary: Canary) -> Upload:
    """One name for two results."""
    return changed(lambda proto: proto.graph.node[1].output.__setitem__(0, "h"))


@hostile("invalid_model")
def graph_in_a_circle(canary: Canary) -> Upload:
    """A node that needs its own result."""
    return changed(lambda proto: proto.graph.node[0].input.__setitem__(0, "y"))


@hostile("invalid_model")
def output_of_nobody(canary: Canary) -> Upload:
    """A result that nothing computes."""
    return changed(lambda proto: setattr(proto.graph.output[0], "name", "nowhere"))


@hostile("invalid_model")
def opset_of_the_future(canary: Canary) -> Upload:
    """A version of 2^62."""
    return changed(lambda proto: setattr(proto.opset_import[0], "version", 1 << 62))


@hostile("invalid_model")
def opset_twice(canary: Canary) -> Upload:
    """The empty domain and its long name."""
    return changed(lambda proto: proto.opset_import.add(domain="ai.onnx", version=7))


@hostile("invalid_model", "unknown_model_format")
def format_below_zero(canary: Canary) -> Upload:
    """A negative version of the format."""
    return changed(lambda proto: setattr(proto, "ir_version", -1))


@hostile("invalid_model")
def attribute_of_two_types(canary: Canary) -> Upload:
    """An integer that is a text."""
    return changed(lambda proto: setattr(proto.graph.node[0].attribute[0], "s", b"x"))


@hostile("invalid_model")
def attribute_of_megabytes(canary: Canary) -> Upload:
    """A text that no operator has."""
    text = helper.make_attribute("auto_pad", "x" * (1 << 20))
    return changed(lambda proto: proto.graph.node[0].attribute.append(text))


@hostile("unsafe_model")
def attribute_that_is_a_graph(canary: Canary) -> Upload:
    """A graph where none belongs."""
    graph = helper.make_attribute("body", helper.make_graph([], "g", [], []))
    return changed(lambda proto: proto.graph.node[0].attribute.append(graph))


@hostile("invalid_model")
def branches_without_end(canary: Canary) -> Upload:
    """Branches in branches, a hundred deep."""

    def change(proto: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info("q", TensorProto.FLOAT, None)
        graph = helper.make_graph([helper.make_node("Neg", ["h"], ["q"])], "b", [], [value])
        for depth in range(30):
            inner = helper.make_node("If", ["yes"], [f"q{depth}"], then_branch=graph)
            out = helper.make_tensor_value_info(f"q{depth}", TensorProto.FLOAT, None)
            graph = helper.make_graph([inner], "b", [], [out])
        proto.graph.node[1].attribute[0].g.CopyFrom(graph)

    return changed(change, 1)


@hostile("invalid_model")
def name_with_a_line_break(canary: Canary) -> Upload:
    """A name that writes a log line of its own."""
    return changed(lambda proto: setattr(proto.graph.input[0], "name", "x\nroot logged in"))


def _raw(change: Callable[[bytes], bytes]) -> Upload:
    return model(change(seeds.onnx()[0]), name="model.onnx")


@hostile("invalid_model")
def graph_comes_twice(canary: Canary) -> Upload:
    """Parsers merge two graphs into one; a careless gate sees the first."""
    graph = next(value for number, _, value in split_message(seeds.onnx()[0]) or () if number == 7)
    return _raw(lambda raw: raw + join_message([(7, 2, graph)]))


@hostile("invalid_model")
def field_of_a_stranger(canary: Canary) -> Upload:
    """A field of unknown number."""
    return _raw(lambda raw: raw + join_message([(99, 2, b"x")]))


@hostile("invalid_model")
def group_of_old(canary: Canary) -> Upload:
    """Wire types that protocol buffers gave up."""
    return _raw(lambda raw: raw + varint(7 << 3 | 3))


@hostile("invalid_model")
def number_without_end(canary: Canary) -> Upload:
    """A varint of a hundred bytes."""
    return _raw(lambda raw: raw + varint(5 << 3) + b"\x80" * 100 + b"\x01")


@hostile("invalid_model")
def length_of_exabytes(canary: Canary) -> Upload:
    """A field of 2^63 bytes."""
    return _raw(lambda raw: raw + varint(6 << 3 | 2) + varint(1 << 63) + b"x")


@hostile("invalid_model")
def flood_of_fields(canary: Canary) -> Upload:
    """A million empty nodes."""
    return _raw(lambda raw: raw[:2] + join_message([(7, 2, b"\x0a\x00" * 700_000)]))


@hostile("invalid_model")
def cut_graph(canary: Canary) -> Upload:
    """The last hundred bytes are missing."""
    return _raw(lambda raw: raw[:-100])
