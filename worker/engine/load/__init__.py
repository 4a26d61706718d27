"""Every accepted format in, one canonical form out."""

from __future__ import annotations

import torch
from torch import fx, nn

from planish.contract.architectures import ArchitectureConfig
from planish.contract.architectures.published import PublishedConfig
from planish.contract.errors import InvalidModel, PlanishError
from planish.contract.spec import ModelSpec
from planish.gate.inputs import architecture_inputs, check_stated_inputs, model_format
from planish.gate.parts import ModelFiles, Source, model_files
from planish.gate.published import with_architecture
from worker.engine.load.architectures.build import build_network, export_network
from worker.engine.load.architectures.names import network_names
from worker.engine.load.architectures.published import outline, undrawn
from worker.engine.load.data import signature
from worker.engine.load.pt2 import input_spec, read_pt2
from worker.engine.load.remodularize import remodularize
from worker.engine.load.state_dict import check_fit, fill, read_checkpoint, read_safetensors
from worker.engine.model import InputSpec, Model, first_output

__all__ = ["load_model"]

_INPUT_TYPES = (torch.float32, torch.int64, torch.int32, torch.bool)


def load_model(source: Source, spec: ModelSpec, part: str = "model") -> Model:
    """Return a model in canonical form, checked by running it.

    Args:
        source: ``.pt2``, or safetensors or a torch checkpoint with ``spec.architecture``; a file,
            or several that belong together.
        spec: how to read it.
        part: where it stands in the job, ``model`` or ``teacher``; for the pointers of errors.

    Raises:
        InvalidModel: or one of its kinds: unknown format, operator or architecture, unsafe content,
            weights that do not fit, damage.
        MissingPart: the file is empty.
    """
    try:
        model = _load(model_files(source, part), spec, part)
        _check(model)
    except (PlanishError, MemoryError):
        raise
    except Exception as error:
        # Nothing that strangers send may look like a fault of ours.
        detail = str(error).partition("\n")[0][:300]
        raise InvalidModel(f"the model cannot be read: {detail}") from error
    return model


def _load(files: ModelFiles, spec: ModelSpec, part: str) -> Model:
    kind = model_format(files.main, spec, part)
    if kind == "pt2":
        graph, inputs = read_pt2(files.main)
        check_stated_inputs(spec, [signature(item) for item in inputs], part)
    else:
        graph, inputs = _from_weights(files, kind == "safetensors", spec, part)
    if any("quantized_decomposed" in str(node.target) for node in graph.graph.nodes):
        raise InvalidModel("the model is quantized already; send the float model")
    return Model(remodularize(graph), inputs)


def _from_weights(
    files: ModelFiles, safetensors: bool, spec: ModelSpec, part: str
) -> tuple[fx.GraphModule, tuple[InputSpec, ...]]:
    config, signatures = architecture_inputs(with_architecture(spec, files), part)
    inputs = tuple(map(input_spec, signatures))
    tensors = read_safetensors(*files.weights) if safetensors else read_checkpoint(files.main)
    return export_network(_filled(config, tensors), inputs), inputs


def _filled(config: ArchitectureConfig, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Return the network of a config with these weights."""
    if isinstance(config, PublishedConfig):
        # Sizes come with the upload: memory is only taken for what its weights fill.
        shapes = outline(lambda: build_network(config))
        names = network_names(config.published_name(), tensors, shapes.state_dict())
        tensors = {own: tensors[name] for name, own in names.items()}
        check_fit(shapes, tensors, config.architecture)
    with undrawn(config.library):
        network = build_network(config)
    fill(network, tensors, config.architecture)
    return network


def _check(model: Model) -> None:
    """Run the model at two batch sizes, and look at its numbers."""
    for item in model.inputs:
        if item.dtype not in _INPUT_TYPES:
            kind = str(item.dtype).removeprefix("torch.")
            raise InvalidModel(f"input {item.name!r} is {kind}; export the model in float32")
    for name, tensor in model.module.named_parameters():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InvalidModel(f"the weight {name!r} is {kind}; export the model in float32")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InvalidModel(f"the weight {name!r} holds NaN or infinity")
    for batch in (2, 3):
        _try(model.module, model.example(batch), batch)


def _try(module: nn.Module, example: tuple[torch.Tensor, ...], batch: int) -> None:
    try:
        with torch.no_grad():
            output = first_output(module(*example))
    except MemoryError:
        raise
    except Exception as error:
        detail = str(error).partition("\n")[0][:300]
        raise InvalidModel(f"the model does not run with a batch of {batch}: {detail}") from error
    if not output.ndim or output.shape[0] % batch:
        raise InvalidModel(
            f"the model's first output has shape {tuple(output.shape)} for a batch of {batch}; its "
            "first dimension must be the batch"
        )
