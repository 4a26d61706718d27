"""What the processes of one worker share, handed down through the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from planish.store.settings import StoreSettings

ENV_CONCURRENCY = "PLANISH_WORKER_CONCURRENCY"
ENV_GPUS = "PLANISH_WORKER_GPUS"
ENV_LEASE = "PLANISH_LEASE_SECONDS"
ENV_RETRY = "PLANISH_RETRY_SECONDS"
ENV_RENDEZVOUS = "PLANISH_RENDEZVOUS"
ENV_CONVERT = "PLANISH_CONVERT_SECONDS"
ENV_UNGUARDED = "PLANISH_UNGUARDED"
ENV_ENGINE_GUARDS = "PLANISH_ENGINE_GUARDS"


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works.

    Attributes:
        store: where jobs, files and Redis are.
        concurrency: jobs at a time; plans have one process more.
        gpus: CUDA device indices that its jobs may use.
        lease_seconds: a job whose worker has been silent for so long is given to another one.
        retry_seconds: pause before a crashed job is tried again; it doubles with each crash.
        rendezvous: host:port where the machines of one job meet; None: jobs have one machine.
        convert_seconds: how long a small upload may take to be opened; large ones get more.
        unguarded: whether all formats are taken where the kernel gives no sandbox.
        engine_guards: whether the process that works on a job is locked in too.
    """

    store: StoreSettings
    concurrency: int = 1
    gpus: tuple[int, ...] = ()
    lease_seconds: float = 30.0
    retry_seconds: float = 10.0
    rendezvous: str | None = None
    convert_seconds: float = 120.0
    unguarded: bool = False
    engine_guards: bool = True

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}; at least 1 is needed")
        if self.gpus and self.concurrency > 1:
            raise ValueError(
                "a worker with GPUs runs one job at a time; start one worker for each set of GPUs"
            )
        if self.lease_seconds <= 0 or self.retry_seconds < 0:
            raise ValueError(f"{ENV_LEASE} must be above 0 and {ENV_RETRY} not below")
        if self.convert_seconds <= 0:
            raise ValueError(f"{ENV_CONVERT} must be above 0; got {self.convert_seconds}")

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return round(self.lease_seconds * 1000)

    @staticmethod
    def from_env() -> WorkerSettings:
        """Return the settings of the environment; what is not set has its default.

        Raises:
            ValueError: a value is not a number, or out of range.
        """
        return WorkerSettings(
            store=StoreSettings.from_env(),
            concurrency=int(os.environ.get(ENV_CONCURRENCY) or 1),
            gpus=parse_gpus(os.environ.get(ENV_GPUS, "")),
            lease_seconds=float(os.environ.get(ENV_LEASE) or 30.0),
            retry_seconds=float(os.environ.get(ENV_RETRY) or 10.0),
            rendezvous=os.environ.get(ENV_RENDEZVOUS) or None,
            convert_seconds=float(os.environ.get(ENV_CONVERT) or 120.0),
            unguarded=_choice(ENV_UNGUARDED, "refuse", "allow"),
            engine_guards=not _choice(ENV_ENGINE_GUARDS, "on", "off"),
        )

    def to_env(self) -> dict[str, str]:
        """Return the variables that give a child process these settings."""
        devices = ",".join(map(str, self.gpus))
        return self.store.to_env() | {
            ENV_CONCURRENCY: str(self.concurrency),
            ENV_GPUS: devices,
            ENV_LEASE: str(self.lease_seconds),
            ENV_RETRY: str(self.retry_seconds),
            ENV_RENDEZVOUS: self.rendezvous or "",
            ENV_CONVERT: str(self.convert_seconds),
            ENV_UNGUARDED: "allow" if self.unguarded else "refuse",
            ENV_ENGINE_GUARDS: "on" if self.engine_guards else "off",
            "CUDA_VISIBLE_DEVICES": devices,
        }


def _choice(name: str, usual: str, other: str) -> bool:
    """Tell whether a variable holds the other one of two words.

    Raises:
        ValueError: it holds neither.
    """
    word = os.environ.get(name) or usual
    if word not in (usual, other):
        raise ValueError(f"{name} is {word!r}; it may be {usual} or {other}")
    return word == other


def parse_gpus(text: str) -> tuple[int, ...]:
    """Read a list of device indices such as ``0,1``.

    Raises:
        ValueError: something else than different whole numbers.
    """
    gpus = tuple(int(part) for part in text.split(",") if part.strip())
    if len(set(gpus)) != len(gpus) or any(gpu < 0 for gpu in gpus):
        raise ValueError(f"GPUs are different indices from 0 on, such as 0,1; got {text!r}")
    return gpus
