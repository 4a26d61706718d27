"""What the options mean; no server is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from planish.cli import app
from planish.cli.exits import Exit, exit_of_error
from planish.cli.inputs import read_sources, read_spec
from planish.contract.errors import BY_CODE, InvalidSpec, MissingPart, PlanishError
from planish.contract.named import named_recipes
from planish.contract.recipe import Prune, Quantize
from planish.contract.spec import Spec
from tests.cli.conftest import run
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text()


def commands() -> set[str]:
    groups = {group.name for group in app.registered_groups if group.name}
    direct = [
        command
        for group in app.registered_groups
        if not group.name and group.typer_instance
        for command in group.typer_instance.registered_commands
    ]
    return groups | {str(c.name or getattr(c.callback, "__name__", "")) for c in direct}


def test_docs_list_exactly_the_commands() -> None:
    assert set(re.findall(r"^\| `planish (\w+)`", PAGE, re.MULTILINE)) == commands()


def test_docs_list_exactly_the_exit_codes() -> None:
    table = PAGE[PAGE.index("| exit code") :]
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(Exit)


def test_docs_list_exactly_the_named_recipes() -> None:
    section = PAGE[PAGE.index("## Named recipes") : PAGE.index("## In scripts")]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == set(named_recipes())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0


def test_documented_options_exist() -> None:
    helps = "".join(
        CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        for name in commands()
    )
    for option in set(re.findall(r"`(--[a-z-]+)", PAGE)):
        assert option in helps, option


@pytest.mark.parametrize("name", sorted(named_recipes()))
def test_named_recipes_make_valid_specs(name: str) -> None:
    spec = read_spec(spec=None, recipe=name)
    assert spec.recipe == named_recipes()[name].recipe
    dynamic = any(isinstance(p, Quantize) and p.mode == "dynamic" for p in spec.recipe or ())
    assert not (dynamic and "pt2" in spec.outputs)


def test_options_win_over_the_spec_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"name": "file", "seed": 1, "recipe": [{"op": "simplify"}]}))
    spec = read_spec(
        spec=str(path),
        recipe='[{"op": "prune", "sparsity": 0.3}]',
        architecture="cifar_resnet",
        arch_config=["depth=20"],
        settings=["seed=7", "data.preprocess.scale=0.5", "target.threads=4"],
        name="option",
        labels=["team=edge"],
    )
    assert spec.recipe == (Prune(sparsity=0.3),)
    assert (spec.name, spec.seed, spec.labels) == ("option", 7, {"team": "edge"})
    assert (spec.data.preprocess.scale, spec.target.threads) == (0.5, 4)
    assert spec.model.architecture is not None
    assert spec.model.architecture.model_dump() == {
        "library": "planish",
        "name": "cifar_resnet",
        "config": {"depth": 20},
    }


def test_a_named_recipe_leaves_what_the_spec_says_alone() -> None:
    spec = read_spec(spec='{"outputs": ["onnx"], "seed": 5}', recipe="int8")
    assert (spec.outputs, spec.seed) == (("onnx",), 5)
    assert isinstance(spec, Spec)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "smal"}, "there are: dynamic, fast, int8, small"),
        ({"recipe": '[{"op": "prune", "sparsty": 1}]'}, "did you mean 'sparsity'"),
        ({"spec": "no-such-file.json"}, "cannot be read"),
        ({"spec": "{}"}, "--recipe NAME"),
        ({"recipe": "int8", "settings": ["seed"]}, "needs KEY=VALUE"),
        ({"recipe": "int8", "settings": ["seed=1", "seed.deeper=1"]}, "seed is not an object"),
        ({"recipe": "int8", "arch_config": ["depth=20"]}, "needs --architecture"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSpec, match=re.escape(words)):
        read_spec(**{"spec": None, "recipe": None, **options})  # type: ignore[arg-type]


def test_a_missing_model_is_said_before_a_server_is_started() -> None:
    with pytest.raises(MissingPart, match=r"no file nowhere\.pt2"):
        read_sources("nowhere.pt2", None, None, None)
    with pytest.raises(MissingPart, match="student: there is no file gone"):
        read_sources(__file__, None, None, None, "gone")
    done = run("optimize", "nowhere.pt2", "--recipe", "int8", "--json")
    assert (done.code, done.out) == (2, "")
    assert json.loads(done.err)["code"] == "missing_part"


@pytest.mark.parametrize("kind", sorted(BY_CODE.values(), key=lambda k: k.code))
def test_every_error_has_an_exit_code_that_is_not_0(kind: type[PlanishError]) -> None:
    code = exit_of_error(kind("detail"))
    assert code is not Exit.OK
    if 400 <= kind.status < 500:
        assert code is Exit.BAD_INPUT


def test_unknown_options_and_commands_exit_with_2() -> None:
    assert run("submit", "--no-such-option").code == 2
    assert run("no-such-command").code == 2
