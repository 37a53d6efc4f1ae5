"""The death of the local Ray is seen, and ends the driver in one line. On a real Ray: tests/workflows/test_chaos.py."""

import os
import shutil
import subprocess
import sys
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


LINE = "saddle: Ray's head process (gcs_server) died; everything is on disk, and the same command goes on\n"


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """In an interpreter of its own, which it may end."""
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=90)


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
    done = run(PROGRAM)
    assert (done.returncode, done.stdout, done.stderr) == (1, "at rest", LINE)


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


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A program that goes by the name of Ray's head process: `cat`."""
    path = tmp_path / "gcs_server"
    path.symlink_to(shutil.which("cat") or "/bin/cat")
    return path


def test_a_head_that_dies_while_ray_starts_ends_the_driver(head: Path) -> None:
    """Before Ray stands it knows of no node; its head process is a child all the same."""
    done = run(STARTING, str(head))
    assert (done.returncode, done.stdout, done.stderr) == (1, "still starting\n", LINE)


SILENT = """
import subprocess, sys, threading
from ray._private import node
from saddlepoint.scaling.watch import watching_it_start

with watching_it_start():
    head = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE)
    threading.Timer(1.0, head.kill).start()
    node.wait_for_persisted_port(sys.argv[2], "ab" * 28, "gcs_server_port", timeout_ms=30000)
"""


def test_a_head_that_dies_before_it_has_told_its_port_is_not_waited_for(head: Path) -> None:
    """Ray's own wait would hold the interpreter for 30 s, and then say that it timed out."""
    done = run(SILENT, str(head), str(head.parent))
    assert (done.returncode, done.stderr) == (1, LINE)


def test_a_port_is_found_as_ray_finds_it_and_its_absence_told_in_rays_words(tmp_path: Path) -> None:
    theirs = ray._private.node.wait_for_persisted_port
    (tmp_path / f"gcs_server_port_{'ab' * 28}").write_text("6379")
    with watch.watching_it_start():
        ours = ray._private.node.wait_for_persisted_port
        assert ours is not theirs
        assert ours(str(tmp_path), "ab" * 28, "gcs_server_port", timeout_ms=100) == 6379
        with pytest.raises(RuntimeError, match="Timed out"):
            ours(str(tmp_path), "ab" * 28, "other_port", timeout_ms=100)
    assert ray._private.node.wait_for_persisted_port is theirs


ENDING = """
import os, sys, time
import ray
from saddlepoint.scaling.watch import watching_it_end

class Node:
    dead = []

    def dead_processes(self):
        return [(kind, None) for kind in self.dead]

    def kill_all_processes(self, **options):
        self.dead = ["raylet", "gcs_server"]
        time.sleep(1.0)

ray._private.worker._global_node = node = Node()
with watching_it_end(lambda: os.write(1, b"at rest")):
    if sys.argv[1] == "dies":
        node.dead = ["gcs_server"]
        time.sleep(100)
    ray._private.worker._global_node.kill_all_processes(check_alive=False)
    ray._private.worker._global_node = None
print("ended")
"""


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("dies", (1, "at rest", LINE)),  # before Ray has ended it: Ray's driver would wait for it for a minute
        ("is ended", (0, "ended\n", "")),
    ],
)
def test_a_head_that_dies_while_ray_ends_is_told_from_one_that_is_ended(what: str, end: tuple[int, str, str]) -> None:
    done = run(ENDING, what)
    assert (done.returncode, done.stdout, done.stderr) == end
