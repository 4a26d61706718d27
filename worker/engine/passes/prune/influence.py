"""How much each block does to the model's answers, measured on calibration samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from planish.contract.spec import Task
from worker.engine.load.dataset import Dataset
from worker.engine.model import Outputs, first_output
from worker.engine.passes.layers import Weighted, layer_of
from worker.engine.passes.prune.blocks import Block

SWEEP = 4  # candidates scored in one walk through the graph
MAX_BATCH = 128
MAX_BATCH_VALUES = 1 << 24  # of the outputs of one batch
MAX_KEPT_VALUES = 1 << 26  # of the original's outputs, kept between walks
IGNORED_TARGET = -100
SOFTENED = 1.0

Inputs = tuple[Tensor, ...]
Values = dict[fx.Node, object]


class Walk:
    """Runs a graph with some blocks passed by, and with one more of several passed by in turn.

    What lies before a candidate is computed once for all of them.
    """

    def __init__(self, module: fx.GraphModule, gone: Iterable[Block] = ()) -> None:
        self._module = module
        self._instead = {block.exit: block.entry for block in gone}
        inside = {node for block in gone for node in block.nodes}
        self._nodes = [
            node for node in module.graph.nodes if node in self._instead or node not in inside
        ]
        self._place = {node: index for index, node in enumerate(self._nodes)}
        self._last = _last_uses(self._nodes, self._instead)

    def output(self, inputs: Inputs) -> Tensor:
        """Return the first output."""
        return self._finish(self._interpreter(inputs, {}), 0, frozenset())

    def outputs_without(
        self, inputs: Inputs, candidates: Sequence[Block]
    ) -> Iterator[tuple[Block, Tensor]]:
        """Yield the first output without each candidate, in graph order of their entries."""
        entries: dict[fx.Node, list[Block]] = {}
        for block in candidates:
            entries.setdefault(block.entry, []).append(block)
        walker = self._interpreter(inputs, {})
        for index, node in enumerate(self._nodes):
            self._step(walker, node)
            for block in entries.pop(node, ()):
                fork = self._interpreter((), {**walker.env, block.exit: walker.env[node]})
                yield block, self._finish(fork, index + 1, block.nodes)
            if not entries:
                return

    def crossed(
        self, inputs: Inputs, blocks: Sequence[Block]
    ) -> Iterator[tuple[Block, Tensor, Tensor]]:
        """Yield the values at the entry and the exit of each block."""
        exits = {block.exit: block for block in blocks}
        entries = {block.entry for block in blocks}
        walker = self._interpreter(inputs, {})
        kept: dict[fx.Node, Tensor] = {}
        for node in self._nodes:
            value = self._step(walker, node)
            if isinstance(value, Tensor) and node in exits:
                yield exits[node], kept.pop(exits[node].entry), value
            if isinstance(value, Tensor) and node in entries:
                kept[node] = value

    def _interpreter(self, inputs: Inputs, env: Values) -> fx.Interpreter:
        walker = fx.Interpreter(self._module, garbage_collect_values=False)
        walker.args_iter = iter(inputs)
        walker.env = dict(env)
        return walker

    def _step(self, walker: fx.Interpreter, node: fx.Node) -> object:
        source = self._instead.get(node)
        value: object = walker.env[source] if source is not None else walker.run_node(node)
        walker.env[node] = value
        for done in self._last.get(node, ()):
            walker.env.pop(done, None)
        return value

    def _finish(self, walker: fx.Interpreter, start: int, skipped: frozenset[fx.Node]) -> Tensor:
        value: object = None
        for node in self._nodes[start:]:
            if node not in skipped:
                value = self._step(walker, node)
        return _first(value)


def _first(value: object) -> Tensor:
    outputs: Outputs = value  # type: ignore[assignment]  # what an output node gives
    return first_output(outputs)


def _last_uses(
    nodes: Sequence[fx.Node], instead: dict[fx.Node, fx.Node]
) -> dict[fx.Node, list[fx.Node]]:
    """Return, for each node, the values that nobody reads after it."""
    seen: set[fx.Node] = set()
    last: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(nodes):
        read = [instead[node]] if node in instead else node.all_input_nodes
        for value in read:
            if value not in seen:
                seen.add(value)
                last.setdefault(node, []).append(value)
    return last


@dataclass(frozen=True)
class Samples:
    """Calibration samples in batches, where the model computes.

    Attributes:
        batches: model inputs.
        counted: which positions of the output count, for each batch; None for all.
    """

    batches: tuple[Inputs, ...]
    counted: tuple[Tensor | None, ...]


def gather(
    module: fx.GraphModule, dataset: Dataset, samples: int, task: Task, device: torch.device
) -> Samples:
    """Prepare the first calibration samples in batches that fit the size of the outputs."""
    used = dataset.head(samples)
    one, _ = used.prepare(np.arange(1))
    with torch.no_grad():
        width = first_output(module(*(t.to(device) for t in one))).numel()
    size = max(1, min(MAX_BATCH, MAX_BATCH_VALUES // max(width, 1)))
    batches: list[Inputs] = []
    counted: list[Tensor | None] = []
    for inputs, targets in used.batches(size):
        batches.append(tuple(t.to(device) for t in inputs))
        if task == "language_modeling" and targets is not None:
            counted.append(targets.ne(IGNORED_TARGET).to(device))
        else:
            counted.append(None)
    return Samples(tuple(batches), tuple(counted))


class Effect:
    """Distance between the answers without some blocks and the original's.

    For classes and tokens the KL divergence of the softened outputs, original first, a mean over
    samples (over tokens that are not padding, for language models); for other tasks the squared
    error, relative to the square of the original's outputs.
    """

    def __init__(self, module: fx.GraphModule, samples: Samples, task: Task) -> None:
        self._module, self._samples = module, samples
        self._classes = task in ("classification", "language_modeling")
        self._original = Walk(module)
        self._kept: dict[int, Tensor] = {}

    def without(self, gone: Sequence[Block], candidates: Sequence[Block]) -> dict[Block, float]:
        """Return the distance when `gone` and one more block are passed by, for each candidate."""
        walk = Walk(self._module, gone)
        sums = dict.fromkeys(candidates, 0.0)
        norm = 0.0
        with torch.no_grad():
            for index, inputs in enumerate(self._samples.batches):
                wanted = self._reference(index, inputs)
                counted = self._samples.counted[index]
                norm += self._norm(wanted, counted)
                for block, answer in walk.outputs_without(inputs, candidates):
                    sums[block] += self._distance(answer, wanted, counted)
        return {block: _ranked(value, norm) for block, value in sums.items()}

    def _reference(self, index: int, inputs: Inputs) -> Tensor:
        known = self._kept.get(index)
        if known is not None:
            return known
        wanted = self._original.output(inputs).float()
        if wanted.numel() * len(self._samples.batches) <= MAX_KEPT_VALUES:
            self._kept[index] = wanted
        return wanted

    def _norm(self, wanted: Tensor, counted: Tensor | None) -> float:
        if self._classes:
            return float(wanted.shape[:-1].numel() if counted is None else counted.sum())
        return float(wanted.square().sum())

    def _distance(self, answer: Tensor, wanted: Tensor, counted: Tensor | None) -> float:
        answer = answer.float()
        if not self._classes:
            return float((answer - wanted).square().sum())
        p = F.log_softmax(answer / SOFTENED, dim=-1)
        q = F.log_softmax(wanted / SOFTENED, dim=-1)
        each = F.kl_div(p, q, reduction="none", log_target=True).sum(-1) * SOFTENED**2
        return float(each.sum() if counted is None else (each * counted).sum())


def _ranked(value: float, norm: float) -> float:
    """Return the mean; what is no number ranks last."""
    mean = value / norm if norm else value
    return mean if math.isfinite(mean) else math.inf


def by_effect(effect: Effect, blocks: Sequence[Block]) -> Iterator[tuple[Block, float]]:
    """Yield blocks from the least missed one on, each with the distance once it is gone too.

    Greedy: after each removal the rest is scored anew. A block's score hardly ever falls when
    others go, so only those are scored whose last score still is among the lowest (lazy evaluation:
    Minoux 1978, "Accelerated greedy algorithms").
    """
    gone: list[Block] = []
    scores = effect.without((), blocks)
    fresh = set(blocks)
    left = list(blocks)
    while left:
        best = min(left, key=scores.__getitem__)
        while best not in fresh:
            stale = sorted((b for b in left if b not in fresh), key=scores.__getitem__)[:SWEEP]
            scores.update(effect.without(gone, stale))
            fresh.update(stale)
            best = min(left, key=scores.__getitem__)
        gone.append(best)
        left.remove(best)
        fresh.clear()
        yield best, scores[best]


def block_influence(
    module: fx.GraphModule, samples: Samples, blocks: Sequence[Block]
) -> dict[Block, float]:
    """Return 1 - cosine between what enters and what leaves each block, a mean over positions.

    Men et al. 2024, arXiv:2403.03853, section 2.3. A position is a token, or a pixel where the
    block begins with a convolution.
    """
    walk = Walk(module)
    sums = dict.fromkeys(blocks, 0.0)
    counts = dict.fromkeys(blocks, 0)
    features = {block: _feature_dimension(module, block) for block in blocks}
    with torch.no_grad():
        for inputs in samples.batches:
            for block, entry, end in walk.crossed(inputs, blocks):
                cosine = F.cosine_similarity(entry.float(), end.float(), dim=features[block])
                sums[block] += float((1 - cosine).sum())
                counts[block] += cosine.numel()
    return {block: _ranked(sums[block], counts[block]) for block in blocks}


def _feature_dimension(module: fx.GraphModule, block: Block) -> int:
    """Return the dimension that holds the features of a position: channels, or the last one."""
    for node in module.graph.nodes:
        layer = layer_of(module, node) if node in block.nodes else None
        if isinstance(layer, Weighted):
            return 1 if isinstance(layer, _ConvNd) else -1
    return -1
