"""``planish doctor``: what this machine has and lacks to run Planish."""

from __future__ import annotations

from typing import Annotated

import typer

from planish.cli.console import JsonFlag, print_json, print_table, say
from planish.cli.exits import Exit
from planish.cli.serve import DataDirOption, RedisOption, default_data_dir
from planish.doctor.machine import look_at_machine
from planish.doctor.places import look_at_places
from planish.doctor.redis import look_at_redis
from planish.doctor.software import look_at_software

app = typer.Typer()

MARKS = {"ok": "✓", "note": "·", "warning": "!", "failure": "✗"}


@app.command()
def doctor(
    data_dir: DataDirOption = None,
    redis_url: RedisOption = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    json: JsonFlag = False,
) -> None:
    """Look at kernel guards, libraries, Redis, disk, devices, ports; exit 1 on a failure."""
    checks = [
        *look_at_machine(),
        *look_at_software(),
        *look_at_places(data_dir or default_data_dir(), port),
        *look_at_redis(redis_url),
    ]
    failures = sum(check.outcome == "failure" for check in checks)
    if json:
        print_json({"ok": not failures, "checks": checks})
    else:
        rows = [(MARKS[check.outcome], check.name, check.detail) for check in checks]
        print_table(["", "what", "found"], rows)
        warnings = sum(check.outcome == "warning" for check in checks)
        say(f"{failures} failure(s), {warnings} warning(s)")
    if failures:
        raise typer.Exit(Exit.UNEXPECTED)
