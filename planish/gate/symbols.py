"""Sizes of an exported program: integers, symbols, or expressions over them.

The file spells expressions as sympy code (``Symbol('s77', positive=True, integer=True)``). It is
parsed as a syntax tree and never evaluated: sympy's own parser runs Python.
"""

from __future__ import annotations

import ast
import re

from planish.contract.errors import UnsafeModel
from planish.gate.document import Value

MAX_EXPRESSION = 2000

_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,4}\d{0,9}")
_FUNCTIONS = frozenset(
    ("Add", "Mul", "Pow", "FloorDiv", "CleanDiv", "CeilDiv", "Mod", "PythonMod", "Max", "Min")
)


def read_size(value: Value) -> int | str:
    """Return a size: an integer, the name of a symbol, or the text of an expression.

    Raises:
        UnsafeModel: the expression holds anything but symbols, integers and arithmetic.
        InvalidModel: the value is no size at all.
    """
    kind, content = value.union()
    if kind == "as_int":
        return content.integer()
    if kind != "as_expr":
        raise value.wrong("is not a size")
    text = content["expr_str"].text()
    refused = UnsafeModel(
        f"the exported program is refused: {content.where} is not a plain size expression"
    )
    if len(text) > MAX_EXPRESSION:
        raise refused
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise refused from None
    try:
        expression = _expression(tree.body)
    except RecursionError:
        raise refused from None
    if expression is None:
        raise refused
    return int(expression) if _INTEGER.fullmatch(expression) else expression


def is_symbol(size: int | str) -> bool:
    """Tell whether a size is one free symbol, neither a number nor an expression."""
    return isinstance(size, str) and _SYMBOL.fullmatch(size) is not None


def _expression(node: ast.expr) -> str | None:
    """Return the expression in canonical text, None where it is not allowed."""
    if isinstance(node, ast.Constant):
        return str(node.value) if type(node.value) is int else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = _expression(node.operand)
        return None if operand is None else f"-{operand}"
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
        return None
    if node.func.id == "Symbol":
        name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        return name if isinstance(name, str) and _SYMBOL.fullmatch(name) else None
    parts = [_expression(argument) for argument in node.args]
    if any(part is None for part in parts):
        return None
    if node.func.id == "Integer" and len(parts) == 1:
        return parts[0]
    if node.func.id not in _FUNCTIONS:
        return None
    return f"{node.func.id}({', '.join(str(part) for part in parts)})"
