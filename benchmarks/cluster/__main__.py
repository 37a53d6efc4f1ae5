"""A sweep on a real cluster of several nodes, from `saddle submit` to a promoted model, while a node is killed.

    python benchmarks/cluster [--workers 2] [--trials 9] [--rounds 2000] [--bucket]

The nodes are `ray start` processes with token authentication, each in a network namespace of its own where one may make
them; MLflow's store and the ledger are two databases of one PostgreSQL server, sweeps and artifacts lie in a folder
that all nodes see. With --bucket checkpoints lie in S3, and only the head sees that folder. Everything is started here,
and ended again by its process id. Exit code 1: something was lost, doubled, or let in.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from nodes import Node
from proof import Checks, Loss, evidence, running, secret_in_files
from stage import EVERY, PATIENCE, Cluster

from saddlepoint.workflows.folder import Folder


def wait(what: str, ready: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise RuntimeError(f"{what}: the command has ended with {process.returncode}: {out[-2000:]} {err}")
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: nothing in {PATIENCE:.0f} s")
        time.sleep(0.2)


def strangers(cluster: Cluster, submit: list[str], check: Checks) -> None:
    for what, changes, word in (
        ("without a token", {"RAY_AUTH_TOKEN": ""}, "set RAY_AUTH_TOKEN"),
        ("with a wrong one", {"RAY_AUTH_TOKEN": "wrong"}, "another token"),
    ):
        code, _, err = cluster.saddle(*submit, **changes)
        check(f"submit {what} is refused", code == 2 and err.count("\n") == 1 and word in err, err.strip())


def lose_a_node(cluster: Cluster, job: "subprocess.Popen[str]", rounds: int, check: Checks) -> Loss:
    """Kills a worker node when every trial that runs is in its midst, and has a checkpoint."""
    before = cluster.saved()

    def in_the_midst() -> bool:
        live = cluster.live()
        fresh = {number for number, round in cluster.saved().items() if round > before.get(number, 0)}
        return bool(live) and live.keys() <= fresh and max(live.values()) <= rounds - 3 * EVERY

    while True:
        wait("trials in the midst", in_the_midst, job)
        victim = busiest(cluster.nodes.nodes[1:])
        victim.send(signal.SIGSTOP)
        if in_the_midst():  # what it trains is among them, and cannot end meanwhile
            break
        victim.send(signal.SIGCONT)
    if cluster.checkpoints:
        apart(cluster, check)
    live, count = cluster.live(), len(victim.pids())
    victim.kill()
    check("a worker node is killed in mid-sweep", True,
          f"{victim.name}, {victim.address}, {count} processes; trials by round: {live}")  # fmt: skip
    return Loss(victim.address, cluster.saved())


def apart(cluster: Cluster, check: Checks) -> None:
    """The trials lie in the bucket, and what lies in the folder is not what the workers work with."""
    trials = str(Folder(cluster.folder).trials("trial"))
    check("trials lie in a bucket", trials.startswith("s3://"), trials)
    seeing = [node.name for node in cluster.nodes.nodes if node.sees(cluster.folder)]
    if cluster.network.separate:
        check("the sweep's folder is the head's alone", seeing == ["head"], f"seen by {', '.join(seeing)}")


def busiest(nodes: list[Node]) -> Node:
    """Where something is trained: the node that used most of the processors' time for a moment."""
    before = [node.ticks() for node in nodes]
    time.sleep(0.3)
    return max(zip(nodes, before, strict=True), key=lambda pair: pair[0].ticks() - pair[1])[0]


def stop_and_go_on(cluster: Cluster, submit: list[str], check: Checks) -> None:
    code, out, err = cluster.saddle(*submit, "--detach", "--json")
    if code:
        raise RuntimeError(err)
    job = json.loads(out)["job"]
    wait("the first checkpoint", lambda: bool(cluster.saved()))
    code, out, _ = cluster.saddle(*submit)
    said = [line for line in out.splitlines() if "another command is working" in line]
    check("a second job on a live sweep is refused", code == 1 and len(said) == 1, *said)
    code, out, _ = cluster.saddle("stop", job, "--json")
    check("saddle stop", code == 0 and json.loads(out)["status"] == "STOPPED", job)
    with cluster.as_user():
        check("a stopped sweep has no RUNNING run", not running(), running())
    code, out, _ = cluster.saddle("jobs", "--json")
    check("saddle jobs knows it", code == 0 and job in [each["id"] for each in json.loads(out)])
    code, _, err = cluster.saddle("status", job[:-1] + "x")
    check("an unknown job is told from the nearest", code == 2 and job in err, err.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep on a real cluster, of which a node is killed.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=2000, help="of a trial; a multiple of 100")
    parser.add_argument("--no-namespaces", action="store_true", help="all nodes on 127.0.0.1")
    parser.add_argument("--bucket", action="store_true", help="checkpoints in S3; where nodes have namespaces of "
                        "their own, only the head sees the sweep's folder")  # fmt: skip
    chosen = parser.parse_args()
    separate = not chosen.no_namespaces
    check = run(chosen.workers, chosen.trials, chosen.rounds, separate=separate, bucket=chosen.bucket)
    print(f"\n{check.table()}")
    sys.exit(0 if check.passed else 1)


def run(
    workers: int, trials: int, rounds: int, *, separate: bool = True, bucket: bool = False, whole: bool = True
) -> Checks:
    """The story. whole: also who is not let in, a job that is stopped, a second one beside it, and one after all."""
    check, began = Checks(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sdl", dir="/tmp") as folder, ExitStack() as stack:  # short, for sockets
        cluster = Cluster(Path(folder), workers, stack, separate=separate, bucket=bucket)
        kind = f"{workers + 1} nodes, " + ("a network namespace each" if cluster.network.separate else "on loopback")
        check("the cluster is up", True, f"{kind}, {time.monotonic() - began:.0f} s")
        submit = cluster.submit(rounds, trials, seeds=2 if whole else 1)
        if whole:
            strangers(cluster, submit, check)
            stop_and_go_on(cluster, submit, check)
        with cluster.saddle.start(*submit) as job:
            loss = lose_a_node(cluster, job, rounds, check)
            struck = time.monotonic()
            out, err = job.communicate(timeout=PATIENCE)
        check("the job succeeds", job.returncode == 0, f"{time.monotonic() - struck:.0f} s after the kill {err}")
        if job.returncode:
            print(out[-5000:], (cluster.folder / "sweep.log").read_text()[-5000:])
            return check
        check("its end is shown", "is now champion" in out, out.strip().splitlines()[-2:])
        with cluster.as_user():
            evidence(cluster, trials, rounds, loss, check)
        if whole:
            code, out, err = cluster.saddle(*submit)
            check("submitted once more it does nothing", code == 0 and "champion already" in out, err)
            with cluster.as_user():
                evidence(cluster, trials, rounds, loss, Checks())
        leaked = secret_in_files(cluster)
        check("no file of ours holds a secret", not leaked, leaked)
    return check


if __name__ == "__main__":
    main()
