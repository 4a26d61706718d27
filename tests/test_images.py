"""The Dockerfile and the compose file say only what is true of this tree."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
STAGE = re.compile(r"^FROM \S+ AS (\S+)$", re.MULTILINE)


def source_text() -> str:
    files = [
        *ROOT.glob("planish/**/*.py"),
        *ROOT.glob("service/**/*.py"),
        *ROOT.glob("worker/**/*.py"),
        *ROOT.glob("deploy/*"),
    ]
    return "\n".join(path.read_text() for path in files)


def test_every_copied_source_exists() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert copied
    for sources in copied:
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_service_stage_installs_no_worker() -> None:
    stage = DOCKERFILE.split("AS service\n")[1].split("\nFROM ")[0]
    assert "[service]" in stage
    assert "worker]" not in stage
    assert "torch" not in stage


def test_every_published_stage_runs_as_a_named_user_with_a_health_check() -> None:
    for name in ("service", "worker-base"):
        stage = DOCKERFILE.split(f"AS {name}\n")[1].split("\nFROM ")[0]
        assert "USER planish" in stage
        assert "HEALTHCHECK" in stage


def test_compose_builds_only_stages_that_exist() -> None:
    stages = set(STAGE.findall(DOCKERFILE))
    targets = {s["build"]["target"] for s in COMPOSE["services"].values() if "build" in s}
    assert targets == {"service", "worker", "worker-cuda"}
    assert targets <= stages


def test_compose_sets_only_variables_that_the_code_reads() -> None:
    named = {k for s in COMPOSE["services"].values() for k in s.get("environment", {})}
    code = source_text()
    assert named
    assert [name for name in named if name not in code] == []


def test_compose_keeps_redis_and_data_in_volumes_with_an_append_only_file() -> None:
    services = COMPOSE["services"]
    assert set(COMPOSE["volumes"]) == {"redis", "data", "caddy"}
    command = services["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert services["api"]["volumes"] == services["worker"]["volumes"] == ["data:/data"]


def test_gpu_worker_and_proxy_start_only_with_their_profiles() -> None:
    profiles = {n: s["profiles"] for n, s in COMPOSE["services"].items() if "profiles" in s}
    assert profiles == {"worker-gpu": ["gpu"], "proxy": ["tls"]}
