"""Uploaded ONNX graphs: what the runtime passes (quantize, cast, simplify) do to them."""
