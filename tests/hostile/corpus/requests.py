"""What stands around the files: their names, how many they are, and what the spec asks for."""

from __future__ import annotations

from typing import Any

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import ARCHITECTURE, HARMLESS, Upload, hostile
from tests.hostile.fuzz import seeds

SIMPLIFY: dict[str, Any] = {"recipe": [{"op": "simplify"}]}


def named(*names: str) -> Upload:
    """Return the parts of one model under these names."""
    return Upload(tuple(("model", name, seeds.pt2()) for name in names), SIMPLIFY)


def spec(**changes: object) -> Upload:
    """Return weights with a spec that asks for more."""
    asked = {**SIMPLIFY, "model": ARCHITECTURE, **changes}
    return Upload((("model", "a.pt", seeds.checkpoint()),), asked)


def architecture(**changes: object) -> Upload:
    """Return weights for an architecture that is described like this."""
    return spec(model={"architecture": {**ARCHITECTURE["architecture"], **changes}})


@hostile(HARMLESS)
def file_name_that_climbs(canary: Canary) -> Upload:
    """A single file's name never becomes a path."""
    return named("../../../../etc/cron.d/evil")


@hostile(HARMLESS)
def file_name_of_unicode(canary: Canary) -> Upload:
    """Right-to-left, zero width, emoji."""
    return named("m\u202e\u200b💣.pt2")


@hostile("malformed_request", over_http=True)
def part_name_that_hides(canary: Canary) -> Upload:
    """Several parts have names that become files; this one would be the folder above."""
    return named("model.pt2", "..")


@hostile("malformed_request", over_http=True)
def part_name_of_unicode(canary: Canary) -> Upload:
    """Look-alikes of an honest name."""
    return named("model.pt2", "mоdel.pt2")


@hostile("malformed_request", over_http=True)
def part_named_twice(canary: Canary) -> Upload:
    """The first or the last?"""
    return named("model.pt2", "model.pt2")


@hostile("malformed_request", over_http=True)
def too_many_parts(canary: Canary) -> Upload:
    """Thousands of small files."""
    parts = tuple(("model", f"{index}.txt", b"x") for index in range(2_000))
    return Upload(parts, SIMPLIFY)


@hostile("invalid_model")
def parts_that_belong_to_nothing(canary: Canary) -> Upload:
    """Two models at once."""
    return named("a.pt2", "b.pt2")


@hostile("malformed_request")
def spec_nested_too_deep(canary: Canary) -> Upload:
    """A thousand objects within each other."""
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    return spec(labels=deep)


@hostile("invalid_spec")
def spec_with_foreign_keys(canary: Canary) -> Upload:
    """What other libraries would obey."""
    return spec(trust_remote_code=True, __class__="x", auto_map={"AutoModel": "evil.py"})


@hostile("invalid_spec")
def spec_with_numbers_of_exabytes(canary: Canary) -> Upload:
    """A thousand digits where seconds belong."""
    return spec(resources={"run_seconds": 10**400})


@hostile("unknown_architecture")
def architecture_that_is_a_module(canary: Canary) -> Upload:
    """A name that some loader would import."""
    return architecture(name="os.system")


@hostile("unknown_architecture", "invalid_spec")
def library_of_a_stranger(canary: Canary) -> Upload:
    """A library that is not installed for this."""
    return architecture(library="subprocess", name="Popen")


@hostile("unknown_architecture", "invalid_spec")
def config_with_remote_code(canary: Canary) -> Upload:
    """auto_map and its kin (CVE-2026-4372, CVE-2026-5241)."""
    return architecture(config={"auto_map": {"AutoModel": "evil.py"}, "trust_remote_code": True})


@hostile("unknown_architecture", "invalid_spec")
def config_of_gigabytes(canary: Canary) -> Upload:
    """A network of a billion layers."""
    return architecture(name="cifar_resnet", config={"depth": 6 * 10**9 + 2})


@hostile("invalid_spec", over_http=True)
def webhook_to_the_inside(canary: Canary) -> Upload:
    """A callback to the metadata service of a cloud."""
    return spec(webhook={"url": "http://169.254.169.254/latest/meta-data"})
