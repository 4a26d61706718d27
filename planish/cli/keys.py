"""API keys: create, list, revoke, rotate. They work on the server's data folder, not over HTTP."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from planish.cli.console import JsonFlag, out, print_json, print_table, say
from planish.cli.serve import DataDirOption, default_data_dir
from planish.contract.errors import InvalidParameter
from planish.contract.wire import DEFAULT_TENANT
from planish.store.audit import Audit
from planish.store.keys import KeyRecord, Keys, NewKey, Scope
from planish.store.signing import signing_secret

app = typer.Typer(no_args_is_help=True)

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="As `planish keys list` shows it.")]


def open_keys(data_dir: Path | None) -> tuple[Keys, Audit]:
    """Return the keys and the audit log of a data folder."""
    folder = data_dir or default_data_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Keys(folder), Audit(folder)


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="What or whom the key is for.")],
    tenant: Annotated[
        str, typer.Option("--tenant", help="Whose jobs and files it sees.")
    ] = DEFAULT_TENANT,
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="Repeatable; default: read and write."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="30d", help="Lifetime: 90m, 12h or 30d.")
    ] = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a key and show it, once. From then on the service wants keys, on loopback too."""
    keys, audit = open_keys(data_dir)
    scopes = tuple(scope) if scope else (Scope.READ, Scope.WRITE)
    new = keys.create(name, tenant, scopes, duration(expires) if expires else None)
    audit.record("key.created", tenant=tenant, key_id=new.record.id, target=name)
    _show(new, json)


@app.command("list")
def list_keys(data_dir: DataDirOption = None, json: JsonFlag = False) -> None:
    """List all keys; the keys themselves are stored nowhere."""
    found = open_keys(data_dir)[0].list()
    now = datetime.now(UTC)
    if json:
        print_json([_public(record, now) for record in found])
        return
    rows = [
        (r.id, r.name, r.tenant, " ".join(r.scopes), r.state(now), _day(r.expires_at))
        for r in found
    ]
    print_table(["key", "name", "tenant", "scopes", "state", "expires"], rows)


@app.command()
def revoke(key_id: KeyId, data_dir: DataDirOption = None, json: JsonFlag = False) -> None:
    """End a key at once."""
    keys, audit = open_keys(data_dir)
    record = keys.revoke(key_id)
    audit.record("key.revoked", tenant=record.tenant, key_id=key_id, target=record.name)
    if json:
        print_json(_public(record, datetime.now(UTC)))
    else:
        say(f"revoked: {key_id} ({record.name})")


@app.command()
def rotate(
    key_id: KeyId,
    grace: Annotated[
        str, typer.Option("--grace", metavar="24h", help="How long the old key still works.")
    ] = "24h",
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a key with the same rights; the old one ends after the grace."""
    keys, audit = open_keys(data_dir)
    new = keys.rotate(key_id, duration(grace))
    audit.record("key.rotated", tenant=new.record.tenant, key_id=new.record.id, target=key_id)
    _show(new, json)


@app.command("webhook-secret")
def webhook_secret(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose webhooks.")] = DEFAULT_TENANT,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Show the secret that a tenant's webhooks are signed with."""
    folder = data_dir or default_data_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = signing_secret(folder, tenant)
    if json:
        print_json({"tenant": tenant, "secret": secret})
    else:
        out.print(secret, markup=False, highlight=False, soft_wrap=True)


def duration(text: str) -> timedelta:
    """Return ``90m``, ``12h`` or ``30d`` as a duration; raises InvalidParameter."""
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if match is None:
        raise InvalidParameter(f"{text[:50]!r} is no duration; write 90m, 12h or 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _show(new: NewKey, as_json: bool) -> None:
    if as_json:
        print_json({**_public(new.record, datetime.now(UTC)), "key": new.secret})
        return
    out.print(new.secret, markup=False, highlight=False, soft_wrap=True)
    say("keep it now: it is shown this once, and only its hash is stored")


def _public(record: KeyRecord, now: datetime) -> dict[str, object]:
    shown = record.model_dump(mode="json", exclude={"sha256"})
    return {**shown, "state": record.state(now)}


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else moment.strftime("%Y-%m-%d %H:%M")
