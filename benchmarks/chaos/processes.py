"""The processes of one command, found in /proc, and killed by their ids.

All of them work in the command's own folder, wherever their parents have gone and whatever they call themselves: Ray's
workers overwrite their command lines and environments, and belong to nobody once their raylet is dead.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE")


@dataclass(frozen=True)
class Process:
    pid: int
    line: str  # the command line, or the title that it has given itself

    @property
    def kind(self) -> str:
        """worker, gcs, raylet, or other."""
        if self.line.startswith("ray::"):
            return "other" if self.line.startswith(AGENTS) else "worker"
        return {"gcs_server": "gcs", "raylet": "raylet"}.get(Path(self.line.split(" ")[0]).name, "other")


def working_in(folder: Path) -> list[Process]:
    """All living processes whose working folder is this one."""
    return sorted(_look(folder), key=lambda process: process.pid)


def _look(folder: Path) -> Iterator[Process]:
    place = str(folder.resolve())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd") == place:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    if state not in "ZX":
                        yield Process(int(entry.name), line)
            except OSError:  # it has ended meanwhile
                continue


def kill(pids: list[int]) -> None:
    """All at once, as far as one can: stopped first, so that none sees another's end."""
    for step in (signal.SIGSTOP, signal.SIGKILL) if len(pids) > 1 else (signal.SIGKILL,):
        for pid in pids:
            try:
                os.kill(pid, step)
            except ProcessLookupError:
                continue
