"""How the machines of a job find each other: a note beside its checkpoints, on shared storage."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from worker.engine.train.run import Nodes

MEETING = "meeting.json"


class Meeting(BaseModel):
    """An invitation to train together; stays until the job ends.

    Attributes:
        folder: of the run's parcel.
        processes: on each machine.
        count: of machines.
        rendezvous: host:port where they meet.
        name: of the meeting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    processes: int
    count: int
    rendezvous: str
    name: str

    @property
    def nodes(self) -> Nodes:
        """What torchrun is told."""
        return Nodes(self.count, self.rendezvous, self.name)


def call(checkpoints: Path, folder: Path, processes: int, nodes: Nodes) -> None:
    """Leave the note."""
    meeting = Meeting(
        folder=folder,
        processes=processes,
        count=nodes.count,
        rendezvous=nodes.meet or "",
        name=nodes.name,
    )
    part = checkpoints / f".{MEETING}"
    part.write_text(meeting.model_dump_json())
    part.replace(checkpoints / MEETING)


def invitations(jobs: Path) -> list[Meeting]:
    """Return the notes of all jobs whose runs are still there.

    Args:
        jobs: folder of all jobs.
    """
    found = []
    for path in jobs.glob(f"*/checkpoints/{MEETING}"):
        try:
            meeting = Meeting.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # the job ended just now
        if meeting.folder.is_dir():
            found.append(meeting)
    return found
