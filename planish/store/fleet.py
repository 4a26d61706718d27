"""Which workers are alive, and what they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis
from pydantic import BaseModel, ConfigDict

from planish.contract.guards import Guard, common
from planish.store.scripts import Scripts


class WorkerInfo(BaseModel):
    """One worker: its name, the GPUs of one job, the queues it serves, its kernel's guards."""

    model_config = ConfigDict(frozen=True)

    id: str
    gpus: int
    queues: tuple[str, ...]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """The living workers."""

    workers: tuple[WorkerInfo, ...]

    @property
    def gpus_max(self) -> int:
        """The most GPUs that one job can get."""
        return max((worker.gpus for worker in self.workers), default=0)

    def serves(self, queue: str) -> bool:
        """Say whether some worker takes from this queue."""
        return any(queue in worker.queues for worker in self.workers)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What every worker's kernel gives; what one of them lacks is not given."""
        return common([worker.guards for worker in self.workers])


class FleetRegistry:
    """Workers announce themselves here; what is not repeated in time is forgotten."""

    def __init__(self, client: redis.Redis) -> None:
        self._run = Scripts(client)

    def register_worker(
        self,
        worker_id: str,
        gpus: int,
        queues: tuple[str, ...],
        ttl: float,
        guards: tuple[Guard, ...] = (),
    ) -> None:
        """Announce a worker for the next `ttl` seconds; called again and again."""
        info = WorkerInfo(id=worker_id, gpus=gpus, queues=queues, guards=guards)
        self._run("register_worker", worker_id, int(ttl * 1000), info.model_dump_json())

    def fleet(self) -> Fleet:
        """Return the workers whose time is not over."""
        found = cast("list[bytes]", self._run("fleet"))
        workers = (WorkerInfo.model_validate_json(info) for info in found)
        return Fleet(tuple(sorted(workers, key=lambda worker: worker.id)))
