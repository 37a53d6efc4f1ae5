"""The death of the local Ray is seen, and ends the driver in one line. On a real Ray: tests/workflows/test_chaos.py."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import ray

from saddlepoint.scaling import watch


class Node:
    """What Ray knows of the processes that it has started, as far as `watch` asks."""

    def __init__(self, *dead: str, after: int = 0) -> None:
        self.dead, self.after, self.asked = dead, after, 0

    def dead_processes(self) -> list[tuple[str, Any]]:
        self.asked += 1
        return [(kind, None) for kind in self.dead] if self.asked > self.after else []


@pytest.mark.parametrize(
    ("node", "found"),
    [
        (None, None),  # a cluster elsewhere
        (Node(), None),
        (Node("monitor", "log_monitor", "dashboard"), None),  # which a sweep can do without
        (Node("raylet"), "Ray's node process (raylet)"),
        (Node("monitor", "gcs_server"), "Ray's head process (gcs_server)"),
    ],
)
def test_only_what_a_sweep_cannot_do_without_counts(
    node: Node | None, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    assert watch.died() == found


def test_a_death_that_shows_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._private.worker, "_global_node", Node("raylet", after=3))
    assert watch.died() is None
    assert watch.died(patience=10.0) == "Ray's node process (raylet)"


PROGRAM = """
import os, time
import ray
from saddlepoint.scaling.watch import watching

class Node:
    def dead_processes(self):
        return [("gcs_server", None)]

with watching(lambda: os.write(1, b"at rest")):
    ray._private.worker._global_node = Node()
    time.sleep(100)
print("went on")
"""


def test_the_driver_comes_to_rest_and_says_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1
    assert done.stdout == "at rest"
    assert done.stderr == (
        "saddle: Ray's head process (gcs_server) died; everything is on disk, and the same command goes on\n"
    )


def test_afterwards_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("the process would have ended"))
    with watch.watching(lambda: None):
        pass
    monkeypatch.setattr(ray._private.worker, "_global_node", Node("raylet"))
    assert "saddlepoint-watch" not in {thread.name for thread in watch.threading.enumerate()}


STARTING = """
import os, subprocess, sys, time
from saddlepoint.scaling.watch import watching_it_start

old = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE)  # of an earlier Ray in this process: no news
old.stdin.close()
time.sleep(0.5)
with watching_it_start():
    new = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE)
    time.sleep(1.0)
    print("still starting", flush=True)
    new.kill()
    time.sleep(100)
"""


def test_a_head_that_dies_while_ray_starts_ends_the_driver(tmp_path: Path) -> None:
    """Before Ray stands it knows of no node; its head process is a child all the same. Here it is `cat`, renamed."""
    head = tmp_path / "gcs_server"
    head.symlink_to(shutil.which("cat") or "/bin/cat")
    program = [sys.executable, "-c", textwrap.dedent(STARTING), str(head)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (1, "still starting\n")
    assert done.stderr == (
        "saddle: Ray's head process (gcs_server) died; everything is on disk, and the same command goes on\n"
    )
