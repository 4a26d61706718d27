from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import run


def keys(folder: Path, *arguments: object) -> list[dict[str, object]] | dict[str, object]:
    done = run("keys", *arguments, "--data-dir", folder, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_key_lives_through_create_list_rotate_and_revoke(tmp_path: Path) -> None:
    made = keys(tmp_path, "create", "--name", "ci", "--tenant", "acme", "--scope", "read")
    assert made["key"].startswith(f"planish_{made['id']}_")
    assert (made["tenant"], made["scopes"]) == ("acme", ["read"])
    renewed = keys(tmp_path, "rotate", made["id"], "--grace", "1h")
    keys(tmp_path, "revoke", renewed["id"])
    listed = keys(tmp_path, "list")
    assert [(key["id"], key["state"]) for key in listed] == [
        (made["id"], "live"),
        (renewed["id"], "revoked"),
    ]
    assert all("key" not in key and "sha256" not in key for key in listed)
    actions = [
        json.loads(line)["action"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()
    ]
    assert actions == ["key.created", "key.rotated", "key.revoked"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--name", "x", "--tenant", "../up"),
        ("create", "--name", "x", "--expires", "soon"),
        ("revoke", "0123456789"),
    ],
)
def test_bad_input_ends_with_exit_code_2_and_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = run("keys", *arguments, "--data-dir", tmp_path)
    assert done.code == 2
    assert done.err.strip()
