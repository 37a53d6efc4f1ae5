"""Is this machine ready? Each check gives a plain verdict; none of them starts or changes anything."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..errors import SaddleError
from ..scaling import cluster
from ..scaling.submission import ADDRESS, Jobs
from ..tracking import query, store

ENOUGH_DISK = 5e9


@dataclass(frozen=True)
class Check:
    name: str
    good: bool
    verdict: str


def doctor() -> list[Check]:
    checks: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        ("packages", _packages),
        ("device", _device),
        ("ray", _ray),
        ("tracking", _tracking),
        ("disk", _disk),
    ]
    return [Check(name, *check()) for name, check in checks]


def _packages() -> tuple[bool, str]:
    found = []
    for name in ("saddlepoint", "torch", "torchvision", "ray", "optuna", "mlflow"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return False, f"{name} is not installed"
    return True, ", ".join(found)


def _device() -> tuple[bool, str]:
    if not torch.cuda.is_available():
        return True, f"no GPU; trials run on {os.cpu_count()} CPU cores"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return True, f"{len(names)} GPU: {', '.join(names)}; CUDA {torch.version.cuda}"


def _ray() -> tuple[bool, str]:
    """The cluster that trials would run on, and the one that jobs would be submitted to, if there are any."""
    address, dashboard = os.environ.get("RAY_ADDRESS"), os.environ.get(ADDRESS)
    found = [] if address or dashboard else ["starts locally, for each command (RAY_ADDRESS is not set)"]
    try:
        if address and address != "auto":
            cluster.check(address)
        if address:
            found.append(f"trials run on the cluster at {address}")
        if dashboard:
            jobs = Jobs(dashboard).all()
            found.append(f"jobs go to the cluster at {dashboard}, which has {len(jobs)}")
    except SaddleError as error:
        return False, str(error)
    return True, "; ".join(found)


def _tracking() -> tuple[bool, str]:
    try:
        uri = store.resolve(None)
        found = len(query.sweeps(uri))
    except SaddleError as error:
        return False, str(error)
    return True, f"{store.redacted(uri)}, {found} sweeps"


def _disk() -> tuple[bool, str]:
    free = shutil.disk_usage(Path.cwd()).free
    writable = os.access(Path.cwd(), os.W_OK)
    verdict = f"{free / 1e9:.0f} GB free in {Path.cwd()}"
    if not writable:
        return False, f"{verdict}, which cannot be written"
    if free < ENOUGH_DISK:
        return False, f"{verdict}; a sweep wants {ENOUGH_DISK / 1e9:.0f} or more"
    return True, verdict
