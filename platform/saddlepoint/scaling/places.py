"""How many jobs fit on the cluster, where they are, and how a job's share is divided so that no two of them starve
each other."""

from dataclasses import replace

import ray

from saddlepoint.errors import UserError
from saddlepoint.scaling.jobs import Resources

SHARE = 0.1  # of a worker's CPUs, where a job has several workers: left to the functions that start groups


def fitting(resources: Resources, what: str = "a job") -> int:
    """How many jobs the cluster takes at once. Raises UserError if not even one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
    fit = resources.at_once(machines)
    if not fit:
        found = ", ".join(f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if resources.gpus else "") for cpus, gpus in machines)
        raise UserError(f"resources: {what} asks for {resources}, the nodes have {found or 'nothing'}")
    return fit


def node() -> str:
    """The address by which Ray knows the machine that this process is on, as `ray status` shows it."""
    return str(ray.util.get_node_ip_address())


def starter(resources: Resources, jobs: int) -> dict[str, float]:
    """What the process that Tune gives a job needs, as Tune spells it: all that the job needs, or if it has several
    workers, enough to start them. So many jobs' starters take no more together than one worker leaves to them:
    wherever Tune puts them, each worker finds its place."""
    if resources.workers == 1:
        return {"cpu": resources.cpus, "gpu": resources.gpus}
    return {"cpu": max(1, int(1e4 * SHARE * resources.cpus / jobs)) / 1e4}  # Ray counts in steps of 1e-4


def worker(resources: Resources) -> Resources:
    """What each of several workers asks of its node."""
    return replace(resources, cpus=(1 - SHARE) * resources.cpus)
