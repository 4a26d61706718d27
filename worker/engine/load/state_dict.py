"""Bare weights: torch checkpoints and safetensors, into a network that is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from planish.contract.errors import InvalidModel, StateDictMismatch
from planish.gate.identify import check_checkpoint, is_storage
from planish.gate.safetensors import read_tensors

WRAPPERS = ("state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")
COUNTER = "num_batches_tracked"

_SHOWN = 5


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a torch checkpoint by name, wrappers and prefixes taken off.

    Raises:
        UnsafeModel: its pickle holds anything but tensors.
        InvalidModel: damaged, or without a state_dict.
    """
    archive = check_checkpoint(path)
    if archive is not None:
        for name in filter(is_storage, archive.entries):
            archive.verify(archive.entries[name])
    mapped = archive is not None
    loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping):
        raise InvalidModel("the checkpoint holds no state_dict: a dict of names and tensors")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(loaded)[:_SHOWN])
        raise InvalidModel(f"the checkpoint holds no tensors under its keys: {keys[:300]}")
    return _plain_names(tensors)


def read_safetensors(*paths: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of all its shards, prefixes taken off.

    Raises:
        InvalidModel: damaged.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        read_tensors(path, InvalidModel)
        tensors |= load_file(path)
    return _plain_names(tensors)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy weights into a network of the same names and shapes.

    Args:
        network: changed in place.
        tensors: the weights; BatchNorm's counters may be missing, and of tied weights all but one.
        name: of the architecture, for the error text.

    Raises:
        StateDictMismatch: names the keys that are missing, unexpected, or of another shape or kind.
    """
    check_fit(network, tensors, name)
    tied = tied_names(network)
    network.load_state_dict(
        {key: _first_of(tied.get(key, (key,)), tensors, own) for key, own in _weights(network)}
    )


def check_fit(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Check weights against a network, which may be without memory; raises as `fill`."""
    wanted, tied = dict(_weights(network)), tied_names(network)
    missing = [
        key
        for key in wanted
        if not any(other in tensors for other in tied.get(key, (key,)))
        and not key.endswith(COUNTER)
    ]
    both = {key: own for key, own in wanted.items() if key in tensors}
    findings = {
        "missing": missing,
        "unexpected": [key for key in tensors if key not in wanted],
        "shapes": [
            f"{key} is {_shape(tensors[key])}, {name} has {_shape(own)}"
            for key, own in both.items()
            if tensors[key].shape != own.shape
        ],
        "types": [
            f"{key} is {_kind(tensors[key])}, {name} has {_kind(own)}"
            for key, own in both.items()
            if tensors[key].is_floating_point() != own.is_floating_point()
        ],
        "tied, but different": [
            f"{key} and {other}"
            for key, others in tied.items()
            for other in others
            if key < other
            and key in both
            and other in both
            and not torch.equal(tensors[key], tensors[other])
        ],
    }
    faults = [f"{what}: {_few(keys)}" for what, keys in findings.items() if keys]
    if faults:
        raise StateDictMismatch(
            f"the weights do not fit {name}; {'; '.join(faults)}. Check the architecture's name "
            "and config"
        )


def tied_names(network: nn.Module) -> Mapping[str, tuple[str, ...]]:
    """Return, for each weight that stands in several places, all names of it."""
    places: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    return {name: tuple(names) for names in places.values() if len(names) > 1 for name in names}


def _weights(network: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return network.state_dict().items()


def _first_of(names: Iterable[str], tensors: Mapping[str, Tensor], own: Tensor) -> Tensor:
    return next((tensors[name] for name in names if name in tensors), own)


def _plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefix that DataParallel or torch.compile put before every name."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _few(keys: list[str]) -> str:
    rest = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(key[:200] for key in keys[:_SHOWN]) + rest


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
