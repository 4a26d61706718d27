"""What an operator may set for the API, from ``PLANISH_*`` variables and two options."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec

from planish.store.keys import Keys
from planish.store.settings import StoreSettings
from service.protocol import Limits
from service.shares import Shares
from service.webhooks.guard import Reach

ENV_API_KEY = "PLANISH_API_KEY"
ENV_HOST = "PLANISH_HOST"
ENV_PORT = "PLANISH_PORT"
ENV_RENDEZVOUS = "PLANISH_RENDEZVOUS"
ENV_MAX_UPLOAD_BYTES = "PLANISH_MAX_UPLOAD_BYTES"
ENV_MAX_UPLOADS = "PLANISH_MAX_UPLOADS"
ENV_READS = "PLANISH_READS_PER_MINUTE"
ENV_WRITES = "PLANISH_WRITES_PER_MINUTE"
ENV_LIVE_JOBS = "PLANISH_LIVE_JOBS"
ENV_UPLOAD_BYTES = "PLANISH_UPLOAD_BYTES_PER_DAY"
ENV_WEBHOOKS = "PLANISH_WEBHOOKS"
ENV_MAX_CONNECTIONS = "PLANISH_MAX_CONNECTIONS_PER_ADDRESS"
ENV_NATIVE_CODE = "PLANISH_NATIVE_CODE"
ENV_STORAGE = "PLANISH_STORAGE_URLS"
ENV_HOSTS = "PLANISH_HOSTS"
ENV_PROXIES = "PLANISH_TRUSTED_PROXIES"

MIN_KEY_LENGTH = 16


class InvalidSettingsError(ValueError):
    """A setting that the API refuses to start with."""


@dataclass(frozen=True)
class ServiceSettings:
    """Settings of one API process.

    Attributes:
        store: data folder and Redis.
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        api_key: a single key with all rights of the default tenant, beside those that were made
            with `planish keys`; beyond loopback one of the two is needed.
        max_upload_bytes: size of one request body.
        max_uploads: bodies received at the same time; more are answered 503.
        limits: of each connection.
        rendezvous: host:port where the machines of a job meet; None: jobs have one machine.
        shares: what one tenant may use.
        webhooks: where messages about finished jobs may go.
        native_code: whether jobs may ask for the output ``aotinductor``.
        hosts: names in ``Host`` that are answered, beside loopback ones; empty: any with keys, only
            loopback ones without.
        storage: prefixes of URLs that files may be fetched from; ``{tenant}`` is who asks.
        proxies: addresses and networks whose ``X-Forwarded-For`` and ``-Proto`` are believed.
    """

    store: StoreSettings
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    max_upload_bytes: int = 64 << 30
    max_uploads: int = 32
    limits: Limits = field(default_factory=Limits)
    rendezvous: str | None = None
    shares: Shares = field(default_factory=Shares)
    webhooks: Reach = Reach.OFF
    native_code: bool = False
    hosts: frozenset[str] = frozenset()
    proxies: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keyless = self.api_key is None and not Keys(self.store.data_dir).any()
        if keyless and not is_loopback(self.host):
            raise InvalidSettingsError(
                f"{self.host} can be reached from other machines, so a key is needed: make one "
                f"with `planish keys create --name NAME`, set {ENV_API_KEY} (e.g. to the output "
                "of `openssl rand -hex 32`), or listen on 127.0.0.1"
            )
        if self.api_key is not None and not _is_good_key(self.api_key):
            raise InvalidSettingsError(
                f"{ENV_API_KEY} needs at least {MIN_KEY_LENGTH} printable ASCII characters "
                "without spaces"
            )

    @staticmethod
    def from_env(host: str | None = None, port: int | None = None) -> ServiceSettings:
        """Return the settings of the environment; the arguments win over it.

        Raises:
            InvalidSettingsError: with a sentence that says what to do.
        """
        return ServiceSettings(
            store=StoreSettings.from_env(),
            host=host or os.environ.get(ENV_HOST) or "127.0.0.1",
            port=port if port is not None else _number(ENV_PORT, 8000, least=0),
            api_key=os.environ.get(ENV_API_KEY) or None,
            max_upload_bytes=_number(ENV_MAX_UPLOAD_BYTES, 64 << 30),
            max_uploads=_number(ENV_MAX_UPLOADS, 32),
            limits=Limits(per_address=_number(ENV_MAX_CONNECTIONS, Limits.per_address)),
            rendezvous=os.environ.get(ENV_RENDEZVOUS) or None,
            shares=Shares(
                reads_per_minute=_number(ENV_READS, Shares.reads_per_minute),
                writes_per_minute=_number(ENV_WRITES, Shares.writes_per_minute),
                live_jobs=_number(ENV_LIVE_JOBS, Shares.live_jobs),
                upload_bytes_per_day=_number(ENV_UPLOAD_BYTES, Shares.upload_bytes_per_day),
            ),
            webhooks=_reach(),
            native_code=_allowed(ENV_NATIVE_CODE),
            hosts=frozenset(_host(name) for name in _list(ENV_HOSTS)),
            proxies=tuple(_network(text) for text in _list(ENV_PROXIES)),
            storage=tuple(_prefix(text) for text in _list(ENV_STORAGE)),
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _reach() -> Reach:
    text = os.environ.get(ENV_WEBHOOKS) or Reach.OFF
    try:
        return Reach(text)
    except ValueError:
        allowed = ", ".join(Reach)
        raise InvalidSettingsError(f"{ENV_WEBHOOKS}={text!r}: use one of {allowed}") from None


def _allowed(name: str) -> bool:
    text = os.environ.get(name) or "deny"
    if text not in ("allow", "deny"):
        raise InvalidSettingsError(f"{name}={text!r}: use one of allow, deny")
    return text == "allow"


def _list(name: str) -> list[str]:
    return [item.strip() for item in os.environ.get(name, "").split(",") if item.strip()]


def _host(text: str) -> str:
    if not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253}", text):
        raise InvalidSettingsError(
            f"{ENV_HOSTS}: {text!r} is no name; list names without scheme and port, with commas"
        )
    return text.lower()


def _prefix(text: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([A-Za-z0-9_.=+@,~{}-]+/)*", text):
        raise InvalidSettingsError(
            f"{ENV_STORAGE}: {text!r} is no prefix like s3://bucket/ or s3://bucket/{{tenant}}/; "
            "it ends with a slash"
        )
    if find_spec("obstore") is None:
        raise InvalidSettingsError(
            f"{ENV_STORAGE} needs the package obstore: pip install 'planish[s3]'"
        )
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text)) if "/" in text else str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidSettingsError(
            f"{ENV_PROXIES}: {text!r} is neither an address nor a network like 10.0.0.0/8"
        ) from None


def _is_good_key(key: str) -> bool:
    return len(key) >= MIN_KEY_LENGTH and key.isascii() and key.isprintable() and " " not in key


def _number(name: str, default: int, least: int = 1) -> int:
    text = os.environ.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise InvalidSettingsError(f"{name}={text!r}: needs a whole number of at least {least}")
    return int(text)
