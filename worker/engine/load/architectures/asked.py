"""Networks of other libraries, asked so that tensors go in and one tensor comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.engine.model import InputSpec

Answer = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


class Asked(nn.Module):
    """Holds the layers of a network under the names that they have there.

    Args:
        network: whose layers and weights these are.
        answer: calls the network with tensors by name and returns the one that counts.
        names: of the inputs, in the order of `forward`.
        longest: the longest sequence that it has positions for; None: any.
    """

    def __init__(
        self, network: nn.Module, answer: Answer, names: Sequence[str], longest: int | None = None
    ) -> None:
        super().__init__()
        for name, layer in network.named_children():
            self.add_module(name, layer)
        for name, parameter in network.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in network.named_buffers(recurse=False):
            self.register_buffer(name, buffer, name not in network._non_persistent_buffers_set)
        # Beside the registered layers, so that no name gets a prefix.
        self.__dict__["network"] = network
        self.answer = answer
        self.names = tuple(names)
        self.longest = longest

    def ready(self, inputs: Sequence[InputSpec]) -> int | None:
        """Make the layers and inputs those that are exported; return the longest sequence.

        Text is fed by the names of its inputs; images may have any name.
        """
        if any(item.dtype == torch.int64 for item in inputs):
            self.names = tuple(item.name for item in inputs)
        make_linear(self)
        return self.longest

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the network's one answer to inputs in the order of `names`."""
        network = cast("nn.Module", self.__dict__["network"])
        return self.answer(network, dict(zip(self.names, tensors, strict=True)))

    def train(self, mode: bool = True) -> Asked:
        """Set the mode of the network too; it shares the layers, but has a flag of its own."""
        cast("nn.Module", self.__dict__["network"]).train(mode)
        super().train(mode)
        return self


def first_answer(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return logits, or the last hidden states of a network without a head."""
    return cast("Tensor", network(**inputs, return_dict=True)[0])


def pooled(pooling: str, normalize: bool) -> Answer:
    """Return what asks for one embedding of a text.

    Mean of the hidden states under the mask, or that of the first token; of length 1 where
    `normalize` is set. Reimers and Gurevych 2019, arXiv:1908.10084, section 3.
    """

    def answer(network: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        hidden = first_answer(network, inputs)
        if pooling == "cls":
            found = hidden[:, 0]
        elif "attention_mask" in inputs:
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            found = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        else:
            found = hidden.mean(1)
        return F.normalize(found, dim=1) if normalize else found

    return answer


def make_linear(network: nn.Module) -> None:
    """Replace GPT-2's transposed layers (``Conv1D``) by `nn.Linear`, which passes know; in place.

    Both compute ``x W + b``; only the layout of W differs.
    """
    for parent, name, layer in list(_transposed(network)):
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        linear = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
        linear.weight = nn.Parameter(weight.detach().t().contiguous())
        linear.bias = bias
        setattr(parent, name, linear)


def _transposed(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in network.modules():
        for name, layer in parent.named_children():
            if type(layer).__module__ == "transformers.pytorch_utils":
                yield parent, name, layer
