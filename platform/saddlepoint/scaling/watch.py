"""Ray's head, watched: a driver whose local Ray has died would wait for it for minutes, or break anywhere.

Without the raylet Tune takes the loss of every worker for an error of its job; without the control store (GCS) it
hangs for a minute, until Ray ends the driver with a C++ stack trace. Both are told here within a second.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray
from ray._private import node

HEAD = {"gcs_server": "Ray's head process (gcs_server)", "raylet": "Ray's node process (raylet)"}
EVERY = 0.25  # seconds between two looks


def died(patience: float = 0.0) -> str | None:
    """Which process of the local Ray is dead; None if all live, or if Ray runs elsewhere.

    patience: seconds to look again for. A process that dies closes its sockets before its parent can know of it.
    """
    until = time.monotonic() + patience
    while True:
        here = ray._private.worker._global_node
        gone = {kind for kind, _ in here.dead_processes()} if here is not None else set()
        found = next((name for kind, name in HEAD.items() if kind in gone), None)
        if found or time.monotonic() >= until:
            return found
        time.sleep(0.02)


def verdict(name: str) -> str:
    return f"{name} died; everything is on disk, and the same command goes on"


@contextmanager
def watching(at_rest: Callable[[], None], died: Callable[[], str | None] = died) -> Iterator[None]:
    """While it holds, the death of the local Ray ends this process: `at_rest` is called from another thread, then
    comes one line on stderr, and exit code 1. No exception could reach a main thread that waits inside of Ray."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            if (name := died()) is not None and not over.is_set():
                with suppress(Exception):
                    at_rest()
                os.write(2, f"saddle: {verdict(name)}\n".encode())
                os._exit(1)

    thread = threading.Thread(target=watch, name="saddlepoint-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def watching_it_start() -> Iterator[None]:
    """The same while Ray starts here: it can be asked for its processes only when it stands, but they are children."""
    before = _dead_children()

    def died() -> str | None:
        return next((HEAD[name] for pid, name in _dead_children() if name in HEAD and (pid, name) not in before), None)

    with watching(lambda: None, died), _patient_but_awake():
        yield


@contextmanager
def _patient_but_awake() -> Iterator[None]:
    """Ray waits up to 30 s for the port of its head, and holds the interpreter all the while: nobody could watch. Here
    it looks for it now and then."""
    look = node.wait_for_persisted_port

    def wait(*names: str, timeout_ms: int) -> int:
        until = time.monotonic() + timeout_ms / 1e3
        while True:
            try:
                return int(look(*names, timeout_ms=1, poll_interval_ms=1))
            except RuntimeError:  # not yet
                if time.monotonic() >= until:
                    raise
            time.sleep(0.05)

    node.wait_for_persisted_port = wait
    try:
        yield
    finally:
        node.wait_for_persisted_port = look


@contextmanager
def watching_it_end(at_rest: Callable[[], None]) -> Iterator[None]:
    """The same while Ray is ended here, up to the point at which it ends its processes itself."""
    here = ray._private.worker._global_node
    if here is None:
        yield
        return
    ending, end = threading.Event(), here.kill_all_processes

    def kill_all_processes(*arguments: Any, **options: Any) -> None:
        ending.set()
        end(*arguments, **options)

    def died_before() -> str | None:
        name = died()
        return None if ending.is_set() else name  # asked afterwards: it is set before the first of them is ended

    here.kill_all_processes = kill_all_processes
    with watching(at_rest, died_before):
        yield


def _dead_children() -> set[tuple[int, str]]:
    """Number and name of each child process that has ended, and for which nobody has waited yet."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add((child.pid, child.name()))
    return found
