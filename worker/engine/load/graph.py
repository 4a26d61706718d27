"""From the JSON of an exported program to an fx graph with its weights; nothing is evaluated."""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx.node import Argument

from planish.contract.errors import InvalidModel, OperatorNotAllowed
from planish.gate.document import Value
from planish.gate.operators import REGIONS
from planish.gate.pt2 import MAX_NODES, SCALAR_TYPES, layer_of, place_of, program_inputs
from worker.engine.load.operators import resolve
from worker.engine.load.treespec import build, parse_treespec
from worker.engine.load.weights import STRIDED
from worker.engine.model import keep_persistence

MAX_INLINED = 4
LAYER = "layer"
RANK = "rank"

_KEYWORD = 2
_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_PART = re.compile(r"\w{1,200}", re.ASCII)


class GraphReader:
    """Builds one `fx.GraphModule`; use `read_graph`."""

    def __init__(
        self, program: Value, weights: Mapping[str, Tensor], constants: Mapping[str, Tensor]
    ) -> None:
        self._json = program["graph_module"]["graph"]
        self._specs = program["graph_module"]["signature"]
        self._program = program
        self._tensors = {**constants, **weights}
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._values: dict[str, Argument] = {}
        self._nodes = 0
        self._place: Callable[[], str] = str

    def read(self) -> fx.GraphModule:
        """Return the program as a module that takes its tensors in order."""
        for item in program_inputs(self._program):
            node = self._graph.placeholder(item.name)
            node.meta[RANK] = len(item.shape)
            self._values[item.name] = node
        for spec in self._specs["input_specs"].items():
            self._bind(*spec.union())
        self._emit(self._json, 0)
        self._graph.output(self._outputs())
        self._graph.lint()
        return keep_persistence(self._root, fx.GraphModule(self._root, self._graph).eval())

    def _bind(self, kind: str, spec: Value) -> None:
        """Register a parameter, buffer or constant under its original name."""
        if kind in ("user_input", "constant_input"):
            return
        names = {"parameter": "parameter_name", "buffer": "buffer_name"}
        if kind != "tensor_constant" and kind not in names:
            raise InvalidModel(f"the model has an input of kind {kind[:50]!r}; tensors are taken")
        name = spec[names.get(kind, "tensor_constant_name")].text()
        if name not in self._tensors:
            raise InvalidModel(f"the file has no values for {name[:200]!r}")
        persistent = kind != "buffer" or spec["persistent"].boolean()
        self._register(name, self._tensors[name], persistent and kind != "tensor_constant")
        self._values[spec["arg"]["name"].text()] = self._graph.get_attr(name)

    def _register(self, name: str, tensor: Tensor, persistent: bool) -> None:
        *path, leaf = name.split(".")
        for part in (*path, leaf):
            if not _PART.fullmatch(part) or keyword.iskeyword(part):
                raise InvalidModel(
                    f"the tensor name {name[:200]!r} has a part that is no plain name; rename it"
                )
        host = self._root
        for part in path:
            if part not in host._modules:
                host.add_module(part, nn.Module())
            host = host.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            host.register_parameter(leaf, tensor)
        else:
            host.register_buffer(leaf, tensor, persistent=persistent)

    def _emit(self, graph: Value, depth: int) -> None:
        for node in graph["nodes"].items():
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise InvalidModel(f"the model has more than {MAX_NODES} operations")
            self._place = partial(place_of, node)
            target = node["target"].text()
            if target in REGIONS:
                self._inline(node, target, depth)
            else:
                self._call(node, target, graph)

    def _call(self, node: Value, target: str, graph: Value) -> None:
        function = resolve(target, self._place)
        args, kwargs = self._arguments(node, function)
        outputs = [output.union() for output in node["outputs"].items()]
        names = _result_names(outputs)
        single = len(outputs) == 1 and outputs[0][0] != "as_tensors"
        call = self._graph.create_node(
            "call_function", function, args, kwargs, names[0] if single else None
        )
        call.meta[LAYER] = layer_of(node)
        for index, name in enumerate(names):
            if name is not None:
                item = (
                    call if single else self._graph.call_function(operator.getitem, (call, index))
                )
                self._values[name] = item
                meta = graph["tensor_values"].get(name)
                if meta is not None:
                    item.meta[RANK] = len(meta["sizes"].items())

    def _arguments(
        self, node: Value, function: Callable[..., object]
    ) -> tuple[tuple[Argument, ...], dict[str, Argument]]:
        """Return arguments; from the first gap on (a default was left out) they go by name."""
        schema = function._schema.arguments if isinstance(function, OpOverload) else None
        args: list[Argument] = []
        kwargs: dict[str, Argument] = {}
        for item in node["inputs"].items():
            name, value = item["name"].text(), self._argument(item["arg"])
            kind = item.get("kind")
            named = kind is not None and kind.raw == _KEYWORD
            gap = schema is not None and (
                len(args) >= len(schema) or schema[len(args)].name != name
            )
            if schema is not None and (named or gap or kwargs):
                kwargs[name] = value
            else:
                args.append(value)
        if schema is not None and not set(kwargs) <= {argument.name for argument in schema}:
            raise node.wrong("has an argument that its operator does not take")
        return tuple(args), kwargs

    def _argument(self, value: Value) -> Argument:
        kind, content = value.union()
        reader = self._READERS.get(kind)
        if reader is None:
            raise InvalidModel(
                f"the model uses an argument of kind {kind[:50]!r}{self._place()}, which is not "
                "supported; call with tensors, numbers and lists of them, and export again"
            )
        return reader(self, content)

    def _named(self, name: Value) -> Argument:
        if name.text() not in self._values:
            raise name.wrong("names a value that does not exist yet")
        return self._values[name.text()]

    def _symbolic(self, value: Value) -> Argument:
        kind, content = value.union()
        if kind == "as_name":
            return self._named(content)
        if kind == "as_int":
            return content.integer()
        return content.boolean() if kind == "as_bool" else content.number()

    def _optional(self, value: Value) -> Argument:
        kind, content = value.union()
        return self._named(content["name"]) if kind == "as_tensor" else None

    _READERS: Mapping[str, Callable[[GraphReader, Value], Argument]] = {
        "as_none": lambda _, value: None,
        "as_tensor": lambda self, value: self._named(value["name"]),
        "as_tensors": lambda self, value: [self._named(t["name"]) for t in value.items()],
        "as_optional_tensor": lambda self, value: self._optional(value),
        "as_optional_tensors": lambda self, value: [self._optional(t) for t in value.items()],
        "as_int": lambda _, value: value.integer(),
        "as_ints": lambda _, value: [item.integer() for item in value.items()],
        "as_int_lists": lambda _, value: [
            [item.integer() for item in row.items()] for row in value.items()
        ],
        "as_float": lambda _, value: value.number(),
        "as_floats": lambda _, value: [item.number() for item in value.items()],
        "as_bool": lambda _, value: value.boolean(),
        "as_bools": lambda _, value: [item.boolean() for item in value.items()],
        "as_string": lambda _, value: value.text(),
        "as_strings": lambda _, value: [item.text() for item in value.items()],
        "as_sym_int": lambda self, value: self._symbolic(value),
        "as_sym_float": lambda self, value: self._symbolic(value),
        "as_sym_bool": lambda self, value: self._symbolic(value),
        "as_sym_ints": lambda self, value: [self._symbolic(item) for item in value.items()],
        "as_scalar_type": lambda _, value: _scalar_type(value),
        "as_memory_format": lambda _, value: _memory_format(value),
        "as_layout": lambda _, value: _layout(value),
        # The canonical form lives on the CPU; training rewrites these when it moves it.
        "as_device": lambda _, value: torch.device("cpu"),
    }

    def _inline(self, node: Value, target: str, depth: int) -> None:
        """Put the body of a no_grad (or disabled autocast) region into the graph itself."""
        arguments = [item["arg"] for item in node["inputs"].items()]
        at = next((i for i, arg in enumerate(arguments) if arg.union()[0] == "as_graph"), None)
        enabled = target.endswith("autocast") and (
            len(arguments) < 3 or arguments[2].raw != {"as_bool": False}
        )
        if at is None or enabled or depth >= MAX_INLINED:
            raise OperatorNotAllowed(
                f"the model runs a part under autocast{self._place()}; export it without "
                "torch.autocast"
            )
        graph = arguments[at]["as_graph"]["graph"]
        given = [self._argument(argument) for argument in arguments[at + 1 :]]
        names = [_result_name(*item.union()) for item in graph["inputs"].items()]
        outer, self._values = self._values, dict(self._values)
        self._values.update({n: v for n, v in zip(names, given, strict=True) if n is not None})
        self._emit(graph, depth + 1)
        results = [self._argument(output) for output in graph["outputs"].items()]
        self._values = outer
        produced = _result_names([output.union() for output in node["outputs"].items()])
        self._values.update({n: v for n, v in zip(produced, results, strict=True) if n is not None})

    def _outputs(self) -> Argument:
        leaves: list[Argument] = []
        for spec in self._specs["output_specs"].items():
            kind, content = spec.union()
            if kind == "user_output":
                leaves.append(self._argument(content["arg"]))
            elif kind == "buffer_mutation":
                name = content["buffer_name"].text()
                if not name.endswith("num_batches_tracked"):
                    raise InvalidModel(
                        f"the model writes to its buffer {name[:200]!r} in each call; export it in "
                        "eval mode, without a state that calls change"
                    )
            elif kind != "user_input_mutation":
                raise InvalidModel(f"the model has an output of kind {kind[:50]!r}")
        call = self._program["graph_module"]["module_call_graph"].items()[0]["signature"]
        return build(parse_treespec(call["out_spec"].text()), leaves)


def read_graph(
    program: Value, weights: Mapping[str, Tensor], constants: Mapping[str, Tensor]
) -> fx.GraphModule:
    """Return an exported program as a graph of ATen calls over parameters under their own names.

    Nodes carry ``meta["layer"]``, the module they stand in (a hint), and ``meta["rank"]``.

    Raises:
        OperatorNotAllowed: an operator outside the table.
        InvalidModel: damaged, or built in a way that cannot be rebuilt.
    """
    return GraphReader(program, weights, constants).read()


def _result_name(kind: str, content: Value) -> str | None:
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        tag, name = content.union()
        return name.text() if tag == "as_name" else None
    return content["name"].text() if kind == "as_tensor" else None


def _result_names(outputs: list[tuple[str, Value]]) -> list[str | None]:
    return list(
        chain.from_iterable(
            [item["name"].text() for item in content.items()]
            if kind == "as_tensors"
            else [_result_name(kind, content)]
            for kind, content in outputs
        )
    )


def _scalar_type(value: Value) -> torch.dtype:
    name = SCALAR_TYPES.get(value.integer())
    if name is None:
        raise InvalidModel("the model uses a number type that is not supported")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _memory_format(value: Value) -> torch.memory_format:
    if value.raw not in _FORMATS:
        raise value.wrong("is no memory format")
    return _FORMATS[value.integer()]


def _layout(value: Value) -> torch.layout:
    if value.raw != STRIDED:
        raise InvalidModel("the model uses sparse tensors, which are not supported")
    return torch.strided
