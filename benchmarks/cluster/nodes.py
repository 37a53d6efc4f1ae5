"""A Ray cluster of several nodes on one machine: real `ray start` processes that find each other by address and token.

Where network namespaces can be made (as root, with iproute2), each node has one of its own, joined by a bridge: its own
address, its own ports. Elsewhere the nodes stand side by side on 127.0.0.1, told apart by their ports.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
STORE = 100_000_000  # bytes of shared memory a node
PATIENCE = 120.0  # seconds for a node to join


class Network:
    """Addresses for the servers and the nodes; with namespaces where we may make them."""

    def __init__(self, separate: bool = True) -> None:
        self.name = f"sdl{secrets.token_hex(2)}"  # an interface's name has at most 15 letters
        self._prefix = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
        self.namespaces = list[str]()
        self.separate = separate and os.geteuid() == 0 and shutil.which("ip") is not None
        if self.separate:
            try:
                _ip("link", "add", self.name, "type", "bridge")
                _ip("addr", "add", f"{self.servers}/24", "dev", self.name)
                _ip("link", "set", self.name, "up")
                self.place(1)
            except subprocess.CalledProcessError:  # root in name alone, as in many containers
                self.close()
                self.namespaces, self.separate = [], False

    @property
    def servers(self) -> str:
        """Where a server listens that all nodes shall reach."""
        return f"{self._prefix}.1" if self.separate else "127.0.0.1"

    @property
    def mask(self) -> str:
        return f"{self._prefix}.0/24" if self.separate else "127.0.0.0/8"

    def place(self, number: int) -> tuple[str, list[str]]:
        """The address of the node `number`, from 1, and the words before its command."""
        if not self.separate:
            return "127.0.0.1", []
        namespace, address = f"{self.name}-{number}", f"{self._prefix}.{number + 1}"
        if namespace not in self.namespaces:
            _ip("netns", "add", namespace)
            self.namespaces.append(namespace)
            outer, inner = f"{self.name}o{number}", f"{self.name}i{number}"
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", namespace)
            _ip("link", "set", outer, "master", self.name, "up")
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", inner)
            _ip("-n", namespace, "link", "set", inner, "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
        return address, ["ip", "netns", "exec", namespace]

    def close(self) -> None:
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        if self.separate:
            subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Node:
    """One `ray start --block` and all that it has started."""

    name: str
    address: str
    process: "subprocess.Popen[bytes]"

    def pids(self) -> list[int]:
        return family(self.process.pid)

    def sees(self, path: Path) -> bool:
        return Path(f"/proc/{self.process.pid}/root{path}").exists()

    def ticks(self) -> int:
        """Of the processors, that all of it has used so far."""
        return sum(int(word) for pid in self.pids() for word in _stat(pid)[11:13])

    def send(self, number: int) -> None:
        """A signal to all of it."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """As when the power fails: all at once, stopped first, so that none sees another's end."""
        self.send(signal.SIGSTOP)
        self.send(signal.SIGKILL)
        self.process.wait()


def family(pid: int) -> list[int]:
    """A process and all its descendants, read from /proc."""
    children = defaultdict[int, list[int]](list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children[int(stat[1])].append(int(entry.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found


def _stat(pid: int) -> list[str]:
    """The words of /proc/PID/stat from the third, the state, on (man 5 proc); [] of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Nodes:
    """The cluster: the first node is its head. hidden: a folder in whose place the others see an empty one of their
    own; only where each has a network namespace, with which a view of the file system comes."""

    def __init__(
        self, network: Network, place: Path, token: str, cpus: Sequence[int], hidden: Path | None = None
    ) -> None:
        self.network, self.place, self.hidden, self.nodes = network, place, hidden, list[Node]()
        self._environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{BIN}:{os.environ['PATH']}",  # of a job's `python`
        }
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "SADDLE_STORAGE"):
            self._environment.pop(name, None)
        self._port, self._dashboard = (6379, 8265) if network.separate else (free_port(), free_port())
        for number, count in enumerate(cpus):
            self.nodes.append(self._start(number, count))
            if number == 0:
                self._wait(self._port)
                self._wait(self._dashboard)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{self._dashboard}"

    @property
    def gcs(self) -> str:
        return f"{self.head.address}:{self._port}"

    def _start(self, number: int, cpus: int) -> Node:
        address, before = self.network.place(number + 1)
        name = f"worker-{number}" if number else "head"
        words = ["--block", f"--node-ip-address={address}", f"--num-cpus={cpus}", f"--object-store-memory={STORE}"]
        words += [f"--temp-dir={self.place / str(number)}", "--min-worker-port=0", "--max-worker-port=0"]
        if number == 0:
            words += ["--head", f"--port={self._port}", f"--dashboard-host={address}"]
            words += [f"--dashboard-port={self._dashboard}", "--include-dashboard=true"]
        else:
            words += [f"--address={self.gcs}"]
            if self.hidden is not None:  # `ip netns exec` has given it mounts of its own
                before += ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(self.hidden)]
        if not self.network.separate:
            words += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
            words += [f"--ray-client-server-port={free_port()}"] if number == 0 else []
        with open(self.place / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [*before, str(BIN / "ray"), "start", *words],
                env=self._environment,
                cwd=self.place,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Node(name, address, process)

    def _wait(self, port: int) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((self.head.address, port), timeout=5).close()
                return
            except OSError as error:
                if time.monotonic() > until or self.head.process.poll() is not None:
                    raise RuntimeError(f"the head did not start: {error}; {self.log('head')}") from error
                time.sleep(0.2)

    def log(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(errors="replace")

    def living(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.process.poll() is None)

    def close(self) -> None:
        for node in reversed(list(self.living())):
            node.kill()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
