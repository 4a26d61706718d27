"""JSON of strangers: whatever it is, reading it is quick and needs little memory."""

from __future__ import annotations

import time

import pytest

from planish.contract.errors import BadRequest, InvalidModel, InvalidSpec, UnsafeModel
from planish.contract.validation import parse_spec
from planish.gate.document import Value
from planish.gate.strict_json import load_json
from planish.gate.symbols import read_size


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b"[NaN]",
        b"[" * 100_000,
        b"[" + b"[]," * 300_000 + b"1]",
        b"\xff",
        b"9" * 9999,
    ],
)
def test_documents_that_readers_differ_on_or_choke_on_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_json(raw)


def test_a_million_values_of_a_usual_length_are_taken() -> None:
    assert isinstance(load_json(b"[" + b"123456789," * 300_000 + b"1]"), list)


@pytest.mark.parametrize(
    "text", ["--5", "-" * 1900 + "1", "Integer(" * 200 + "1" + ")" * 200, "1.5"]
)
def test_sizes_are_plain_expressions_of_any_depth_or_refused(text: str) -> None:
    size = Value({"as_expr": {"expr_str": text}}, "size")
    try:
        read_size(size)
    except (UnsafeModel, InvalidModel) as error:
        assert "size expression" in error.detail


def test_floods_of_faults_are_answered_at_once() -> None:
    started = time.monotonic()
    keys = [f'"k{i}":0' for i in range(40_000)]
    with pytest.raises(BadRequest, match="'k39999' stands twice"):
        parse_spec(("{" + ",".join([*keys, keys[-1]]) + "}").encode())
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(("{" + ",".join(keys) + "}").encode())
    assert len(caught.value.errors) == 100
    with pytest.raises(BadRequest, match="more than 50000 values"):
        parse_spec(b'{"model":{"inputs":[' + b"{}," * 300_000 + b"{}]}}")
    assert time.monotonic() - started < 10


def test_a_lone_surrogate_in_an_error_can_be_sent() -> None:
    body = InvalidModel("the name '\ud800'").problem("r").model_dump_json()
    assert "ud800" in body
