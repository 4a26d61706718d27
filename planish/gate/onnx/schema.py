"""The fields that an ONNX file may have, by message and number (onnx.proto of ONNX 1.23).

What is known but never taken (functions, training, sparse tensors) stands here as well, so that its
refusal can say what it is. Every other field is refused by its number.
"""

from __future__ import annotations

from planish.gate.protobuf import Kind, Schema

_INTEGER, _FLOAT, _BYTES = Kind.INTEGER, Kind.FLOAT, Kind.BYTES
_INTEGERS, _FLOATS, _DOUBLES, _MANY = Kind.INTEGERS, Kind.FLOATS, Kind.DOUBLES, Kind.MANY

MODEL: Schema = {
    1: ("ir_version", _INTEGER),
    2: ("producer_name", _BYTES),
    3: ("producer_version", _BYTES),
    4: ("domain", _BYTES),
    5: ("model_version", _INTEGER),
    6: ("doc_string", _BYTES),
    7: ("graph", _BYTES),
    8: ("opset_import", _MANY),
    14: ("metadata_props", _MANY),
    20: ("training_info", _MANY),
    25: ("functions", _MANY),
    26: ("configuration", _MANY),
}
GRAPH: Schema = {
    1: ("node", _MANY),
    2: ("name", _BYTES),
    5: ("initializer", _MANY),
    10: ("doc_string", _BYTES),
    11: ("input", _MANY),
    12: ("output", _MANY),
    13: ("value_info", _MANY),
    14: ("quantization_annotation", _MANY),
    15: ("sparse_initializer", _MANY),
    16: ("metadata_props", _MANY),
}
NODE: Schema = {
    1: ("input", _MANY),
    2: ("output", _MANY),
    3: ("name", _BYTES),
    4: ("op_type", _BYTES),
    5: ("attribute", _MANY),
    6: ("doc_string", _BYTES),
    7: ("domain", _BYTES),
    8: ("overload", _BYTES),
    9: ("metadata_props", _MANY),
    10: ("device_configurations", _MANY),
}
ATTRIBUTE: Schema = {
    1: ("name", _BYTES),
    2: ("f", _FLOAT),
    3: ("i", _INTEGER),
    4: ("s", _BYTES),
    5: ("t", _BYTES),
    6: ("g", _BYTES),
    7: ("floats", _FLOATS),
    8: ("ints", _INTEGERS),
    9: ("strings", _MANY),
    10: ("tensors", _MANY),
    11: ("graphs", _MANY),
    13: ("doc_string", _BYTES),
    14: ("tp", _BYTES),
    15: ("type_protos", _MANY),
    20: ("type", _INTEGER),
    21: ("ref_attr_name", _BYTES),
    22: ("sparse_tensor", _BYTES),
    23: ("sparse_tensors", _MANY),
}
TENSOR: Schema = {
    1: ("dims", _INTEGERS),
    2: ("data_type", _INTEGER),
    3: ("segment", _BYTES),
    4: ("float_data", _FLOATS),
    5: ("int32_data", _INTEGERS),
    6: ("string_data", _MANY),
    7: ("int64_data", _INTEGERS),
    8: ("name", _BYTES),
    9: ("raw_data", _BYTES),
    10: ("double_data", _DOUBLES),
    11: ("uint64_data", _INTEGERS),
    12: ("doc_string", _BYTES),
    13: ("external_data", _MANY),
    14: ("data_location", _INTEGER),
    16: ("metadata_props", _MANY),
}
VALUE: Schema = {
    1: ("name", _BYTES),
    2: ("type", _BYTES),
    3: ("doc_string", _BYTES),
    4: ("metadata_props", _MANY),
}
TYPE: Schema = {
    1: ("tensor_type", _BYTES),
    4: ("sequence_type", _BYTES),
    5: ("map_type", _BYTES),
    6: ("denotation", _BYTES),
    7: ("opaque_type", _BYTES),
    8: ("sparse_tensor_type", _BYTES),
    9: ("optional_type", _BYTES),
}
TENSOR_TYPE: Schema = {1: ("elem_type", _INTEGER), 2: ("shape", _BYTES)}
SHAPE: Schema = {1: ("dim", _MANY)}
DIMENSION: Schema = {
    1: ("dim_value", _INTEGER),
    2: ("dim_param", _BYTES),
    3: ("denotation", _BYTES),
}
OPSET: Schema = {1: ("domain", _BYTES), 2: ("version", _INTEGER)}
ENTRY: Schema = {1: ("key", _BYTES), 2: ("value", _BYTES)}
